"""A whole label map on disk, for steps that need all of it: read and written by windows.

It is a raw file of label indices, laid out along the axis that is swept. Plain reads and
writes: a full disk is then an error, where a memory map would kill the process.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.io.base import check_window
from segfocal.types import Window, full_window, window_shape

__all__ = ["STRIP_PIXELS", "LabelMap"]

STRIP_PIXELS = 2**21
"""Pixels of a strip, unless one row (or plane) holds more."""


class LabelMap:
    """Label indices of a scan, in a file.

    Args:
        path: The file; it is made. Before something is written to a place, 0 stands there.
        shape: Spatial shape of the scan, canonical orientation.
        nodata: The index that stands for no data; class indices are below it.
        slow_axis: Axis along which the file is laid out slowest.
        max_memory: Bytes that a step may take, or None.

    Attributes:
        shape, nodata, slow_axis, max_memory: As given.
        dtype: uint8, or uint16 where ``nodata`` is above 255.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        nodata: int,
        *,
        slow_axis: int = 0,
        max_memory: int | None = None,
    ) -> None:
        self.shape, self.nodata, self.slow_axis = shape, nodata, slow_axis
        self.max_memory = max_memory
        self.dtype = np.dtype(np.uint8 if nodata <= np.iinfo(np.uint8).max else np.uint16)
        # The file's axes: the swept one, then the others in their order.
        self._order = (slow_axis, *(i for i in range(len(shape)) if i != slow_axis))
        self._sides = tuple(shape[axis] for axis in self._order)
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self._file.truncate(math.prod(shape) * self.dtype.itemsize)

    def read(self, window: Window) -> NDArray[np.unsignedinteger]:
        """Return the label indices of a window, ``window_shape(window)``; a copy.

        Raises:
            ValueError: The window is outside the map.
            OSError: The file cannot be read.
        """
        check_window(window, self.shape)
        block = np.empty(window_shape(self._turned(window)), self.dtype)
        flat = block.reshape(-1)
        for start, first, last in self._runs(window):
            self._file.seek(start * self.dtype.itemsize)
            view = memoryview(flat[first:last].data).cast("B")
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise OSError(f"{self._file.name} is shorter than it was made")
                view = view[count:]
        return block.transpose(np.argsort(self._order))

    def write(self, window: Window, indices: NDArray[np.integer]) -> None:
        """Write label indices of shape ``window_shape(window)``.

        Raises:
            ValueError: The window is outside the map, or the shape is another.
            OSError: The file cannot be written.
        """
        check_window(window, self.shape)
        if indices.shape != window_shape(window):
            raise ValueError(f"labels of shape {indices.shape}; expected {window_shape(window)}")
        turned = np.ascontiguousarray(indices.transpose(self._order), self.dtype)
        flat = turned.reshape(-1)
        for start, first, last in self._runs(window):
            self._file.seek(start * self.dtype.itemsize)
            view = memoryview(flat[first:last].data).cast("B")
            while view:
                view = view[self._file.write(view) :]

    def strips(self, pixels: int = STRIP_PIXELS) -> Iterator[Window]:
        """Yield windows along the swept axis that partition the map, about so many pixels each."""
        axis, length = self.slow_axis, self.shape[self.slow_axis]
        step = max(1, pixels // max(1, math.prod(self.shape) // max(1, length)))
        for start in range(0, length, step):
            window = list(full_window(self.shape))
            window[axis] = slice(start, min(start + step, length))
            yield tuple(window)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        os.unlink(self._file.name)

    def _turned(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(items[axis] for axis in self._order)

    def _runs(self, window: Window) -> Iterator[tuple[int, int, int]]:
        """Yield what of a window is contiguous: place in the file, begin and end in the window."""
        box = self._turned(window)
        lengths = window_shape(box)
        # Behind this axis the window is as wide as the map, so that its parts are joined.
        joined = len(box) - 1
        while joined > 0 and lengths[joined] == self._sides[joined]:
            joined -= 1
        inner = math.prod(self._sides[joined + 1 :])
        size = lengths[joined] * inner
        if size == 0:
            return
        for count, place in enumerate(
            itertools.product(*(range(side.start, side.stop) for side in box[:joined]))
        ):
            index = 0
            for at, side in zip(place, self._sides[:joined], strict=True):
                index = index * side + at
            start = (index * self._sides[joined] + box[joined].start) * inner
            yield start, count * size, (count + 1) * size
