"""``segfocal evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from segfocal.cli.console import OVERWRITE, PATH, progress_bar, tiling_options


@click.command()
@click.argument("model", type=PATH)
@click.argument("spec", type=PATH)
@click.option("--split", default="test", show_default=True)
@click.option("-o", "--output", type=PATH, required=True, help="Folder for label maps and scores.")
@tiling_options
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    model: Path,
    spec: Path,
    split: str,
    output: Path,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Segment the scans of a split of SPEC with MODEL and score them against their labels.

    Example: segfocal evaluate runs/landcover/model.keras data_specs/nc_landcover.yaml
    -o runs/landcover/test
    """
    import segfocal

    dataset = segfocal.load_spec(spec)
    with progress_bar() as report:
        result = segfocal.evaluate(
            model,
            dataset,
            split,
            out=output,
            overwrite=overwrite,
            progress=lambda done, total: report("tiles", done, total),
            **options,
        )
    scores = result.as_json()
    if as_json:
        click.echo(json.dumps(scores, indent=2))
        return
    width = max(len(name) for name in (*result.classes, "mean"))
    click.echo(f"{'':{width}}{'IoU':>9}{'Dice':>9}{'pixels':>13}")
    for row in scores["classes"]:
        click.echo(
            f"{row['name']:{width}}{_text(row['iou']):>9}{_text(row['dice']):>9}{row['pixels']:>13}"
        )
    click.echo(
        f"{'mean':{width}}{_text(scores['mean_iou']):>9}{_text(scores['mean_dice']):>9}"
        f"{scores['pixels']:>13}"
    )
    click.echo(f"accuracy {_text(scores['accuracy'])}; written to {output}")


def _text(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
