"""``segfocal predict`` with many inputs."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segfocal.cli.cluster import stdout_for_results
from segfocal.cli.console import progress_bar, tell

if TYPE_CHECKING:
    from segfocal.summaries import Summary

__all__ = ["means_many", "predict_many"]

_LINES = 20


def means_many(inputs: tuple[str, ...], output: Path, text: str) -> bool:
    """Return True when a folder of outputs is meant: several inputs, or what stands for several.

    Args:
        inputs: What the user gave.
        output: Where the output goes.
        text: The same as it was typed: a slash at its end means a folder.
    """
    return (
        len(inputs) != 1
        or output.is_dir()
        or text.endswith(("/", os.sep))
        or _stands_for_many(inputs[0])
    )


def _stands_for_many(one: str) -> bool:
    """Return True for a folder, a table or a pattern."""
    if os.path.exists(one):
        return os.path.isdir(one) or one.lower().endswith((".csv", ".tsv"))
    return "://" not in one and glob.has_magic(one)


def predict_many(
    model: Any, inputs: tuple[str, ...], folder: Path, as_json: bool, **options: Any
) -> bool:
    """Segment many scans and print what became of them; return whether all went well."""
    import segfocal

    with stdout_for_results(), progress_bar() as report:
        summary = segfocal.predict_many(
            model,
            inputs,
            folder,
            progress=lambda done, total: report("scans", done, total),
            tile_progress=lambda done, total: report("tiles", done, total),
            notice=tell,
            **options,
        )
    if as_json:
        click.echo(json.dumps(summary.as_json()))
    else:
        _print(summary)
    return not summary.failed


def _print(summary: Summary) -> None:
    if not summary.outcomes:  # there are fewer scans than shards
        click.echo(f"nothing for this shard; {summary.path}")
        return
    for outcome in summary.failed[:_LINES]:
        name, reason = outcome.input[0], outcome.reason or ""
        click.echo(f"failed  {reason if reason.startswith(name) else f'{name}: {reason}'}")
    if len(summary.failed) > _LINES:
        click.echo(f"... and {len(summary.failed) - _LINES} more")
    pixels = sum(outcome.pixels for outcome in summary.outcomes)
    seconds = sum(outcome.seconds for outcome in summary.outcomes)
    parts = [f"{summary.count('done')} done"]
    if summary.count("unchanged"):
        parts.append(f"{summary.count('unchanged')} finished before")
    if summary.count("part"):
        parts.append(f"{summary.count('part')} in part")
    parts.append(f"{len(summary.failed)} failed")
    click.echo(
        f"{len(summary.outcomes)} scans: {', '.join(parts)}; {pixels / 1e6:.1f} Mpx in "
        f"{seconds:.1f} s; {summary.path}"
    )
    if summary.count("part"):
        click.echo("scans in part are not finished yet: rerun, or run without --shard")
