"""The summary of a run over many scans, and what it says to a later run.

It is there from the start, so that a run that is interrupted leaves no older one behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segfocal.errors import OutputError, OutputInUseError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.run_descriptions import differing

__all__ = [
    "SUMMARY",
    "Outcome",
    "Record",
    "Summary",
    "earlier_outcomes",
    "write_summary",
]

SUMMARY = "summary.json"
"""Name of the summary in the folder of outputs."""

SECONDS_BETWEEN_SUMMARIES = 10
TIMES_AS_LONG = 50
"""The pause after a summary in terms of the time it took: of a million scans it is long."""

Status = Literal["done", "unchanged", "failed", "pending"]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        input: Its files.
        output: The label file.
        status: ``"done"``; ``"unchanged"``: finished by an earlier run, by the same model with
            the same parameters, and its checksum is right; ``"failed"``; ``"pending"``: not
            reached yet.
        reason: Why it failed, one line.
        seconds: Wall time; of a scan in parts the sum of theirs.
        pixels: Pixels of the scan, 0 when it failed.
        peak_bytes: What the process (of several, one of them) held in memory at most meanwhile.
    """

    input: tuple[str, ...]
    output: str
    status: Status = "pending"
    reason: str | None = None
    seconds: float = 0.0
    pixels: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Summary:
    """What became of many scans.

    Attributes:
        outcomes: One per scan, in the order of the inputs.
        path: The JSON file that says the same.
        run: Of which models, with which parameters, see
            :func:`segfocal.run_descriptions.describe_run`.
    """

    outcomes: tuple[Outcome, ...]
    path: Path
    run: Mapping[str, Any] = field(default_factory=dict)

    def count(self, status: Status) -> int:
        """Return how many scans have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Scans that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def as_json(self) -> dict[str, Any]:
        """Return the summary as a JSON value."""
        return {
            "run": dict(self.run),
            "scans": len(self.outcomes),
            **{status: self.count(status) for status in ("done", "unchanged", "failed", "pending")},
            "seconds": round(sum(outcome.seconds for outcome in self.outcomes), 3),
            "pixels": sum(outcome.pixels for outcome in self.outcomes),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }


class Record:
    """The summary of a run that goes on, on disk.

    Args:
        path: The file.
        run: See :func:`segfocal.run_descriptions.describe_run`.
        outcomes: What is known of each scan.
        tell: Called with lines for the user.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        outcomes: Sequence[Outcome],
        tell: Callable[[str], None],
    ) -> None:
        self._path, self._run, self._tell = path, run, tell
        self._outcomes, self._pause, self._told = list(outcomes), _Pause(), False
        try:
            write_summary(self.summary)
        except OutputInUseError as error:
            self._bear(error)

    @property
    def summary(self) -> Summary:
        """What is known by now."""
        return Summary(tuple(self._outcomes), self._path, self._run)

    def note(self, scan: int, outcome: Outcome) -> None:
        """Note what became of a scan; now and then write it, if that is possible now."""
        self._outcomes[scan] = outcome
        if self._pause.is_over():
            with self._pause:
                try:
                    write_summary(self.summary)
                except OutputError as error:
                    self._bear(error)

    def interrupted(self) -> None:
        """Write what is known, if that is possible."""
        with contextlib.suppress(OutputError):
            write_summary(self.summary)

    def _bear(self, error: OutputError) -> None:
        if not self._told:
            self._tell(f"goes on without a summary, which is tried again later: {error}")
        self._told = True


class _Pause:
    """The time between two summaries: long enough that writing them costs little."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SECONDS_BETWEEN_SUMMARIES

    def is_over(self) -> bool:
        return time.monotonic() > self._until

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *error: object) -> None:
        now = time.monotonic()
        self._until = now + max(SECONDS_BETWEEN_SUMMARIES, TIMES_AS_LONG * (now - self._begun))


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
    """Write a summary to its file.

    Raises:
        OutputError: It cannot be written; an older one stands.
    """
    with PendingOutput(summary.path, overwrite=True) as pending:
        with writing(summary.path):
            text = json.dumps(summary.as_json(), indent=1, ensure_ascii=False)
            pending.main.write_text(text + "\n", encoding="utf-8")
        pending.commit()
