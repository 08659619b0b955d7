"""``segfocal evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from segfocal.cli.console import OVERWRITE, PATH, ROOT, progress_bar, tell, tiling_options
from segfocal.cli.score_table import print_notes, print_scores


@click.command()
@click.argument("model", type=PATH)
@click.argument("spec", type=PATH)
@click.option("--split", help="Default: test; with --calibrate, val.")
@click.option("-o", "--output", type=PATH, required=True, help="Folder for label maps and scores.")
@ROOT
@click.option(
    "--distances/--no-distances",
    default=True,
    show_default=True,
    help="Measure distances between boundaries: HD95, NSD, average.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Distance within which boundaries count as equal (NSD), in millimetres or units of the "
    "CRS. Default: the longest side of a pixel.",
)
@click.option(
    "--calibration",
    is_flag=True,
    help="Measure whether probabilities can be taken at their word. Runs the network once more. "
    "Not of regions that overlap.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure that, and store the temperature that fits best in the card of MODEL, a .keras "
    "file: probabilities and uncertainties are at that temperature from then on.",
)
@tiling_options
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    model: Path,
    spec: Path,
    split: str | None,
    output: Path,
    root: Path | None,
    distances: bool,
    tolerance: float | None,
    calibration: bool,
    calibrate: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Segment the scans of a split of SPEC with MODEL and score them against their labels.

    The output folder gets a label map per case, scores.json, scores.csv and the report,
    scores.html. With task: regions it also gets the probabilities of each case.

    Example: segfocal evaluate runs/landcover/model.keras data_specs/nc_landcover.yaml
    -o runs/landcover/test
    """
    import segfocal

    dataset = segfocal.load_spec(spec, root=root)
    with progress_bar() as report:
        result = segfocal.evaluate(
            model,
            dataset,
            split or ("val" if calibrate else "test"),
            out=output,
            distances=distances,
            tolerance=tolerance,
            calibration=calibration,
            calibrate=calibrate,
            overwrite=overwrite,
            progress=lambda done, total: report("tiles", done, total),
            notice=tell,
            **options,
        )
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
        return
    print_scores(result)
    print_notes(result)
    click.echo(f"report: {output / 'scores.html'}")
