"""A two-dimensional model on a volume: slice by slice, as a predictor of three axes.

A tile is a stack of neighbouring slices. A model that wants neighbouring slices as channels
(2.5-D, ``slices`` of its card) gets them from the tile's halo along the slice axis; beyond the
first and last slice they are mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.identity import model_identity
from segfocal.engine.predictors import Predictor
from segfocal.errors import GeometryError, ModelError
from segfocal.io.base import Scan, grid_of
from segfocal.tiling import TileGrid

__all__ = ["SliceAxis", "SlicePredictor", "slice_axis_of"]

SliceAxis = Literal["sagittal", "coronal", "axial"]

_LETTERS = {"sagittal": "RL", "coronal": "AP", "axial": "SI"}
_MOST_SLICES = 16
_TILE_PIXELS = 2**20
_SAME_SPACING = 1.01


def slice_axis_of(scan: Scan, wanted: SliceAxis | int | None = None) -> int:
    """Return the axis of a volume along which slices follow one another.

    Args:
        scan: The volume.
        wanted: A plane of the body, or an axis of an array. Left out: the axis along which
            slices are furthest apart, the one they were most likely taken along; where all are
            about as far, the one in which the file is laid out slowest.

    Raises:
        GeometryError: There is no such axis.
    """
    if wanted is None:
        spacing, slow = scan.resolution, scan.slow_axis
        if spacing is None or max(spacing) <= _SAME_SPACING * spacing[slow]:
            return slow
        return int(np.argmax(spacing))
    orientation = getattr(grid_of(scan), "orientation", "")
    for axis, letter in enumerate(orientation):
        if letter in _LETTERS.get(str(wanted), ""):
            return axis
    if isinstance(wanted, int) and 0 <= wanted < 3:
        return wanted
    expected = ", ".join(_LETTERS) if orientation else "0, 1 or 2, as an array has no orientation"
    raise GeometryError(f"{scan.name}: slice_axis {wanted!r}; expected {expected}")


class SlicePredictor:
    """A model of two axes as one of three; see :class:`~segfocal.engine.predictors.Predictor`.

    Args:
        predictor: The model.
        axis: Axis of the volume along which slices follow one another.

    Attributes:
        slice_axis: The same.

    Raises:
        ModelError: The model's context is frozen, which is measured over one plane.
    """

    ndim = 3

    def __init__(self, predictor: Predictor, axis: int) -> None:
        if getattr(predictor, "global_context", None) == "frozen":
            raise ModelError(
                "a frozen context of a model of two axes cannot be measured over the slices of a "
                "volume; choose another global context"
            )
        self._predictor, self.slice_axis = predictor, axis
        self.card: Card | None = predictor.card
        self.output_stride = predictor.output_stride
        self.any_thread = getattr(predictor, "any_thread", False)
        self.global_context: str | None = getattr(predictor, "global_context", None)
        self.tta: str | None = getattr(predictor, "tta", None)
        self.fill: NDArray[np.float32] | None = getattr(predictor, "fill", None)
        self._slices = 1 if self.card is None else self.card.slices

    @property
    def hash(self) -> str | None:
        """The model's own; the axis is a parameter of the run."""
        return self._predictor.hash

    @property
    def engine(self) -> str:
        """The model's own."""
        return self._predictor.engine

    @property
    def batch_matters(self) -> bool:
        """The model's own."""
        return model_identity(self._predictor).batch_matters

    def mapped(self, change: Callable[[Predictor], Predictor]) -> SlicePredictor:
        """Return the same with another model of two axes in it."""
        return SlicePredictor(change(self._predictor), self.slice_axis)

    def grid(
        self,
        shape: Sequence[int],
        tile: Sequence[int],
        halo: Sequence[int],
        overlap: Sequence[int],
    ) -> TileGrid:
        """Return the grid that covers a volume with stacks of tiles of two axes."""
        length, around = shape[self.slice_axis], self._slices // 2
        most = max(1, min(_MOST_SLICES, _TILE_PIXELS // (tile[0] * tile[1])))
        count = -(-length // most)
        depth = -(-length // count)  # the last stack is about as deep as the others

        def with_axis(sides: Sequence[int], along: int) -> list[int]:
            return [*sides[: self.slice_axis], along, *sides[self.slice_axis :]]

        return TileGrid.cover(
            shape,
            with_axis(tile, depth + 2 * around),
            halo=with_axis(halo, around),
            overlap=with_axis(overlap, 0),
            output_stride=with_axis([self.output_stride] * 2, 1),
        )

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Run the slices of stacks ``(batch, *tile, channels)`` one after the other."""
        shape = np.moveaxis(valid, 1 + self.slice_axis, 1).shape
        found: NDArray[np.float32] | None = None
        for middle, (image, usable) in enumerate(self.slices(values, valid), self._slices // 2):
            one = self._predictor(image, usable)
            if found is None:
                found = np.zeros((*shape, one.shape[-1]), np.float32)
            found[:, middle] = one
        assert found is not None
        return np.moveaxis(found, 1, 1 + self.slice_axis)

    def slices(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Yield what the model of two axes gets of stacks, slice by slice.

        Args:
            values: Stacks ``(batch, *tile, channels)``.
            valid: ``(batch, *tile)``.

        Yields:
            Values ``(batch, rows, cols, channels)``, with the channels of neighbouring slices
            where the model wants them, and valid ``(batch, rows, cols)``. Slices of the halo
            have no turn of their own.
        """
        stacks, usable = (np.moveaxis(array, 1 + self.slice_axis, 1) for array in (values, valid))
        around = self._slices // 2
        for middle in range(around, stacks.shape[1] - around):
            planes = [stacks[:, k] for k in range(middle - around, middle + around + 1)]
            image = planes[0] if len(planes) == 1 else np.concatenate(planes, -1)
            yield np.ascontiguousarray(image), np.ascontiguousarray(usable[:, middle])
