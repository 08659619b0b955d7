"""What a sweep has to do: runs of consecutive tile rows, each within one column strip.

A *stretch* is what one row of tiles finishes along the swept axis. A run recomputes the rows
of tiles before its first stretch that reach into it, so that its sums are those of a sweep
from the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from segfocal.tiling import TileGrid, TileIndex
from segfocal.types import Window

__all__ = ["Run", "plan_runs"]


@dataclass(frozen=True)
class Run:
    """Consecutive stretches of one strip.

    Attributes:
        strip: Window of the strip, full along the swept axis.
        first: First stretch that is wanted.
        among: Per axis the tiles to run.
    """

    strip: Window
    first: int
    among: tuple[range, ...]

    def __len__(self) -> int:
        return math.prod(len(tiles) for tiles in self.among)

    def tiles(self, grid: TileGrid, axis: int) -> Iterator[TileIndex]:
        """Yield its tiles in sweep order."""
        return grid.tiles(axis, self.among)


def plan_runs(
    grid: TileGrid,
    axis: int,
    strips: Sequence[Window],
    wanted: Callable[[Window], bool] | None = None,
) -> list[Run]:
    """Return the runs that finish every wanted stretch of every strip.

    Args:
        grid: The tile grid.
        axis: The swept axis.
        strips: Windows that partition the scan, full along the swept axis.
        wanted: Whether the window of a stretch is to be computed; all are when left out.
    """
    runs = []
    rows = grid.axes[axis]
    for strip in strips:
        among = list(grid.touching(strip))
        open_since: int | None = None
        for k in range(rows.count + 1):
            stretch = list(strip)
            if k < rows.count:
                stretch[axis] = rows.final_slice(k)
            needed = k < rows.count and (wanted is None or wanted(tuple(stretch)))
            if needed and open_since is None:
                open_since = k
            elif not needed and open_since is not None:
                top = rows.touching(rows.final_slice(open_since)).start
                among[axis] = range(top, k)
                runs.append(Run(tuple(strip), open_since, tuple(among)))
                open_since = None
    return runs
