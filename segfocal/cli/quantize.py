"""``segfocal quantize``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segfocal.cli.console import OVERWRITE, PATH, Sides, tell

if TYPE_CHECKING:
    from segfocal.engine.resolution import Resample
    from segfocal.quantizing import Quantization


@click.command()
@click.argument("model", type=PATH)
@click.argument("scans", type=str, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="NAME.xml; NAME.bin is written beside it.",
)
@click.option(
    "--spec",
    type=PATH,
    help="A dataset spec: both models are scored against the labels of its split too.",
)
@click.option("--split", default="test", show_default=True, help="The split of --spec.")
@click.option(
    "--tiles",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Tiles to calibrate with, spread over all scans; as many others are compared on.",
)
@click.option(
    "--tile",
    type=Sides(),
    help="Side of a tile in pixels. Default: as the model was trained.",
)
@click.option(
    "--resample",
    type=click.Choice(["auto", "never", "always"]),
    help="As `segfocal predict` is going to be asked for. Default: always with a --spec that has a "
    "resolution, else auto.",
)
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def quantize(
    model: Path,
    scans: tuple[str, ...],
    output: Path,
    spec: Path | None,
    split: str,
    tiles: int,
    tile: int | tuple[int, ...] | None,
    resample: Resample | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write MODEL (.keras or OpenVINO's .xml) in int8, calibrated on tiles of SCANS.

    The result is an OpenVINO model that `segfocal predict` runs, faster than in float32 on
    processors with int8 instructions. What it loses is measured and printed: its labels against
    those of the float model on tiles it was not calibrated with, and with --spec both models
    against the labels of a dataset. SCANS need no labels. A model of two axes takes slices of
    volumes.

    Example: segfocal quantize model.keras scene.tif -o model_int8.xml
    """
    import segfocal

    result = segfocal.quantize(
        model,
        scans,
        output,
        spec=None if spec is None else segfocal.load_spec(spec),
        split=split,
        tiles=tiles,
        tile=tile,
        resample=resample,
        overwrite=overwrite,
        progress=tell,
    )
    if as_json:
        value = {**asdict(result), "output": str(result.output)}
        click.echo(json.dumps({**value, "seconds": round(result.seconds, 3)}))
        return
    click.echo(_text(result))


def _text(result: Quantization) -> str:
    rows = [("int8 against float", result.against_float)]
    if result.float_scores is not None and result.int8_scores is not None:
        rows += [("float against labels", result.float_scores)]
        rows += [("int8 against labels", result.int8_scores)]
    lines = [f"{'':22}{'accuracy':>9}{'mIoU':>9}{'Dice':>9}"]
    for name, scores in rows:
        lines.append(
            f"{name:22}{scores.accuracy:9.4f}{scores.mean_iou:9.4f}{scores.mean_dice:9.4f}"
        )
    if not result.held_out:
        lines.append("int8 against float is on the tile it was calibrated with: there is no other")
    if result.float_scores is not None and result.int8_scores is not None:
        lost = [
            100 * (before - after)
            for before, after in (
                (result.float_scores.mean_iou, result.int8_scores.mean_iou),
                (result.float_scores.mean_dice, result.int8_scores.mean_dice),
            )
        ]
        lines.append(f"lost: {lost[0]:.2f} points of mIoU, {lost[1]:.2f} of Dice")
    lines.append(f"{result.output}: {result.tiles} tiles, {result.seconds:.1f} s")
    return "\n".join(lines)
