"""What a sweep has to do: runs of consecutive tile rows, each within one column strip.

A *stretch* is what one row of tiles finishes along the swept axis, as far as the strip goes. A
run recomputes the rows of tiles before its first stretch that reach into it, so that its sums are
those of a sweep over the whole scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from segfocal.tiling import TileGrid, TileIndex
from segfocal.types import Window, overlap_of

__all__ = ["Run", "plan_runs"]


@dataclass(frozen=True)
class Run:
    """Consecutive stretches of one strip.

    Attributes:
        strip: Window of the strip.
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
        strips: Windows that partition what is swept; along the swept axis, each is all of it.
        wanted: Whether the window of a stretch is to be computed; all are when left out.
    """
    runs = []
    rows = grid.axes[axis]
    for strip in strips:
        among = list(grid.touching(strip))
        if wanted is None:
            first, last = (
                min(pixel // rows.stride, rows.count - 1)
                for pixel in (strip[axis].start, strip[axis].stop - 1)
            )
            begin = overlap_of(rows.final_slice(first), strip[axis])
            among[axis] = range(rows.touching(begin).start, last + 1)
            runs.append(Run(tuple(strip), first, tuple(among)))
            continue
        open_since: int | None = None
        for k in range(rows.count + 1):
            stretch = list(strip)
            if k < rows.count:
                stretch[axis] = overlap_of(rows.final_slice(k), strip[axis])
            empty = k == rows.count or stretch[axis].start >= stretch[axis].stop
            needed = not empty and (wanted is None or wanted(tuple(stretch)))
            if needed and open_since is None:
                open_since = k
            elif not needed and open_since is not None:
                begin = overlap_of(rows.final_slice(open_since), strip[axis])
                among[axis] = range(rows.touching(begin).start, k)
                runs.append(Run(tuple(strip), open_since, tuple(among)))
                open_since = None
    return runs
