"""Column strips: how a scan is cut so that the rows still being blended fit into memory.

A strip ends where a tile's stretch ends, so that a seam costs one column of tiles, which are
run for both sides. Cutting makes no difference to the result, only to memory and time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from segfocal.errors import GeometryError
from segfocal.tiling import AxisGrid, TileGrid
from segfocal.types import Window, full_window, overlap_of

__all__ = ["AxisCut", "cut_evenly", "plan_strips", "strip_bytes"]

NEVER_CUT_BELOW = 128 * 2**20
"""Bytes of rows below which narrower strips would gain nothing."""

DEFAULT_LIMIT = 2**30
"""Bytes that rows may take without a limit of the user's."""

SEAM_SHARE = 0.03
"""Share of tiles that may be run twice, unless memory asks for more."""


MOST_STRIPS = 1_000_000
"""Strips beyond which the plan itself would take long; no scan that exists comes near it."""

MOST_CUTS = 10_000
"""How many ways to cut are compared; of more, evenly spread ones (by ratio of their pieces)."""


@dataclass(frozen=True)
class AxisCut:
    """A part of an axis in so many even pieces: what follows from it, without the pieces.

    Attributes:
        side: The axis of the grid.
        part: What is cut of it.
        begin: First tile's stretch in it.
        stretches: How many there are.
        count: Pieces.
    """

    side: AxisGrid
    part: slice
    begin: int
    stretches: int
    count: int

    def pieces(self) -> Iterator[slice]:
        """Yield the pieces."""
        return (self._piece(i) for i in range(self.count))

    def tiles(self) -> int:
        """Return the tiles of all pieces: of all of it, and at each seam those that are run twice.

        Only at the first few seams may there be fewer tiles before than reach over a seam.
        """
        seams = self.count - 1
        reach = (self.side.kept - 1) // self.side.stride
        few = 0
        for i in range(1, seams + 1):
            before = self._end(i)
            if before >= reach:
                break
            few += reach - before
        return len(self.side.touching(self.part)) + seams * reach - few

    def longest(self) -> int:
        """Return the pixels of the longest piece."""
        ends = {0, self.count - 1}
        lengths = [self._piece(i).stop - self._piece(i).start for i in ends]
        if self.count > 2:
            # Pieces have as many stretches as the longest, or one less.
            most = math.ceil(self.stretches / self.count)
            long = self.stretches - self.count * (most - 1)
            long -= sum(self._end(i + 1) - self._end(i) == most for i in ends)
            lengths.append((most if long > 0 else most - 1) * self.side.stride)
        return max(lengths)

    def _end(self, i: int) -> int:
        """Return the tile's stretch at which piece ``i`` begins."""
        return self.begin + round(i * self.stretches / self.count)

    def _piece(self, i: int) -> slice:
        first, last = self._end(i), self._end(i + 1) - 1
        whole = slice(self.side.final_slice(first).start, self.side.final_slice(last).stop)
        return overlap_of(whole, self.part)


@dataclass(frozen=True)
class _Cut:
    """One way to cut, per axis, and what it costs."""

    along: tuple[AxisCut, ...]
    tiles: int
    nbytes: int


def strip_bytes(
    grid: TileGrid, axis: int, strip: Window, num_classes: int, kept_bytes: int = 0
) -> int:
    """Return the bytes that the rows of a strip take: being blended, finished, and on their way.

    Args:
        grid: The tile grid.
        axis: The swept axis.
        strip: Window of the strip.
        num_classes: Classes of the model.
        kept_bytes: Bytes per pixel of what is written besides labels.
    """
    across = math.prod(side.stop - side.start for i, side in enumerate(strip) if i != axis)
    rows = grid.axes[axis]
    blended = min(rows.kept, rows.size) * (4 * num_classes + 1)
    finished = min(max(rows.stride, rows.overlap), rows.size) * (4 * num_classes + 1)
    # Being written, compressed, and the labels on their way.
    written = (4 + 2 * kept_bytes) * min(rows.stride, rows.size)
    return across * (blended + finished + written)


def plan_strips(
    grid: TileGrid,
    axis: int,
    num_classes: int,
    limit: int | None = None,
    kept_bytes: int = 0,
    region: Window | None = None,
) -> list[Window]:
    """Return windows that partition a scan or a region of it, uncut along the swept axis.

    Without a limit, strips are as narrow as 3 % of tiles run twice allow, within 1 GiB; what
    takes less than 128 MiB is not cut. With one, as few tiles as possible are run twice.

    Args:
        grid: The tile grid.
        axis: The swept axis.
        num_classes: Classes of the model.
        limit: Bytes that the rows of a strip may take.
        kept_bytes: Bytes per pixel of what is written besides labels.
        region: What is swept; the whole scan when left out.

    Raises:
        GeometryError: One column of tiles takes more than the limit, or there would be more
            than a million strips.
    """
    region = full_window(grid.shape) if region is None else region
    cuts = list(_cuts(grid, axis, region, num_classes, kept_bytes))
    if limit is not None:
        fitting = [cut for cut in cuts if cut.nbytes <= limit]
        if not fitting:
            least = min(cut.nbytes for cut in cuts)
            raise GeometryError(
                f"max_memory leaves {max(limit, 0) / 1e6:.0f} MB for the rows being blended; one "
                f"column of tiles takes {least / 1e6:.0f} MB: allow more memory or choose "
                "smaller tiles"
            )
        best = min(fitting, key=lambda cut: (cut.tiles, -cut.nbytes))
    elif cuts[0].nbytes <= NEVER_CUT_BELOW:
        best = cuts[0]
    else:
        wide = [cut for cut in cuts if cut.nbytes > NEVER_CUT_BELOW]
        cheap = [cut for cut in wide if cut.tiles <= cuts[0].tiles * (1 + SEAM_SHARE)]
        best = min(cheap, key=lambda cut: (cut.nbytes, cut.tiles))
        if best.nbytes > DEFAULT_LIMIT:
            small = [cut for cut in cuts if cut.nbytes <= DEFAULT_LIMIT]
            small = small or [min(cuts, key=lambda cut: (cut.nbytes, cut.tiles))]
            best = min(small, key=lambda cut: (cut.tiles, -cut.nbytes))
    strips = math.prod(cut.count for cut in best.along)
    if strips > MOST_STRIPS:
        sides = " x ".join(str(side.stop - side.start) for side in region)
        raise GeometryError(
            f"{sides} pixels would be cut into {strips} strips; expected at most {MOST_STRIPS}: "
            "check the size that the file claims, allow more memory, or segment a part of it"
        )
    return list(itertools.product(*(cut.pieces() for cut in best.along)))


def _cuts(
    grid: TileGrid, axis: int, region: Window, num_classes: int, kept_bytes: int
) -> Iterator[_Cut]:
    """Yield every even cut, the whole region first."""
    most = math.ceil(MOST_CUTS ** (1 / max(1, len(grid.axes) - 1)))
    choices = [
        list(_even_cuts(side, part, 1 if i == axis else most))
        for i, (side, part) in enumerate(zip(grid.axes, region, strict=True))
    ]
    for along in itertools.product(*choices):
        tiles = math.prod(cut.tiles() for cut in along)
        largest = tuple(slice(0, cut.longest()) for cut in along)
        yield _Cut(along, tiles, strip_bytes(grid, axis, largest, num_classes, kept_bytes))


def cut_evenly(side: AxisGrid, part: slice, count: int) -> AxisCut | None:
    """Return a part of an axis in so many pieces; None when it has fewer stretches of tiles."""
    begin = min(part.start // side.stride, side.count - 1)
    stretches = min((part.stop - 1) // side.stride, side.count - 1) + 1 - begin
    return AxisCut(side, part, begin, stretches, count) if count <= stretches else None


def _even_cuts(side: AxisGrid, part: slice, most: int) -> Iterator[AxisCut]:
    """Yield a part of an axis in one piece, in two, and so on to one per tile's stretch.

    Numbers of pieces without which none gets narrower are left out. What is yielded is at most
    about ``most`` cuts, whatever the length: a header may claim any.
    """
    whole = cut_evenly(side, part, 1)
    assert whole is not None
    begin, stretches = whole.begin, whole.stretches
    # There are about twice the root of as many.
    ratio = 1.0 if 4 * stretches <= most**2 else stretches ** (1 / max(1, most - 1))
    count = 1
    while True:
        yield AxisCut(side, part, begin, stretches, count)
        longest = math.ceil(stretches / count)
        if longest == 1 or most == 1:
            return
        fewer = min(longest - 1, max(1, math.floor(longest / ratio)))
        count = math.ceil(stretches / fewer)
