"""Scans that are arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.base import check_window
from segfocal.io.channels import channel_indices, numbered_names
from segfocal.types import BoolArray, Patch, Window

__all__ = ["MemoryScan"]


class MemoryScan:
    """An array seen through the scan protocol; the array is not copied.

    Args:
        array: Shape ``(rows, cols, channels)`` or ``(planes, rows, cols, channels)``, of
            integers, booleans or floats. NaN and infinity are invalid.
        valid: Boolean array, True where usable, of the spatial shape or of the shape of
            ``array``. All usable when left out.
        channels: Channel names; made up when left out.
        name: What to call the scan in messages.
        resolution: Size of a pixel along each axis.

    Raises:
        ScanError: The array's shape or type, ``valid`` or ``channels`` do not fit.
    """

    def __init__(
        self,
        array: NDArray[np.generic],
        *,
        valid: BoolArray | None = None,
        channels: Sequence[str] | None = None,
        name: str = "array",
        resolution: Sequence[float] | None = None,
    ) -> None:
        array = np.asarray(array)
        if array.ndim not in (3, 4):
            raise ScanError(
                f"{name}: array of shape {array.shape}; expected (rows, cols, channels) or "
                "(planes, rows, cols, channels)"
            )
        if array.dtype.kind not in "biuf" or array.shape[-1] == 0:
            raise ScanError(
                f"{name}: array of type {array.dtype} with {array.shape[-1]} channels; expected "
                "integers, booleans or floats with at least one channel"
            )
        if valid is not None:
            valid = np.asarray(valid)
            if valid.dtype != np.bool_ or valid.shape not in (array.shape, array.shape[:-1]):
                raise ScanError(
                    f"{name}: valid is {valid.dtype} of shape {valid.shape}; expected bool of "
                    f"shape {array.shape[:-1]} or {array.shape}"
                )
            if valid.ndim < array.ndim:
                valid = np.broadcast_to(valid[..., None], array.shape)
        count = array.shape[-1]
        names = numbered_names("channel", count) if channels is None else tuple(channels)
        if len(names) != count or len(set(names)) != count:
            raise ScanError(f"{name}: channels {names}; expected {count} different names")
        sides = None if resolution is None else tuple(float(side) for side in resolution)
        if sides is not None and len(sides) != array.ndim - 1:
            raise ScanError(f"{name}: resolution {sides}; expected {array.ndim - 1} numbers")
        self._array: NDArray[np.generic] | None = array
        self._valid = valid
        self.name = name
        self.shape: tuple[int, ...] = array.shape[:-1]
        self.channels = names
        self.channels_are_named = channels is not None
        self.channel_note = ""
        self.dtype: np.dtype = array.dtype
        self.slow_axis = 0
        self.resolution = sides

    def georeference(self) -> dict[str, Any]:
        """Return nothing: an array lies nowhere."""
        return {}

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return a copy of the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        if self._array is None:
            raise ValueError(f"{self.name}: the scan is closed")
        check_window(window, self.shape)
        chosen = channel_indices(channels, len(self.channels))
        values = self._array[window][..., chosen]
        valid = (
            np.ones(values.shape, np.bool_)
            if self._valid is None
            else self._valid[window][..., chosen]
        )
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        return Patch(values, valid)

    def close(self) -> None:
        """Let go of the array."""
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
