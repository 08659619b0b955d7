"""``segfocal speed``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segfocal.cli.console import PATH, Sides, tell

if TYPE_CHECKING:
    from segfocal.engine.openvino_predictor import Precision
    from segfocal.speeds import Speed


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--tile",
    type=Sides(),
    help="Side of a tile in pixels. Default: as the model was trained.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["keras", "openvino", "onnxruntime"]),
    multiple=True,
    help="Try this one; may be repeated. Default: all that are installed and can run MODEL.",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(min=1),
    multiple=True,
    help="Tiles per call of Keras to try; may be repeated. Default: 1, 2, 4 and 8.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="How long each way is timed.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def speed(
    model: Path,
    tile: int | tuple[int, ...] | None,
    engines: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    seconds: float,
    precision: Precision,
    as_json: bool,
) -> None:
    """Measure how fast tiles run through MODEL here, and say which options are fastest.

    Engines, tiles per call and, of OpenVINO, calls side by side are tried in turn, each for a
    few seconds; let the machine do nothing else meanwhile. Nothing is written but a conversion
    to the cache. The memory is that of this process, with what the ways before left behind.

    Example: segfocal speed model.keras --tile 512
    """
    import segfocal

    found = segfocal.measure_speed(
        model,
        tile=tile,
        engines=engines or None,  # type: ignore[arg-type]
        seconds=seconds,
        precision=precision,
        tell=tell,
        **({"batch_sizes": batch_sizes} if batch_sizes else {}),
    )
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    click.echo(_table(found))
    click.echo(f"fastest: {_options(found[0], tile, precision)}")


def _table(found: list[Speed]) -> str:
    rows = [("engine", "batch", "side by side", "s per tile", "Mpx/s", "peak memory")]
    rows += [
        (
            one.engine,
            str(one.batch_size),
            "" if one.lanes is None else str(one.lanes),
            f"{one.seconds:.4f}",
            f"{one.mpx_per_second:.3f}",
            f"{one.peak_bytes / 1e6:.0f} MB",
        )
        for one in found
    ]
    first = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{row[0]:{first}}{row[1]:>7}{row[2]:>14}{row[3]:>12}{row[4]:>9}{row[5]:>13}"
        for row in rows
    )


def _options(best: Speed, tile: int | tuple[int, ...] | None, precision: str) -> str:
    """Return how `segfocal predict` is asked for the fastest way."""
    words = [] if best.lanes is None else [f"SEGFOCAL_LANES={best.lanes}"]
    words.append(f"segfocal predict --engine {best.option} --batch-size {best.batch_size}")
    if tile is not None:
        sides = (tile,) if isinstance(tile, int) else tile
        words.append(f"--tile {','.join(map(str, sides))}")
    if precision != "float32":
        words.append(f"--precision {precision}")
    return " ".join(words)
