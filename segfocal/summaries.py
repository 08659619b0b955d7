"""The summary of a run over many scans: what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["KIND", "Outcome", "Status", "Summary"]

KIND = "segfocal summary"
"""What a summary calls itself: no other file of its name is replaced."""

Status = Literal["done", "unchanged", "failed", "part", "interrupted", "pending"]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        input: Its files.
        output: The label file.
        status: ``"done"``; ``"unchanged"``: finished by an earlier run, by the same model with
            the same parameters, and its checksum is right; ``"failed"``; ``"part"``: what
            is this shard's of it is there; ``"interrupted"``: the run was stopped while it was at
            work on it; ``"pending"``: not begun, or not
            finished, yet.
        reason: Why it failed or was interrupted, one line.
        seconds: Wall time; of a scan in parts the sum of theirs.
        pixels: Pixels of the scan, 0 when it was not finished.
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
            :func:`segfocal.run_descriptions.describe_run`; and for a shard of which list, see
            :func:`segfocal.shards.describe_shard`.
        stopped: What stopped the run before its end: a signal or an exception; None: nothing.
    """

    outcomes: tuple[Outcome, ...]
    path: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None

    def count(self, status: Status) -> int:
        """Return how many scans have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Scans that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def totals(self) -> dict[str, Any]:
        """Return what is said of all scans together, as a JSON value."""
        return {
            "kind": KIND,
            "run": dict(self.run),
            "scans": len(self.outcomes),
            **{status: self.count(status) for status in get_args(Status)},
            "stopped": self.stopped,
            "seconds": round(sum(outcome.seconds for outcome in self.outcomes), 3),
            "pixels": sum(outcome.pixels for outcome in self.outcomes),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the summary as a JSON value."""
        return {**self.totals(), "outcomes": [{**vars(outcome)} for outcome in self.outcomes]}
