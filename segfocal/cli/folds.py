"""``segfocal train --fold`` and ``--all-folds``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segfocal.cli.console import progress_bar
from segfocal.cli.score_table import print_notes, print_scores

if TYPE_CHECKING:
    from segfocal import DatasetSpec
    from segfocal.cross_validation import CrossValidation
    from segfocal.training import StepReport

__all__ = ["train_folds"]


def train_folds(
    dataset: DatasetSpec, output: Path, folds: list[int] | None, *, as_json: bool, **options: Any
) -> None:
    """Train and score folds of a dataset, and print what came out."""
    import segfocal

    current = 0
    with progress_bar() as report:

        def begin(fold: int) -> None:
            nonlocal current
            current = fold

        def told(now: StepReport) -> None:
            report(f"fold {current}: steps", now.step, now.steps, str(now))

        result = segfocal.cross_validate(
            dataset,
            output,
            folds=folds,
            begin=begin,
            tell=told,
            tiles=lambda done, total: report(f"fold {current}: tiles", done, total),
            **options,
        )
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
        return
    _print(result)


def _print(result: CrossValidation) -> None:
    for one in result.folds:
        line = f"fold {one.fold}: {one.run.steps} steps in {one.run.seconds:.0f} s"
        if one.scores is None:
            click.echo(f"{line}, not finished: --resume goes on")
        else:
            cases = len(one.scores.cases)
            click.echo(
                f"{line}; {cases} case{'s' * (cases != 1)}, mean IoU {one.scores.mean_iou:.3f}, "
                f"mean Dice {one.scores.mean_dice:.3f}"
            )
            if result.scores is None:  # else they are below, of all folds
                print_notes(one.scores)
    if result.scores is not None:
        click.echo("all cases, each by the model that was trained without it:")
        print_scores(result.scores)
        print_notes(result.scores)
        click.echo(f"report: {result.folder / 'scores.html'}")
