"""Windows divided into blocks that lie at multiples of their sides, whatever the window is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from segfocal.types import Window

__all__ = ["aligned_blocks"]


def aligned_blocks(
    window: Window, sides: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Window, Window, Window]]:
    """Yield the blocks that a window meets; none for one without pixels.

    Args:
        window: Slice along each axis.
        sides: Side of a block along each axis, in pixels.

    Yields:
        The number of a block along each axis, the block, which may reach beyond the scan, what of
        the block is in the window, and where in the window that is.
    """
    if any(side.stop <= side.start for side in window):
        return
    spans = [
        range(side.start // length, -(-side.stop // length))
        for side, length in zip(window, sides, strict=True)
    ]
    for place in itertools.product(*spans):
        block = tuple(
            slice(i * length, (i + 1) * length) for i, length in zip(place, sides, strict=True)
        )
        common = [
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(window, block, strict=True)
        ]
        inside, there = (
            tuple(
                slice(side.start - zero.start, side.stop - zero.start)
                for side, zero in zip(common, origin, strict=True)
            )
            for origin in (block, window)
        )
        yield place, block, inside, there
