"""The record of a run over many scans: its summary on disk while it goes on.

It is there from the start, so that a run that is interrupted leaves no older one behind.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segfocal.agenda import ScanResult
from segfocal.errors import OutputError, OutputInUseError, SegfocalError
from segfocal.prediction import Prediction
from segfocal.scan_parts import PartResult
from segfocal.summaries import Outcome, Status, Summary
from segfocal.summary_files import write_summary

__all__ = ["Record"]

SECONDS_BETWEEN_SUMMARIES = 10
TIMES_AS_LONG = 50
"""The pause after a summary in terms of the time it took: of a million scans it is long."""


class Record:
    """The summary of a run that goes on, on disk.

    Args:
        path: The file.
        run: See :func:`segfocal.run_descriptions.describe_run`.
        outcomes: What is known of each scan.
        tell: Called with lines for the user.
        at_work: Numbers of the scans that have been begun and are not decided; it changes while
            the run goes on.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        outcomes: Sequence[Outcome],
        tell: Callable[[str], None],
        at_work: Collection[int] = (),
    ) -> None:
        self._path, self._run, self._tell, self._at_work = path, run, tell, at_work
        self._outcomes, self._pause, self._told = list(outcomes), _Pause(), False
        try:
            write_summary(self.summary)
        except OutputInUseError as error:
            self._bear(error)

    @property
    def summary(self) -> Summary:
        """What is known by now."""
        return Summary(tuple(self._outcomes), self._path, self._run)

    def note(self, result: ScanResult) -> None:
        """Note what became of a scan; now and then write it, if that is possible now."""
        outcome = _outcome(self._outcomes[result.scan], result)
        if outcome.status == "failed":
            self._tell(f"failed: {outcome.reason}")
        self._outcomes[result.scan] = outcome
        if self._pause.is_over():
            with self._pause:
                try:
                    write_summary(self.summary)
                except OutputError as error:
                    self._bear(error)

    def interrupted(self, by: str) -> None:
        """Write what is known when the run ends before its time, if that is possible.

        Args:
            by: What ended it: the name of a signal or an exception.
        """
        reason = f"stopped by {by}; run the same again to continue"
        for scan in self._at_work:
            if self._outcomes[scan].status == "pending":
                one = replace(self._outcomes[scan], status="interrupted", reason=reason)
                self._outcomes[scan] = one
        with contextlib.suppress(OutputError):
            write_summary(replace(self.summary, stopped=by))

    def _bear(self, error: OutputError) -> None:
        if not self._told:
            self._tell(f"goes on without a summary, which is tried again later: {error}")
        self._told = True


def _outcome(pending: Outcome, result: ScanResult) -> Outcome:
    reason, pixels, value = None, 0, result.value
    status: Status = "failed"
    if isinstance(value, Prediction):
        status = "unchanged" if value.unchanged else "done"
        pixels = math.prod(value.shape)
    elif isinstance(value, PartResult):
        status = "part"
        reason = f"part {value.part} is there; not finished yet: rerun, or run without --shard"
    else:
        text = " ".join(str(value).split())
        known = isinstance(value, SegfocalError)
        reason = text if known else f"{type(value).__name__}: {text}"
    return replace(
        pending,
        status=status,
        reason=reason,
        seconds=round(result.seconds, 3),
        pixels=pixels,
        peak_bytes=result.peak_bytes,
    )


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
