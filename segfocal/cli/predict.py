"""``segfocal predict``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from segfocal.cli.class_table import class_table
from segfocal.cli.cluster import cluster_arguments, cluster_options, stdout_for_results
from segfocal.cli.console import OVERWRITE, PATH, progress_bar, tell, tiling_options
from segfocal.cli.many import means_many, predict_many
from segfocal.errors import OutputError


@click.command()
@click.argument("model", type=PATH)
@click.argument("inputs", metavar="INPUT...", type=str, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=str,
    required=True,
    help="Label map: .tif for scenes, .nii or .nii.gz for volumes. With many inputs: a folder.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Of many scans, only run those that summary.json of an earlier run, of the same model "
    "with the same parameters, says have failed or were not reached.",
)
@click.option(
    "--channels-from",
    "more",
    type=str,
    multiple=True,
    metavar="FILE",
    help="Another file with channels of the same scan: bands of a scene in files of their own, "
    "of other resolutions too, or another modality of a volume. May be given several times; "
    "channels follow those of INPUT.",
)
@click.option(
    "--ensemble",
    type=PATH,
    multiple=True,
    metavar="MODEL",
    help="Another model of the same channels and classes: probabilities are averaged. May be "
    "given several times.",
)
@click.option(
    "--tta",
    type=click.Choice(["flips", "rotations"]),
    help="Average over flipped tiles (4 times the work, 8 times for volumes), and over tiles "
    "rotated by 90 degrees too (twice that).",
)
@click.option(
    "--slice-axis",
    type=click.Choice(["sagittal", "coronal", "axial"]),
    help="Slices of a volume that a model of two axes is run on. Default: those furthest apart, "
    "or as the file stores them.",
)
@tiling_options
@click.option(
    "--probabilities",
    type=click.Choice(["float32", "uint8"]),
    help="Write the class probabilities too, to OUTPUT's name with .probabilities before .tif or "
    ".nii.gz, a band (volumes: a fourth axis) per class; uint8 stands for 0 to 250 with scale "
    "1/250.",
)
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Write the entropy of the probabilities too, to OUTPUT's name with .uncertainty "
    "before .tif or .nii.gz: 0 certain, 1 undecided.",
)
@click.option(
    "--min-size",
    metavar="SIZE",
    help="Merge pieces of a scene's label map smaller than so many pixels, or an area such as "
    "0.5ha or 500m2, into their largest neighbour, as GDAL's sieve does.",
)
@click.option(
    "--area",
    metavar="XMIN,YMIN,XMAX,YMAX|FILE",
    help="Segment this part of a scene only: bounds in the scene's CRS, or a file with polygons.",
)
@click.option(
    "--area-crs",
    metavar="CRS",
    help="CRS of the area's coordinates, such as EPSG:4326; x or longitude comes first always. "
    "Default: the scene's for bounds, and the one that a file names.",
)
@click.option(
    "--polygons",
    type=str,
    metavar="FILE",
    help="Write the polygons of a scene's labels too: .gpkg, .geojson or .fgb; only a suffix "
    "stands for OUTPUT's name with it. Needs pip install 'segfocal[vector]'.",
)
@click.option(
    "--simplify",
    type=float,
    metavar="TOLERANCE",
    help="Simplify polygons, in units of the CRS; neighbours leave no gaps.",
)
@click.option(
    "--min-area",
    metavar="SIZE",
    help="Leave out polygons below so many pixels, or an area such as 0.5ha.",
)
@click.option(
    "--largest-component",
    metavar="CLASS",
    multiple=True,
    help="Keep only the largest connected piece of a class, by its name, or of all; the rest "
    "becomes background (value 0). May be given several times.",
)
@click.option(
    "--fill-holes",
    metavar="CLASS",
    multiple=True,
    help="Fill background that a class, by its name, or any of all, encloses. May be given "
    "several times.",
)
@click.option(
    "--min-volume",
    type=float,
    metavar="MM3",
    help="Turn connected pieces of a volume's classes below so many cubic millimetres into "
    "background.",
)
@click.option(
    "--layout",
    type=click.Choice(["cog", "gtiff"]),
    default="cog",
    show_default=True,
    help="Cloud-optimised GeoTIFF with overviews, or a plain tiled one.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do only the I-th of N shares, on a file system that all processes see. Of one scan: "
    "compute the part into .OUTPUT.scratch; `segfocal assemble OUTPUT` makes the label map of "
    "them. Of many scans: segment those that are this process's, see summary.I-of-N.json.",
)
@cluster_options
@click.option(
    "--local-only",
    is_flag=True,
    help="Refuse scans that are not local files, sources of a VRT included. The environment "
    "variable SEGFOCAL_LOCAL_ONLY=1 does the same for every command.",
)
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def predict(
    model: Path,
    inputs: tuple[str, ...],
    output: str,
    retry_failed: bool,
    more: tuple[str, ...],
    ensemble: tuple[Path, ...],
    shard: str | None,
    local_only: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Segment the scan INPUT with MODEL and write a label map on the same grid.

    Several inputs, a folder, a pattern such as 'scenes/*.tif' or a table (.csv with a column
    input) are segmented one after the other into the folder OUTPUT: one that fails does not stop
    the others, finished ones are skipped, and OUTPUT/summary.json tells what became of each, as
    does the table OUTPUT/summary.csv, after Ctrl-C too. The exit code is 1 when some failed. With
    --executor ray they are shared among the processes of a Ray cluster, which also works on parts
    of one long scan at a time; with --shard I/N each of N processes does its share of them.

    MODEL is a .keras file, or an .onnx or .xml file made by `segfocal export`. INPUT is
    anything GDAL or nibabel opens. The output appears only when it is complete, with
    OUTPUT.json beside it, which says what it was made from. A run that was stopped or killed
    is continued by the same command; until then, what is finished is kept in the hidden
    folder .OUTPUT.scratch.

    Example: segfocal predict model.keras scene.tif -o labels.tif
    """
    import segfocal

    if not output.strip():
        raise click.UsageError("-o is empty; expected the path of a file or folder")
    if local_only:
        segfocal.forbid_network()
    cluster = cluster_arguments(options)
    models = [model, *ensemble] if ensemble else model
    source = [*inputs, *more] if more else inputs[0]
    many = means_many(inputs, Path(output), output)
    if shard is not None:
        if cluster["executor"] != "serial":
            raise click.UsageError("--shard goes with --executor serial")
        if not many:
            if retry_failed:
                raise click.UsageError("--retry-failed goes with many scans and a folder as OUTPUT")
            _predict_part(models, source, output, shard, as_json, overwrite=overwrite, **options)
            return
    if many:
        if more:
            raise click.UsageError("--channels-from goes with one INPUT; use a table for many")
        named_like_a_file = output.lower().endswith((".tif", ".tiff", ".nii", ".nii.gz"))
        if named_like_a_file and not Path(output).is_dir():
            raise OutputError(
                f"{output}: one file for {', '.join(inputs[:2])}; expected a file as INPUT, or a "
                "folder as OUTPUT for many"
            )
        options.update(overwrite=overwrite, retry_failed=retry_failed, shard=shard, **cluster)
        if not predict_many(models, inputs, Path(output), as_json, **options):
            sys.exit(1)
        return
    if retry_failed:
        raise click.UsageError("--retry-failed goes with many scans and a folder as OUTPUT")
    with stdout_for_results(), progress_bar() as report:

        def tiles(done: int, total: int) -> None:
            report("tiles", done, total)

        options.update(overwrite=overwrite, notice=tell)
        if cluster.pop("executor") == "serial":
            result = segfocal.predict(models, source, output, progress=tiles, **options)
        else:
            result = segfocal.predict_on_cluster(
                models,
                source,
                output,
                progress=lambda done, total: report("units", done, total),
                tile_progress=tiles,
                **cluster,
                **options,
            )
    if as_json:
        value = {
            "output": str(result.output),
            "shape": result.shape,
            "tiles": result.tiles,
            "seconds": round(result.seconds, 3),
            "class_pixels": result.class_pixels,
            "invalid_pixels": result.invalid_pixels,
            "classes": result.classes,
            "sha256": result.sha256,
            "fingerprint": result.fingerprint,
            "unchanged": result.unchanged,
        }
        if result.polygons is not None:
            value["polygons"] = result.polygons
        click.echo(json.dumps(value))
        return
    sides = " x ".join(str(side) for side in result.shape)
    click.echo(f"{result.output}: {sides} pixels, {result.tiles} tiles, {result.seconds:.1f} s")
    click.echo(class_table(result.classes, result.invalid_pixels))
    if result.polygons is not None:
        from segfocal.engine.polygons import polygons_of

        vector = polygons_of(options["polygons"], result.output)
        if vector is not None:
            click.echo(f"{vector.path}: {result.polygons} polygons")


def _predict_part(
    model: Any, source: Any, output: str, shard: str, as_json: bool, **options: Any
) -> None:
    import segfocal

    with progress_bar() as report:
        part = segfocal.predict_part(
            model,
            source,
            output,
            shard,
            progress=lambda done, total: report("tiles", done, total),
            notice=tell,
            **options,
        )
    if as_json:
        click.echo(json.dumps({"output": str(part.output), "part": part.part, "units": part.units}))
        return
    click.echo(f"{part.output}: part {part.part}, {part.units} units, {part.seconds:.1f} s")
