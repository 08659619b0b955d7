"""Blending: how overlapping tiles add up to one probability per pixel and class.

Weights are separable, strictly positive and normalised per axis beforehand: along each axis
the weights of all tiles that touch a pixel sum to one, and because the grid is a product,
so do the products. Nothing has to be divided afterwards and no sum of weights is kept.

A :class:`RowBuffer` holds only the rows that later tiles can still change. Its size follows
from tile height, scan width and number of classes, never from the length of the scan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from segfocal.tiling import AxisGrid, TileGrid, TileIndex
from segfocal.types import Window, full_window, window_shape

__all__ = ["Blend", "RowBuffer", "axis_weights", "window_function"]

T = TypeVar("T", bound=np.generic)

Blend = Literal["gaussian", "hann", "linear", "constant"]

GAUSSIAN_SIGMA = 0.125
"""Standard deviation relative to the length, as in MONAI and nnU-Net."""


def window_function(blend: Blend, length: int, overlap: int) -> NDArray[np.float64]:
    """Return one tile's weights along an axis before normalisation, all > 0.

    Args:
        blend: ``"gaussian"`` and ``"hann"`` span the whole kept part; ``"linear"`` is 1 inside
            and a ramp within the overlap; ``"constant"`` is 1 everywhere (a plain average).
        length: Kept pixels of a tile.
        overlap: Pixels shared with each neighbour.
    """
    centred = np.arange(length) - (length - 1) / 2
    if blend == "gaussian":
        return np.exp(-0.5 * (centred / (GAUSSIAN_SIGMA * length)) ** 2)
    if blend == "hann":
        # Two more points than needed, ends dropped: a Hann window proper is 0 at its ends.
        return np.hanning(length + 2)[1:-1]
    if blend == "linear":
        from_edge = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
        return np.minimum(from_edge / (overlap + 1), 1.0)
    if blend == "constant":
        return np.ones(length)
    raise ValueError(f"blend {blend!r} is unknown; expected one of {', '.join(get_args(Blend))}")


def axis_weights(axis: AxisGrid, blend: Blend) -> list[NDArray[np.float32]]:
    """Return the weights of each tile along one axis, summing to 1 at every pixel.

    Entry ``k`` has the length of ``axis.kept_slice(k)``. Tiles with all their neighbours share one
    array, so that time and memory do not follow from the length of the axis.
    """
    reach = (axis.kept - 1) // axis.stride  # neighbours that a tile overlaps at each side
    left_out = axis.count - (2 * reach + 3)
    if left_out > 0:
        short = replace(axis, size=axis.size - left_out * axis.stride)
        ends = axis_weights(short, blend)
        return [*ends[:reach], *[ends[reach]] * left_out, *ends[reach:]]
    raw = window_function(blend, axis.kept, axis.overlap)
    total = np.zeros(axis.size)
    for k in range(axis.count):
        kept = axis.kept_slice(k)
        total[kept] += raw[: kept.stop - kept.start]
    weights = []
    for k in range(axis.count):
        kept = axis.kept_slice(k)
        weights.append((raw[: kept.stop - kept.start] / total[kept]).astype(np.float32))
    return weights


class RowBuffer:
    """Accumulator of the rows (or planes) that are still being blended.

    Rows run along ``sweep_axis``; arrays given and returned keep the scan's axis order. Add
    the tiles of one row in any order, call :meth:`finish_row`, add those of the next row, and
    so on. A pixel's sum always runs over its tiles in the order in which they are added, so
    that row-major order gives the same bits whatever the window.

    Args:
        grid: The tile grid.
        num_classes: Length of the last axis.
        blend: Weights, see :func:`window_function`.
        sweep_axis: Axis along which rows are finished.
        window: Part of the scan that is wanted; its side along ``sweep_axis`` has no effect.
            All of it when left out.
        first_row: Row of tiles to begin with. What it finishes lacks the rows before it.
    """

    def __init__(
        self,
        grid: TileGrid,
        num_classes: int,
        blend: Blend = "gaussian",
        sweep_axis: int = 0,
        *,
        window: Window | None = None,
        first_row: int = 0,
    ) -> None:
        self._grid = grid
        self._sweep_axis = sweep_axis
        self._weights = [axis_weights(axis, blend) for axis in grid.axes]
        self._row = first_row
        self._window = full_window(grid.shape) if window is None else window
        sides = list(window_shape(self._window))
        rows = grid.axes[sweep_axis]
        sides[sweep_axis] = min(rows.kept, rows.size)
        self._sum = np.zeros((*sides, num_classes), np.float32)
        self._valid = np.zeros(sides, np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes that the accumulators take."""
        return self._sum.nbytes + self._valid.nbytes

    @property
    def row(self) -> int:
        """Row of tiles that is being filled."""
        return self._row

    def add(
        self, index: TileIndex, probabilities: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """Add one tile.

        Args:
            index: The tile's index; its row must be the one being filled.
            probabilities: Array ``(*tile, num_classes)``, halo included.
            valid: Boolean array ``(*tile,)``.
        """
        if index[self._sweep_axis] != self._row:
            raise ValueError(f"tile {index} is not of row {self._row}, which is being filled")
        target, inner = [], []
        product: NDArray[np.float32] = np.ones((), np.float32)
        for number, (axis, k) in enumerate(zip(self._grid.axes, index, strict=True)):
            kept = axis.kept_slice(k)
            if number == self._sweep_axis:
                first, wanted = kept.start, kept
            else:
                side = self._window[number]
                first = side.start
                wanted = slice(max(kept.start, side.start), min(kept.stop, side.stop))
            target.append(slice(wanted.start - first, wanted.stop - first))
            within = slice(wanted.start - kept.start, wanted.stop - kept.start)
            inner.append(slice(axis.halo + within.start, axis.halo + within.stop))
            product = product[..., None] * self._weights[number][k][within]
        self._sum[tuple(target)] += probabilities[tuple(inner)] * product[..., None]
        self._valid[tuple(target)] |= valid[tuple(inner)]

    def finish_row(self) -> tuple[slice, NDArray[np.float32], NDArray[np.bool_]]:
        """Give out the rows that no later tile can change, and make room for the next.

        Returns:
            The rows along ``sweep_axis``; their probabilities ``(..., num_classes)``; where
            they are valid. The arrays belong to the caller.
        """
        axis = self._sweep_axis
        rows = self._grid.axes[axis].final_slice(self._row)
        done = rows.stop - rows.start
        self._row += 1
        return rows, _shift(self._sum, axis, done), _shift(self._valid, axis, done)


def _shift(buffer: NDArray[T], axis: int, done: int) -> NDArray[T]:
    """Return a copy of the first rows; move the others to their place, zeros behind them."""
    along = np.moveaxis(buffer, axis, 0)
    finished = np.moveaxis(along[:done].copy(), 0, axis)
    left = len(along) - done
    along[:left] = along[done:]
    along[left:] = 0
    return finished
