"""The ``segfocal`` command. Each subcommand parses and prints; the work is done below."""

from __future__ import annotations

import warnings
from typing import Any

import click

from segfocal.cli.assemble import assemble
from segfocal.cli.console import tell
from segfocal.cli.convert_weights import convert_weights
from segfocal.cli.demo import demo
from segfocal.cli.evaluate import evaluate
from segfocal.cli.export import export
from segfocal.cli.info import info
from segfocal.cli.plan import plan
from segfocal.cli.predict import predict
from segfocal.cli.quantize import quantize
from segfocal.cli.spec import spec
from segfocal.cli.speed import speed
from segfocal.cli.stopping import catch_signals
from segfocal.cli.train import train
from segfocal.errors import SegfocalError, SegfocalWarning
from segfocal.unfinished import how_to_continue, kept
from segfocal.version import __version__

__all__ = ["main", "segfocal"]


class _Group(click.Group):
    """Turns segfocal's errors into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (SegfocalError, MemoryError) as error:
            if ctx.params["debug"]:
                raise
            text = " ".join(str(error).split())
            if isinstance(error, MemoryError):
                text = f"out of memory; choose smaller tiles, patches or batches ({text})"
            if kept():
                text += f"; what is finished is kept: {how_to_continue()}"
            click.echo(f"segfocal: error: {text}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segfocal")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def segfocal(debug: bool) -> None:
    """Segment scans too large for memory: GeoTIFF scenes and NIfTI volumes.

    Start with `segfocal demo`. Exit codes: 0 done, 1 some scans failed or a check found
    faults, 2 bad input or usage, 129, 130 or 143 stopped by SIGHUP, Ctrl-C or SIGTERM. A
    stopped or killed command leaves nothing half-written; `predict` and `evaluate` continue
    when they are run again, `train` with --resume.
    """


for command in (
    demo,
    info,
    plan,
    predict,
    assemble,
    train,
    evaluate,
    export,
    quantize,
    speed,
    convert_weights,
    spec,
):
    segfocal.add_command(command)


def main() -> None:
    """Run the command line."""
    catch_signals()
    _print_warnings()
    segfocal(prog_name="segfocal")


def _print_warnings() -> None:
    """Print segfocal's own warnings as lines for people, each once; others as Python does."""
    others, told = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, SegfocalWarning):
            others(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            tell(f"warning: {message}")

    warnings.showwarning = show
    warnings.simplefilter("always", SegfocalWarning)
