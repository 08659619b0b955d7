"""Planes of a gzip-compressed volume, inflated one after the other.

indexed_gzip begins every read at an entry of its index, up to 4 MiB before what is asked for;
a plain stream inflates each byte once. It can only go back to the front.
"""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

__all__ = ["PlaneStream"]


class PlaneStream:
    """A compressed file of one channel, read in the order of its planes.

    Args:
        path: The file.
        proxy: nibabel's proxy of its voxels: where they begin, their type and scaling.
        shape: Lengths of the file's axes.
    """

    def __init__(self, path: str, proxy: Any, shape: tuple[int, ...]) -> None:
        self._file = gzip.open(path)  # noqa: SIM115
        self._offset, self._dtype = int(proxy.offset), np.dtype(proxy.dtype)
        slope, inter = getattr(proxy, "slope", 1.0), getattr(proxy, "inter", 0.0)
        self._scaling: tuple[Any, Any] = np.asanyarray(slope), np.asanyarray(inter)
        self._sides, self._count = shape[:2], shape[2]
        self._next = 0

    def is_before(self, planes: range) -> bool:
        """Return whether planes lie ahead, or at the beginning, where a pass may start again."""
        return planes.start >= self._next or planes.start == 0

    def read(self, planes: range) -> NDArray[Any]:
        """Return planes ``(x, y, planes)``, scaled.

        Raises:
            OSError, EOFError, zlib.error: The file is damaged or ends before.
        """
        count = self._sides[0] * self._sides[1] * self._dtype.itemsize
        self._file.seek(self._offset + planes.start * count)
        content = self._file.read(len(planes) * count)
        if len(content) < len(planes) * count:
            raise EOFError(f"the file ends {len(planes) * count - len(content)} bytes too early")
        self._next = planes.stop
        if planes.stop == self._count:
            while self._file.read(2**20):  # to the checksum behind the last plane
                pass
        raw = np.frombuffer(content, self._dtype).reshape((*self._sides, len(planes)), order="F")
        return apply_read_scaling(raw, *self._scaling)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
