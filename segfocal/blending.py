"""Blending: how overlapping tiles add up to one probability per pixel and class.

Weights are separable, strictly positive and normalised per axis beforehand: along each axis
the weights of all tiles that touch a pixel sum to one, and because the grid is a product,
so do the products. Nothing has to be divided afterwards and no sum of weights is kept.

A :class:`RowBuffer` holds only the rows that later tiles can still change. Its size follows
from tile height, scan width and number of classes, never from the length of the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segfocal.tiling import AxisGrid, TileGrid, TileIndex

__all__ = ["Blend", "RowBuffer", "axis_weights", "window_function"]

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

    Entry ``k`` has the length of ``axis.kept_slice(k)``.
    """
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
    the tiles of row 0 in any order, call :meth:`finish_row`, add the tiles of row 1, and so on.

    Args:
        grid: The tile grid.
        num_classes: Length of the last axis.
        blend: Weights, see :func:`window_function`.
        sweep_axis: Axis along which rows are finished.
    """

    def __init__(
        self, grid: TileGrid, num_classes: int, blend: Blend = "gaussian", sweep_axis: int = 0
    ) -> None:
        self._grid = grid
        self._sweep_axis = sweep_axis
        self._weights = [axis_weights(axis, blend) for axis in grid.axes]
        self._row = 0
        sides = list(grid.shape)
        sides[sweep_axis] = min(grid.axes[sweep_axis].kept, sides[sweep_axis])
        self._sum = np.zeros((*sides, num_classes), np.float32)
        self._valid = np.zeros(sides, np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes that the accumulators take."""
        return self._sum.nbytes + self._valid.nbytes

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
        inner = self._grid.inner_window(index)
        target = list(self._grid.kept_window(index))
        axis = self._sweep_axis
        first = self._grid.axes[axis].kept_slice(self._row).start
        target[axis] = slice(target[axis].start - first, target[axis].stop - first)
        weights: Sequence[NDArray[np.float32]] = [
            per_axis[k] for per_axis, k in zip(self._weights, index, strict=True)
        ]
        product = weights[0]
        for more in weights[1:]:
            product = product[..., None] * more
        self._sum[tuple(target)] += probabilities[inner] * product[..., None]
        self._valid[tuple(target)] |= valid[inner]

    def finish_row(self) -> tuple[slice, NDArray[np.float32], NDArray[np.bool_]]:
        """Give out the rows that no later tile can change, and make room for the next.

        Returns:
            The rows along ``sweep_axis``; their probabilities ``(..., num_classes)``; where
            they are valid. The arrays belong to the caller.
        """
        axis = self._sweep_axis
        rows = self._grid.axes[axis].final_slice(self._row)
        done = rows.stop - rows.start
        head = (slice(None),) * axis + (slice(0, done),)
        tail = (slice(None),) * axis + (slice(done, None),)
        finished, finished_valid = self._sum, self._valid
        self._row += 1
        if self._row < self._grid.axes[axis].count:
            self._sum = np.zeros_like(finished)
            self._valid = np.zeros_like(finished_valid)
            left = finished.shape[axis] - done
            keep = (slice(None),) * axis + (slice(0, left),)
            self._sum[keep] = finished[tail]
            self._valid[keep] = finished_valid[tail]
        else:
            self._sum = np.zeros(0, np.float32)
            self._valid = np.zeros(0, np.bool_)
        return rows, finished[head], finished_valid[head]
