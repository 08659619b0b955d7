"""``segfocal predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from segfocal.cli.console import OVERWRITE, PATH, progress_bar, tiling_options


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
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def predict(
    model: Path, input: str, output: Path, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Segment the scan INPUT with MODEL and write a label map on the same grid.

    INPUT is anything GDAL or nibabel opens. The output appears only when it is complete.

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
        }
        click.echo(json.dumps(value))
        return
    sides = " x ".join(str(side) for side in result.shape)
    click.echo(f"{result.output}: {sides} pixels, {result.tiles} tiles, {result.seconds:.1f} s")
