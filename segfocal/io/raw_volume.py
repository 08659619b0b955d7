"""The raw scratch file of a volume output: voxels in the order of the final file.

Plain reads and writes: a full disk is then an error, where a memory map would kill the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from segfocal.io.orientation import AxisOrder
from segfocal.io.pending import PendingOutput, writing
from segfocal.types import Window, window_shape

__all__ = ["RawVolume", "chunks"]

_CHUNK = 4 * 2**20


class RawVolume:
    """Volumes of one grid behind one another, of which any part can be written at any time.

    Args:
        pending: The entered pending output; the file is closed and removed with it.
        name: Name of the scratch file.
        order: How the canonical axes lie in the file.
        dtype: Type in the file.
        layers: Number of volumes.

    Raises:
        OutputError: The file cannot be made.
    """

    def __init__(
        self, pending: PendingOutput, name: str, order: AxisOrder, dtype: np.dtype, layers: int = 1
    ) -> None:
        self.path: Path = pending.scratch(name)
        self._order, self._dtype = order, dtype
        self._volume = math.prod(order.shape)
        with writing(pending.destination):
            self._file: IO[bytes] = open(self.path, "w+b", buffering=0)  # noqa: SIM115
            pending.defer(self._file.close)
            self._file.truncate(layers * self._volume * dtype.itemsize)

    def write(self, window: Window, values: NDArray[np.generic], layer: int = 0) -> None:
        """Write the voxels of a canonical window, ``window_shape(window)``, into a layer.

        Raises:
            OSError: The file cannot be written.
        """
        box = self._order.file_window(window)
        first, second, slow = box
        block = self._order.to_file(values)
        width = self._order.file_shape[0]
        whole = window_shape(box)[0] == width
        for step, plane in enumerate(range(slow.start, slow.stop)):
            # Lines of the fastest axis, contiguous in the file.
            start = (plane * self._order.file_shape[1] + second.start) * width
            start += layer * self._volume
            lines = block[:, :, step].T
            if not whole:
                lines = self._read(start, (lines.shape[0], width))
                lines[:, first] = block[:, :, step].T
            self._file.seek(start * self._dtype.itemsize)
            _write_all(self._file, lines.tobytes())

    def _read(self, start: int, shape: tuple[int, int]) -> NDArray[np.generic]:
        self._file.seek(start * self._dtype.itemsize)
        lines = np.empty(shape, dtype=self._dtype)
        view = memoryview(lines.data).cast("B")
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"{self.path} is shorter than it was made")
            view = view[count:]
        return lines

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._file.close()


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file in pieces."""
    while chunk := file.read(_CHUNK):
        yield chunk


def _write_all(file: IO[bytes], content: bytes) -> None:
    """An unbuffered file may take less than it is given."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
