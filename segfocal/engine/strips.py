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

__all__ = ["plan_strips", "strip_bytes"]

NEVER_CUT_BELOW = 128 * 2**20
"""Bytes of rows below which narrower strips would gain nothing."""

DEFAULT_LIMIT = 2**30
"""Bytes that rows may take without a limit of the user's."""

SEAM_SHARE = 0.03
"""Share of tiles that may be run twice, unless memory asks for more."""


@dataclass(frozen=True)
class _Cut:
    """One way to cut: pieces per axis, what it costs."""

    pieces: tuple[list[slice], ...]
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
        GeometryError: One column of tiles takes more than the limit.
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
    return list(itertools.product(*best.pieces))


def _cuts(
    grid: TileGrid, axis: int, region: Window, num_classes: int, kept_bytes: int
) -> Iterator[_Cut]:
    """Yield every even cut, the whole region first."""
    choices = [
        [[part]] if i == axis else list(_even_pieces(side, part))
        for i, (side, part) in enumerate(zip(grid.axes, region, strict=True))
    ]
    for pieces in itertools.product(*choices):
        tiles = math.prod(
            sum(len(side.touching(piece)) for piece in along)
            for side, along in zip(grid.axes, pieces, strict=True)
        )
        largest = tuple(max(along, key=lambda piece: piece.stop - piece.start) for along in pieces)
        yield _Cut(pieces, tiles, strip_bytes(grid, axis, largest, num_classes, kept_bytes))


def _even_pieces(side: AxisGrid, part: slice) -> Iterator[list[slice]]:
    """Yield a part of an axis in one piece, in two, and so on to one per tile's stretch."""
    begin = min(part.start // side.stride, side.count - 1)
    stretches = min((part.stop - 1) // side.stride, side.count - 1) + 1 - begin
    before = 0
    for count in range(1, stretches + 1):
        longest = math.ceil(stretches / count)
        if longest == before:
            continue  # more pieces, no narrower ones
        before = longest
        ends = [begin + round(i * stretches / count) for i in range(count + 1)]
        yield [
            overlap_of(slice(side.final_slice(first).start, side.final_slice(last - 1).stop), part)
            for first, last in itertools.pairwise(ends)
        ]
