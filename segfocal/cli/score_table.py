"""Scores as a table on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from segfocal.rounding import significant

if TYPE_CHECKING:
    from segfocal.scores import Evaluation

__all__ = ["print_notes", "print_scores"]


def print_scores(result: Evaluation) -> None:
    """Print a row per class, and the means."""
    scores = result.as_json()
    measured = result.tolerance is not None
    width = max(len(name) for name in (*result.classes, "mean"))
    head = f"{'':{width}}{'IoU':>8}{'Dice':>8}{'prec.':>8}{'recall':>8}"
    head += f"{'HD95':>10}{'NSD':>8}" if measured else ""
    click.echo(f"{head}{'pixels':>14}")
    for k, row in enumerate(scores["classes"]):
        line = f"{row['name']:{width}}"
        line += "".join(f"{_text(row[name]):>8}" for name in ("iou", "dice", "precision", "recall"))
        if measured:
            hd95 = result.mean_over_cases("hd95", k)  # in JSON it has six digits after the point
            line += f"{'-' if math.isnan(hd95) else significant(hd95):>10}"
            line += f"{_text(row['over_cases']['nsd']['mean']):>8}"
        click.echo(f"{line}{row['pixels']:>14}")
    line = f"{'mean':{width}}{_text(scores['mean_iou']):>8}{_text(scores['mean_dice']):>8}"
    line += " " * (34 if measured else 16)
    click.echo(f"{line}{scores['pixels']:>14}")
    click.echo(f"accuracy {_with_interval(scores, 'accuracy')}")
    cases = len(result.cases)
    if result.background is not None:
        over = "case" if cases == 1 else f"{cases} cases"
        click.echo(f"foreground Dice over {over} {_with_interval(scores, 'foreground_dice')}")
    if scores["intervals"]["accuracy"] is not None:
        click.echo(f"intervals: from drawing {result.drawn} again and again")
    if measured:
        click.echo(
            f"HD95 in {result.distance_unit}, NSD within {result.tolerance:g} "
            f"{result.distance_unit}" + (": means over cases" if cases > 1 else "")
        )
    if result.calibration is not None:
        calibration = scores["calibration"]
        temperature = _text(calibration["temperature"], 2)
        click.echo(
            f"calibration error {_text(calibration['ece'])}, best temperature {temperature} (error "
            f"at that temperature {_text(calibration['ece_with_temperature'])})"
        )


def print_notes(result: Evaluation) -> None:
    """Print what was left out of the scores, and why."""
    for note in result.notes:
        click.echo(f"note: {note}")


def _with_interval(scores: dict[str, Any], name: str) -> str:
    interval = scores["intervals"][name]
    if interval is None:
        return _text(scores[name])
    low, high = (_text(bound) for bound in interval)
    return f"{_text(scores[name])} (95 % interval {low} to {high})"


def _text(score: float | None, digits: int = 3) -> str:
    return "-" if score is None else f"{score:.{digits}f}"
