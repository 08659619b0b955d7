"""``segfocal predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from segfocal.cli.console import OVERWRITE, PATH, progress_bar, tell, tiling_options


@click.command()
@click.argument("model", type=PATH)
@click.argument("input", type=str)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Label map: .tif for scenes, .nii or .nii.gz for volumes.",
)
@tiling_options
@click.option(
    "--probabilities",
    type=click.Choice(["float32", "uint8"]),
    help="Write a scene's class probabilities too, to OUTPUT's name with .probabilities before "
    ".tif, a band per class; uint8 stands for 0 to 250 with scale 1/250.",
)
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Write the entropy of the probabilities too, to OUTPUT's name with .uncertainty "
    "before .tif: 0 certain, 1 undecided.",
)
@click.option(
    "--layout",
    type=click.Choice(["cog", "gtiff"]),
    default="cog",
    show_default=True,
    help="Cloud-optimised GeoTIFF with overviews, or a plain tiled one.",
)
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def predict(
    model: Path, input: str, output: Path, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Segment the scan INPUT with MODEL and write a label map on the same grid.

    MODEL is a .keras file, or an .onnx or .xml file made by `segfocal export`. INPUT is
    anything GDAL or nibabel opens. The output appears only when it is complete, with
    OUTPUT.json beside it, which says what it was made from. A run that was stopped or killed
    is continued by the same command; until then, what is finished is kept in the hidden
    folder .OUTPUT.scratch.

    Example: segfocal predict model.keras scene.tif -o labels.tif
    """
    import segfocal

    with progress_bar() as report:
        result = segfocal.predict(
            model,
            input,
            output,
            overwrite=overwrite,
            progress=lambda done, total: report("tiles", done, total),
            notice=tell,
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
            "sha256": result.sha256,
            "fingerprint": result.fingerprint,
            "unchanged": result.unchanged,
        }
        click.echo(json.dumps(value))
        return
    sides = " x ".join(str(side) for side in result.shape)
    click.echo(f"{result.output}: {sides} pixels, {result.tiles} tiles, {result.seconds:.1f} s")
