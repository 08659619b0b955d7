"""Interpolation between two grids of pixels over the same extent.

Pixels are cells, and both grids begin and end at the same borders. One axis first: pixel ``i`` of
``target`` pixels has its centre at ``(i + 1/2) * source / target - 1/2`` in pixels of ``source``;
the scale is the ratio of the two numbers of pixels, so that the extent is kept exactly, and beyond
the border the outermost pixel goes on. ``skimage.transform.resize(mode="edge")`` does the same.

Positions are computed in whole numbers and values in float64, one axis after the other: what is
interpolated at a pixel does not depend on the window it is computed in, to the last bit.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segfocal.types import BoolArray, FloatArray, Window, window_shape

__all__ = ["AxisMap", "Order", "all_valid", "interpolate", "small_windows", "support"]

Order = Literal[0, 1, 3]


@dataclass(frozen=True)
class AxisMap:
    """The pixels of one axis in terms of those of another over the same extent.

    Attributes:
        source: Pixels that values are known at.
        target: Pixels that values are wanted at.
        order: 0: the nearest pixel; 1: linear between two; 3: cubic B-spline over four.
    """

    source: int
    target: int
    order: Order = 1

    @property
    def is_identity(self) -> bool:
        """True when both grids are the same."""
        return self.source == self.target

    def _positions(
        self, targets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the source pixels at or before the targets' centres, and how far beyond they are.

        The second is from 0 up to 1, in source pixels.
        """
        numerator = (2 * targets + 1) * self.source - self.target
        pixel, rest = np.divmod(numerator, 2 * self.target)
        return pixel, rest / (2 * self.target)

    def taps(self, targets: slice) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return which source pixels make up each target pixel, and their weights.

        Returns:
            Two arrays ``(targets, taps)``. Cubic taps are B-spline coefficients, and may lie
            beyond the border: before 0 or behind the last pixel.
        """
        wanted = np.arange(targets.start, targets.stop, dtype=np.int64)
        if self.is_identity:
            return wanted[:, None], np.ones((len(wanted), 1))
        if self.order == 0:
            nearest = (2 * wanted + 1) * self.source // (2 * self.target)
            return nearest[:, None], np.ones((len(wanted), 1))
        pixel, t = self._positions(wanted)
        if self.order == 1:
            # Without a weight, the second is no other than the first: it may not be at hand.
            index = np.stack([pixel, np.where(t > 0, pixel + 1, pixel)], -1)
            return np.clip(index, 0, self.source - 1), np.stack([1 - t, t], -1)
        weights = [
            (1 - t) ** 3,
            4 - 6 * t**2 + 3 * t**3,
            1 + 3 * t + 3 * t**2 - 3 * t**3,
            t**3,
        ]
        return pixel[:, None] + np.arange(-1, 3), np.stack(weights, -1) / 6

    def _first(self, target: int) -> int:
        """Return the first source pixel with a weight, of orders 0 and 1."""
        if self.order == 0:
            return (2 * target + 1) * self.source // (2 * self.target)
        centre = (2 * target + 1) * self.source - self.target
        return min(max(centre // (2 * self.target), 0), self.source - 1)

    def _behind(self, target: int) -> int:
        """Return the source pixel behind the last with a weight, of orders 0 and 1."""
        if self.order == 0:
            return self._first(target) + 1
        centre = (2 * target + 1) * self.source - self.target
        return min(max(-(-centre // (2 * self.target)), 0), self.source - 1) + 1

    def support(self, targets: slice) -> slice:
        """Return the source pixels that have a weight in linear interpolation at the targets."""
        return slice(self._first(targets.start), self._behind(targets.stop - 1))

    def finished(self, stop: int) -> int:
        """Return how many targets, from the first on, need source pixels before ``stop`` only."""
        return bisect_right(range(self.target), stop, key=self._behind)

    def beginning(self, start: int) -> int:
        """Return the first target that needs no source pixel before ``start``."""
        return bisect_left(range(self.target), start, key=self._first)

    def dependents(self, sources: slice) -> slice:
        """Return the targets that need any of the source pixels; it may be empty."""
        return slice(self.finished(sources.start), self.beginning(sources.stop))


def support(maps: Sequence[AxisMap], window: Window) -> Window:
    """Return the window of source pixels that linear interpolation needs for a window."""
    return tuple(axis.support(side) for axis, side in zip(maps, window, strict=True))


def interpolate(
    values: FloatArray,
    maps: Sequence[AxisMap],
    window: Window,
    origin: Sequence[int] | None = None,
) -> FloatArray:
    """Return values at the target pixels of a window.

    Args:
        values: Source pixels ``(*sides, channels)``; B-spline coefficients along cubic axes.
        maps: One per axis.
        window: Which target pixels.
        origin: Source pixel at which ``values`` begin, per axis; 0 when left out.

    Returns:
        ``(*window, channels)``, float64, unless every axis takes one pixel.
    """
    # Axes that lose pixels first: less is left to do. Never by the window, for equal bits.
    order = sorted(range(len(maps)), key=lambda axis: maps[axis].target / maps[axis].source)
    for axis in order:
        index, weights = maps[axis].taps(window[axis])
        if origin is not None:
            index = index - origin[axis]
        values = _weighted(values, axis, index, weights)
    return values


def _weighted(
    values: FloatArray,
    axis: int,
    index: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> FloatArray:
    if index.shape[1] == 1:
        first, count = int(index[0, 0]), len(index)
        if np.array_equal(index[:, 0], np.arange(first, first + count)):
            return values[(*(slice(None),) * axis, slice(first, first + count))]
        return np.take(values, index[:, 0], axis)
    shape = (-1, *(1,) * (values.ndim - axis - 1))
    total = np.take(values, index[:, 0], axis) * weights[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        total += np.take(values, index[:, tap], axis) * weights[:, tap].reshape(shape)
    return total


def all_valid(
    valid: BoolArray, maps: Sequence[AxisMap], window: Window, origin: Sequence[int]
) -> BoolArray:
    """Return where every source pixel that has a weight in linear interpolation is valid.

    Args:
        valid: Source pixels ``(*sides, ...)``.
        maps, window, origin: As for :func:`interpolate`.
    """
    for axis, (one, side, start) in enumerate(zip(maps, window, origin, strict=True)):
        linear = one if one.order < 3 else AxisMap(one.source, one.target)
        index, _ = linear.taps(side)
        # Two at most, and the second is the first where it has no weight.
        first, last = (np.take(valid, index[:, tap] - start, axis) for tap in (0, -1))
        valid = first & last
    return valid


def small_windows(window: Window, limit: float) -> Iterator[Window]:
    """Yield parts of a window of at most ``limit`` pixels each, by halving its longest sides."""
    sides = window_shape(window)
    axis = int(np.argmax(sides))
    if math.prod(sides) <= limit or sides[axis] <= 1:
        yield window
        return
    middle = window[axis].start + sides[axis] // 2
    for part in (slice(window[axis].start, middle), slice(middle, window[axis].stop)):
        yield from small_windows((*window[:axis], part, *window[axis + 1 :]), limit)
