"""Windows that do not overlap, found by where they lie without a look at each of them.

A window is filed by its size, each side rounded up to a power of two, and by the cell of a grid of
that size in which it starts. It reaches into the next cell at most, so that those that touch a
window start in the cells of the window or in those before.
"""

from __future__ import annotations

import itertools
import math
from typing import Generic, TypeVar

from segfocal.types import Window, overlap_of

__all__ = ["WindowIndex"]

T = TypeVar("T")

_Numbers = tuple[int, ...]


class WindowIndex(Generic[T]):
    """Values by the windows they belong to.

    One thread may add or remove while another looks up.
    """

    def __init__(self) -> None:
        self._sizes: dict[_Numbers, dict[_Numbers, list[tuple[Window, T]]]] = {}

    def add(self, window: Window, value: T) -> None:
        """File a value under a window that overlaps none of those that are there."""
        bits, cell = _place(window)
        self._sizes.setdefault(bits, {}).setdefault(cell, []).append((window, value))

    def remove(self, window: Window, value: T) -> None:
        """Take a value out that was filed under a window; nothing where it is not there."""
        bits, cell = _place(window)
        cells = self._sizes.get(bits, {})
        cells[cell] = [pair for pair in cells.get(cell, []) if pair[1] is not value]

    def overlapping(self, window: Window) -> list[tuple[Window, T]]:
        """Return the windows that have pixels in common with one, with their values."""
        found = []
        for bits, cells in tuple(self._sizes.items()):
            ranges = [
                range((side.start >> bit) - 1, ((side.stop - 1) >> bit) + 1)
                for side, bit in zip(window, bits, strict=True)
            ]
            few = math.prod(len(one) for one in ranges) < len(cells)
            for cell in itertools.product(*ranges) if few else tuple(cells):
                found += [pair for pair in cells.get(cell, ()) if _overlap(pair[0], window)]
        return found

    def covers(self, window: Window) -> bool:
        """Return whether the windows hold every pixel of one."""
        held = sum(
            math.prod(
                side.stop - side.start
                for side in (overlap_of(a, b) for a, b in zip(other, window, strict=True))
            )
            for other, _ in self.overlapping(window)
        )
        return held == math.prod(side.stop - side.start for side in window)


def _place(window: Window) -> tuple[_Numbers, _Numbers]:
    """Return, per axis, the exponent of the size of cells, and the number of the cell."""
    bits = tuple((side.stop - side.start - 1).bit_length() for side in window)
    return bits, tuple(side.start >> bit for side, bit in zip(window, bits, strict=True))


def _overlap(a: Window, b: Window) -> bool:
    return all(x.start < y.stop and y.start < x.stop for x, y in zip(a, b, strict=True))
