"""Where the parts of a scan lie: which stretches of finished rows belong to which part.

Parts are cut along the axis that the scan is swept along, as long as they are long enough. A scene
that is too short for that is cut along its columns too, where the stretches of tiles end, as column
strips are (:mod:`segfocal.engine.strips`): a seam between columns costs a column of tiles. It
follows from the scan, the tiles and the number of parts alone, so that no process asks another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from segfocal.engine.job import Job
from segfocal.engine.strips import AxisCut, cut_evenly
from segfocal.tiling import AxisGrid
from segfocal.types import Window

__all__ = ["REGION_PIXELS", "PartLayout", "default_count", "lay_out"]

REGION_PIXELS = 8192
"""Least length of a part along an axis that is cut: tiles that are run twice stay below 10 %."""


@dataclass(frozen=True)
class PartLayout:
    """Equal lengths along the swept axis, each cut into the same columns.

    Attributes:
        covered: What is segmented.
        axis: The axis that the scan is swept along.
        across: The axis that columns lie along.
        columns: Where they lie along it.
        rows: How many lengths there are.
    """

    covered: Window
    axis: int
    across: int
    columns: tuple[slice, ...]
    rows: int

    @property
    def count(self) -> int:
        """How many parts there are."""
        return self.rows * len(self.columns)

    def owners(self, window: Window) -> list[int]:
        """Return the numbers, from 1 on, of the parts that a window belongs to.

        A stretch of rows that was computed for a part belongs to one. Along the swept axis it
        is that in which the window begins.
        """
        first, last = self.covered[self.axis].start, self.covered[self.axis].stop
        row = (window[self.axis].start - first) * self.rows // (last - first)
        side = window[self.across]
        return [
            row * len(self.columns) + number
            for number, column in enumerate(self.columns, 1)
            if column.start < side.stop and side.start < column.stop
        ]

    def area(self, number: int) -> Window:
        """Return where a part lies. It has no rows where there are fewer rows than parts."""
        row, column = divmod(number - 1, len(self.columns))
        first, last = self.covered[self.axis].start, self.covered[self.axis].stop
        found = list(self.covered)
        found[self.across] = self.columns[column]
        found[self.axis] = slice(
            first + -(row * (first - last) // self.rows),
            first + -((row + 1) * (first - last) // self.rows),
        )
        return tuple(found)

    def column(self, number: int) -> Window:
        """Return the column that a part lies in, uncut along the swept axis."""
        found = list(self.covered)
        found[self.across] = self.columns[(number - 1) % len(self.columns)]
        return tuple(found)


def lay_out(job: Job, count: int) -> PartLayout:
    """Return where so many parts of a job lie.

    They are cut along the swept axis alone while each is of at least :data:`REGION_PIXELS`; else
    as keeps the largest part small, its tiles at seams included. So are all parts of volumes and
    of resampled scans.
    """
    axis, covered = job.scan.slow_axis, job.covered
    across = 1 if axis == 0 else 0
    whole = PartLayout(covered, axis, across, (covered[across],), count)
    long = covered[axis].stop - covered[axis].start >= count * REGION_PIXELS
    if count == 1 or long or not _has_columns(job):
        return whole
    choices = []
    for number in range(1, count + 1):
        columns = cut_evenly(job.grid.axes[across], covered[across], number)
        if columns is None:
            break
        if count % number == 0:
            rows = _most(job.grid.axes[axis], covered[axis], count // number)
            tiles = _largest(rows) * _largest(columns)
            choices.append((tiles, rows.tiles() * columns.tiles(), number, columns))
    *_, best = min(choices, key=lambda choice: choice[:3])
    pieces = tuple(best.pieces())
    return PartLayout(covered, axis, across, pieces, count // len(pieces))


def default_count(job: Job) -> int:
    """Return how many parts a job is computed in: one per :data:`REGION_PIXELS` of its length.

    Of a scene that is its longer side.
    """
    axes = range(len(job.covered)) if _has_columns(job) else (job.scan.slow_axis,)
    longest = max(job.covered[axis].stop - job.covered[axis].start for axis in axes)
    return max(1, longest // REGION_PIXELS)


def _has_columns(job: Job) -> bool:
    # The tiles of a resampled scan end in pixels of another grid than its parts.
    return len(job.covered) == 2 and job.resampled is None


def _most(side: AxisGrid, part: slice, count: int) -> AxisCut:
    """Return a cut into so many pieces, or one per stretch where there are fewer of these."""
    whole = cut_evenly(side, part, 1)
    assert whole is not None
    return replace(whole, count=min(count, whole.stretches))


def _largest(cut: AxisCut) -> int:
    """Return the most tiles of a piece, with those that reach into it over its seam."""
    reach = (cut.side.kept - 1) // cut.side.stride if cut.count > 1 else 0
    return math.ceil(cut.stretches / cut.count) + reach
