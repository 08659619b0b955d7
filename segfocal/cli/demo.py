"""``segfocal demo``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segfocal.cli.console import OVERWRITE, PATH, progress_bar

if TYPE_CHECKING:
    from segfocal.demonstration import DemoResult


@click.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("segfocal-demo"),
    show_default=True,
    help="Folder for models, label maps and pictures.",
)
@OVERWRITE
@click.option("--steps", type=click.IntRange(min=1), help="Training steps; fewer for a quick look.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(output: Path, overwrite: bool, steps: int | None, as_json: bool) -> None:
    """Train on real samples, segment a scene and a volume, report: the whole job.

    Takes about three minutes on two cores, without a GPU and without a network.
    """
    import segfocal

    with progress_bar() as report:
        results = segfocal.run_demo(output, overwrite=overwrite, steps=steps, report=report)
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results], indent=2))
        return
    for result in results:
        _print(result)


def _print(result: DemoResult) -> None:
    click.echo(f"\n{result.headline}  ({result.seconds:.0f} s)")
    click.echo("scores on the part that was not trained on:")
    click.echo(f"  {'':16}{'accuracy':>10}{'mIoU':>10}{'mean Dice':>11}")
    for who, scores in result.scores().items():
        click.echo(
            f"  {who:16}{scores['accuracy']:10.3f}{scores['mean_iou']:10.3f}"
            f"{scores['mean_dice']:11.3f}"
        )
    click.echo(f"  labels   {result.labels}")
    click.echo(f"  picture  {result.overlay}")
    click.echo(f"  model    {result.model}")
