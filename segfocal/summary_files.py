"""The files of a summary: JSON for programs, beside it a table for people.

Both are replaced together, which no signal divides: neither is of another time than the other.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from segfocal import unfinished
from segfocal.errors import OutputError, OutputExistsError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.run_descriptions import differing
from segfocal.summaries import KIND, Outcome, Summary

__all__ = ["SUMMARY", "earlier_outcomes", "refuse_to_replace_stranger", "write_summary"]

SUMMARY = "summary.json"
"""Name of the summary in the folder of outputs."""

COLUMNS = ("scan", "outcome", "reason", "seconds", "pixels", "peak_bytes", "output")
"""Columns of the table beside it."""

_MARK = re.compile(rb'"kind"\s*:\s*"' + KIND.encode() + b'"')

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take for the start of a formula."""


def earlier_outcomes(
    path: Path, outcomes: Sequence[Outcome], run: Mapping[str, Any]
) -> list[Outcome]:
    """Return outcomes with those of an earlier summary filled in where a scan succeeded.

    Args:
        path: The summary.
        outcomes: Of the scans of this run, none of them begun.
        run: What this run is of, see :func:`segfocal.run_descriptions.describe_run`.

    Raises:
        OutputError: There is no summary, or it is of another model or other parameters.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        before = value["run"]
        changed = differing(before, run)
        known = {
            (tuple(one["input"]), one["output"]): Outcome(**{**one, "input": tuple(one["input"])})
            for one in value["outcomes"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path}: no summary of an earlier run ({type(error).__name__}: {error}); run without "
            "--retry-failed"
        ) from error
    if changed:
        raise OutputError(
            f"{path}: is of a run with {changed}; expected the same as now: run without "
            "--retry-failed, or choose another folder"
        )
    found = []
    for one in outcomes:
        earlier = known.get((one.input, one.output), one)
        is_there = earlier.status in ("done", "unchanged") and os.path.exists(one.output)
        found.append(earlier if is_there else one)
    return found


def write_summary(summary: Summary) -> None:
    """Write a summary to its file, and the table beside it; a signal waits for both.

    Raises:
        OutputError: They cannot be written; older ones stand.
    """
    with unfinished.undivided(), PendingOutput(summary.path, overwrite=True) as pending:
        with writing(summary.path):
            with _opened(pending.main) as file:
                file.writelines(_json(summary))
            with _opened(pending.path(table_path(summary.path).name)) as file:
                _write_table(summary, file)
        pending.commit()


def table_path(path: Path) -> Path:
    """Return where the table beside a summary stands."""
    return path.with_suffix(".csv")


def refuse_to_replace_stranger(path: Path) -> None:
    """Raise when a summary, or the table beside it, would replace a file that is none.

    Args:
        path: The summary.

    Raises:
        OutputExistsError: It would: such as a list of scans, or statistics of another program.
    """
    head = _head(path)  # of a million scans, all of it would take long
    if head is not None and _MARK.search(head) is None:
        raise _stranger(path, "summary")
    table = table_path(path)
    head = _head(table)
    if head is None:
        return
    first = head.split(b"\n")[0].lstrip(b'"')
    if first[:4] != b"scan" or b"outcome" not in first:
        raise _stranger(table, "table")


def _head(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(1000).removeprefix(b"\xef\xbb\xbf")
    except OSError:  # there is none, or writing it tells
        return None


def _stranger(path: Path, kind: str) -> OutputExistsError:
    return OutputExistsError(
        f"{path}: exists already and is no {kind} of a run; it is where that goes: move it, or "
        "choose another folder"
    )


def _opened(path: Path) -> TextIO:
    # Names of files need not be text: what is not is written as an escape, one of JSON.
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")


def _json(summary: Summary) -> Iterator[str]:
    """Yield a JSON document, a line per scan: with indents, a million would take a minute."""
    head = json.dumps(summary.totals(), indent=1, ensure_ascii=False)
    yield head.removesuffix("\n}") + ',\n "outcomes": ['
    for number, outcome in enumerate(summary.outcomes):
        yield ("," if number else "") + "\n  " + json.dumps(vars(outcome), ensure_ascii=False)
    yield "\n ]\n}\n"


def _write_table(summary: Summary, file: TextIO) -> None:
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in summary.outcomes:
        outcome: str = one.status
        reason = one.reason or ""
        if outcome == "pending" and summary.stopped is not None:
            outcome, reason = "not started", f"the run was stopped by {summary.stopped}"
        row = (";".join(one.input), outcome, reason, one.seconds, one.pixels, one.peak_bytes)
        writer.writerow(_safe(cell) for cell in (*row, one.output))


def _safe(cell: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
