"""What commands share: progress on a terminal, and options that several take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click

__all__ = [
    "OVERWRITE",
    "PATH",
    "ROOT",
    "DeviceCount",
    "Sides",
    "progress_bar",
    "tell",
    "tiling_options",
]

PATH = click.Path(path_type=Path)

OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing output.")

ROOT = click.option("--root", type=PATH, help="Folder of the data, in place of the spec's own.")


class Report(Protocol):
    """Draws how much of something is done, with a note beside it."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


class Sides(click.ParamType):
    """One number for all axes, or one per axis: ``512`` or ``96,96,64``."""

    name = "N[,N...]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        if not isinstance(value, str):
            return value
        try:
            sides = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no whole number or comma-separated list of them", param, ctx)
        if any(side < 0 for side in sides):
            self.fail(f"{value!r} has a negative number", param, ctx)
        if any(side >= 2**31 for side in sides):
            self.fail(f"{value!r} has a number beyond any scan's side", param, ctx)
        return sides[0] if len(sides) == 1 else sides


class DeviceCount(click.ParamType):
    """How many devices: a number from 1, or ``all``."""

    name = "N|all"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        if not isinstance(value, str) or value == "all":
            return value
        if not value.isdecimal() or not int(value):
            self.fail(f"{value!r} is neither a number from 1 nor all", param, ctx)
        return int(value)


def tiling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of tiled inference to a command."""
    for option in (
        click.option(
            "--interpolation",
            type=click.Choice(["1", "3"]),
            default="1",
            show_default=True,
            callback=lambda context, option, value: int(value),
            help="How a scan is resampled: 1 linearly, 3 by a cubic spline.",
        ),
        click.option(
            "--resample",
            type=click.Choice(["auto", "never", "always"]),
            default="auto",
            show_default=True,
            help="Resample the scan to the resolution that the model was trained at, and the "
            "result back to the scan's pixels. auto: volumes whose spacing differs by more than "
            "1 %; always: scenes too.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "bfloat16"]),
            default="float32",
            show_default=True,
            help="bfloat16: let OpenVINO compute in it, on processors that have it; some 1e-2 off.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["auto", "keras", "openvino", "onnxruntime"]),
            default="auto",
            show_default=True,
            help="What runs the network. A .keras model is converted for OpenVINO or ONNX Runtime "
            "once. auto: OpenVINO where it is installed, there is no GPU and the model can be "
            "converted, else Keras.",
        ),
        click.option(
            "--exact-context",
            is_flag=True,
            help="Measure frozen means block by block, a pass over the scan for each.",
        ),
        click.option(
            "--global-context",
            type=click.Choice(["tile", "local", "frozen", "none"]),
            help="What the network's last focal level averages. Default: as the model was made.",
        ),
        click.option(
            "--max-memory",
            metavar="SIZE",
            help="What the process may take in all, such as 4GB: wide scans are swept in narrower "
            "strips then. The result stays the same.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=4,
            show_default=True,
            help="Tiles per call of the network: more are faster and take more memory.",
        ),
        click.option(
            "--blend",
            type=click.Choice(["gaussian", "hann", "linear", "constant"]),
            default="gaussian",
            show_default=True,
            help="Weights of overlapping tiles.",
        ),
        click.option(
            "--halo",
            type=Sides(),
            default="0",
            show_default=True,
            help="Border of each tile that is computed and dropped, in pixels.",
        ),
        click.option(
            "--overlap",
            type=Sides(),
            help="Pixels blended between neighbouring tiles. Default: a quarter of a tile, rounded "
            "up to a multiple of the network's output_stride (32, of fine presets 16).",
        ),
        click.option(
            "--tile",
            type=Sides(),
            help="Side of a tile in pixels, halo included. Default: as the model was trained.",
        ),
    ):
        command = option(command)
    return command


def tell(text: str) -> None:
    """Print a line for the user on stderr."""
    click.echo(f"segfocal: {text}", err=True)


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Report]:
    """Yield a function ``(what, done, total, note="")`` that draws bars on stderr.

    A bar shows the share done, the rate, the time that remains and the note. Off a terminal
    nothing is drawn.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="cyan")

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what, done, total, note="": None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, int] = {}

        def report(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)  # type: ignore[arg-type]

        yield report
