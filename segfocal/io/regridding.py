"""Modalities of one patient on different grids: resampled to the first as they are read.

Order 1 (trilinear) in millimetres by the two affines. A voxel of the grid is valid where all
the voxels it is made from are, and where it lies in the other volume, whose border voxels
reach half a voxel outwards.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io.base import check_window
from segfocal.io.channels import channel_indices
from segfocal.io.grids import lie_on_the_same_grid
from segfocal.io.nifti import VolumeScan
from segfocal.types import Patch, Window, window_shape

__all__ = ["RegriddedScan", "regridded_onto"]

_STEPS, _NOTED_SHARE = 50, 0.01

_ROUNDING = 1e-6
"""Voxels by which positions may be off: affines are stored in float32."""


def regridded_onto(scan: VolumeScan, grid: VolumeScan) -> VolumeScan | RegriddedScan:
    """Return a volume seen on the grid of another; itself when it lies there already.

    Raises:
        ScanError: The two do not touch.
    """
    if lie_on_the_same_grid(grid, scan):
        return scan
    regridded = RegriddedScan(scan, grid)
    message = f"{scan.name}: is resampled to the grid of {grid.name}"
    outside = regridded.share_outside()
    if outside >= _NOTED_SHARE:
        message += f", of which about {outside:.0%} lies outside it and is without data"
    warnings.warn(message, SegfocalWarning, stacklevel=2)
    return regridded


class RegriddedScan:
    """A volume on the grid of another; see :class:`~segfocal.io.base.Scan`.

    Args:
        scan: The open volume; it is closed with this one.
        grid: The volume whose grid it is seen on.

    Raises:
        ScanError: The two do not touch.
    """

    def __init__(self, scan: VolumeScan, grid: VolumeScan) -> None:
        self._scan, self._grid = scan, grid
        to_mm = np.linalg.inv(scan.affine_mm) @ grid.affine_mm
        self._matrix, self._offset = to_mm[:3, :3], to_mm[:3, 3]
        self.name, self.files, self.channels = scan.name, scan.files, scan.channels
        self.channels_are_named, self.channel_note = scan.channels_are_named, scan.channel_note
        self.shape, self.slow_axis, self.resolution = grid.shape, grid.slow_axis, grid.resolution
        self.canonical_affine = grid.canonical_affine
        self.dtype: np.dtype = np.dtype(np.float32)
        self._check_touch()

    def georeference(self) -> dict[str, Any]:
        """Return that of the grid."""
        return self._grid.georeference()

    def share_outside(self) -> float:
        """Return about how much of the grid lies outside the volume, from 50 steps an axis."""
        sides = tuple(min(side, _STEPS) for side in self.shape)
        steps = np.array([whole / part for whole, part in zip(self.shape, sides, strict=True)])
        inside = self._inside(self._offset + self._matrix @ ((steps - 1) / 2), sides, steps)
        return 1 - float(inside.mean())

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the voxels of a window; see :class:`~segfocal.io.base.Scan`.

        Raises:
            ScanError: The file cannot be read there.
        """
        check_window(window, self.shape)
        chosen = channel_indices(channels, len(self.channels))
        sides = window_shape(window)
        values = np.zeros((*sides, len(chosen)), np.float32)
        valid = np.zeros(values.shape, np.bool_)
        start = self._offset + self._matrix @ [side.start for side in window]
        box = self._source_box(start, sides)
        if values.size and all(side.start < side.stop for side in box):
            patch = self._scan.read(box, chosen)
            start = start - [side.start for side in box]
            inside = self._inside(start + [side.start for side in box], sides)
            for place in range(len(chosen)):
                good = patch.valid[..., place]
                known = np.where(good, patch.values[..., place], 0)
                values[..., place] = self._interpolate(known, start, sides)
                valid[..., place] = inside
                if not good.all():
                    share = self._interpolate(good, start, sides)
                    valid[..., place] &= share > 1 - _ROUNDING
        return Patch(values, valid)

    def _interpolate(
        self, block: NDArray[np.generic], start: NDArray[np.float64], sides: tuple[int, ...]
    ) -> NDArray[np.float32]:
        return ndimage.affine_transform(
            block.astype(np.float64), self._matrix, start, sides, np.float32, order=1,
            mode="nearest",
        )  # fmt: skip

    def _source_box(self, start: NDArray[np.float64], sides: tuple[int, ...]) -> Window:
        """Return the part of the other volume that a window is made from, maybe empty."""
        corners = np.array(list(itertools.product(*((0, side - 1) for side in sides))))
        places = start + corners @ self._matrix.T
        low, high = np.floor(places.min(0) - _ROUNDING), np.ceil(places.max(0) + _ROUNDING)
        box = []
        for first, last, length in zip(low, high, self._scan.shape, strict=True):
            apart = last < -1 or first > length
            first, last = np.clip((first, last), 0, length - 1)
            box.append(slice(int(first), int(first if apart else last + 1)))
        return tuple(box)

    def _inside(
        self,
        start: NDArray[np.float64],
        sides: tuple[int, ...],
        every: Sequence[float] | NDArray[np.float64] = (1, 1, 1),
    ) -> NDArray[np.bool_]:
        """Return which voxels of a window, or every so many of them, lie in the other volume."""
        inside = np.ones(sides, np.bool_)
        steps = np.ogrid[tuple(slice(0, side) for side in sides)]
        matrix = self._matrix * np.asarray(every)
        for axis, length in enumerate(self._scan.shape):
            place = start[axis] + sum(matrix[axis, i] * step for i, step in enumerate(steps))
            inside &= (place > -0.5 - _ROUNDING) & (place < length - 0.5 + _ROUNDING)
        return inside

    def _check_touch(self) -> None:
        """Compare the boxes around the two volumes, along the axes of each."""
        back = np.linalg.inv(self._matrix)
        for matrix, offset, sides, others in (
            (self._matrix, self._offset, self._grid.shape, self._scan.shape),
            (back, -back @ self._offset, self._scan.shape, self._grid.shape),
        ):
            corners = np.array(list(itertools.product(*((-0.5, side - 0.5) for side in sides))))
            places = offset + corners @ matrix.T
            if (places.max(0) <= -0.5).any() or (places.min(0) >= np.array(others) - 0.5).any():
                raise ScanError(
                    f"{self._scan.name}: lies at {_place(self._scan)}, {self._grid.name} at "
                    f"{_place(self._grid)}; expected modalities of one patient that overlap: "
                    "register them first"
                )

    def remember_planes(self) -> None:
        """Keep planes of a compressed file; see :class:`~segfocal.io.nifti.VolumeScan`."""
        self._scan.remember_planes()

    @property
    def remembered_bytes(self) -> int:
        """What the planes that are kept may take."""
        return self._scan.remembered_bytes

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _place(scan: VolumeScan) -> str:
    """Return where a volume lies, in mm from its first to its last voxel."""
    last = [side - 1 for side in scan.shape]
    ends = scan.affine_mm[:3, 3], scan.affine_mm[:3, :3] @ last + scan.affine_mm[:3, 3]
    return " to ".join(f"({', '.join(f'{value:.0f}' for value in end)}) mm" for end in ends)
