"""The order of work over scans: which unit is next, and when a scan is decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from segfocal.prediction import Prediction
from segfocal.scan_parts import PartResult
from segfocal.scan_units import ScanTask, Unit, UnitResult

__all__ = ["Agenda", "ScanResult"]


@dataclass
class ScanResult:
    """What came of a scan: of all its units.

    Attributes:
        scan: Which scan.
        value: The finished prediction, the share that was computed of it, or what went wrong;
            None until that is decided.
        seconds: Time that processes were at work on it, in all.
        peak_bytes: What one of them held in memory at most.
    """

    scan: int
    value: Prediction | PartResult | Exception | None = None
    seconds: float = 0.0
    peak_bytes: int = 0


class Agenda:
    """Which units are to be done next, given what came of those before.

    Args:
        tasks: The scans, by number.
        at_work: A set to keep the scans in that are at work, which others look at.

    Attributes:
        tasks: The same.
        units_done: Units that have been done.
        units_known: Units that have been done or will be, as far as is known: the parts of a
            scan are from when it was begun.
        at_work: Scans that have been begun and are not decided.
    """

    def __init__(self, tasks: Mapping[int, ScanTask], at_work: set[int] | None = None) -> None:
        self.tasks = tasks
        self.at_work: set[int] = set() if at_work is None else at_work
        self.units_done, self.units_known = 0, len(tasks)
        self._scans = deque(tasks)
        self._urgent: deque[Unit] = deque()
        self._parts_left: dict[int, int] = {}
        self._results: dict[int, ScanResult] = {}
        self._decided: set[int] = set()

    @property
    def waiting(self) -> bool:
        """Whether there may be a next unit by now."""
        return bool(self._urgent or self._scans)

    def next(self) -> Unit | None:
        """Take the next unit; None when there is none, for now or for good."""
        while self._urgent:
            unit = self._urgent.popleft()
            if unit.scan not in self._decided:
                return unit
        if not self._scans:
            return None
        self.at_work.add(self._scans[0])
        return Unit(self._scans.popleft())

    def again(self, unit: Unit) -> None:
        """Put a unit back whose process was lost."""
        self._urgent.appendleft(unit)

    def take(self, unit: Unit, result: UnitResult) -> ScanResult | None:
        """Note what came of a unit; return what came of its scan if that is decided by it."""
        if unit.scan in self._decided:  # by another part, which has failed
            return None
        scan = self._results.setdefault(unit.scan, ScanResult(unit.scan))
        scan.seconds += result.seconds
        scan.peak_bytes = max(scan.peak_bytes, result.peak_bytes)
        self.units_done += 1
        if isinstance(result.value, Prediction | PartResult | Exception):
            scan.value = result.value
            self._decided.add(unit.scan)
            self.at_work.discard(unit.scan)
            self.units_known -= self._parts_left.pop(unit.scan, 0)
            return self._results.pop(unit.scan)
        if unit.step == "begin":
            count = int(result.value or 1)
            self._parts_left[unit.scan] = count
            self.units_known += count + 1
            # Ahead of other scans, so that few are in the works at a time.
            self._urgent.extend(
                Unit(unit.scan, "part", f"{i}/{count}") for i in range(1, count + 1)
            )
            return None
        self._parts_left[unit.scan] -= 1
        if not self._parts_left[unit.scan]:
            self._urgent.appendleft(Unit(unit.scan, "finish"))
        return None
