"""Planes of a compressed volume that are kept while the tiles of a row are read.

A row of tiles asks for the same planes once per tile. Kept as arrays, each is inflated once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["PLANE_BYTES", "PlaneCache"]

PLANE_BYTES = 256 * 2**20
"""What planes of one file may take; a read of more is not kept."""

_PIECE_BYTES = 16 * 2**20
"""Read at once: an indexed file begins each read up to 4 MiB before its start."""

Load = Callable[[int, range], NDArray[np.generic]]
"""Reads planes of a channel, ``(x, y, planes)``."""


class PlaneCache:
    """The planes asked for last, as many as the largest read took.

    Args:
        plane_bytes: Bytes of a plane.
        load: Reads what is not kept.
        limit: Bytes that all may take.
    """

    def __init__(self, plane_bytes: int, load: Load, limit: int = PLANE_BYTES) -> None:
        self._most, self._load = limit // plane_bytes, load
        self._piece = max(1, _PIECE_BYTES // plane_bytes)
        self._capacity = 0
        self._planes: OrderedDict[tuple[int, int], NDArray[np.generic]] = OrderedDict()

    def has_room(self, count: int) -> bool:
        """Return whether a read of so many planes can be kept, and make room for it."""
        if count > self._most:
            return False
        self._capacity = max(self._capacity, count)
        return True

    def get(self, channel: int, planes: range) -> list[NDArray[np.generic]]:
        """Return consecutive planes of a channel; those that are not kept are read first."""
        for plane in planes:  # those of this read are dropped last
            if (channel, plane) in self._planes:
                self._planes.move_to_end((channel, plane))
        start = planes.start
        while start < planes.stop:
            stop = start
            while stop < min(planes.stop, start + self._piece) and not self._has(channel, stop):
                stop += 1
            if stop > start:
                self._keep(channel, range(start, stop))
            start = max(stop, start + 1)
        return [self._planes[channel, plane] for plane in planes]

    def _has(self, channel: int, plane: int) -> bool:
        return (channel, plane) in self._planes

    def _keep(self, channel: int, planes: range) -> None:
        block = self._load(channel, planes)
        while self._planes and len(self._planes) + len(planes) > self._capacity:
            self._planes.popitem(last=False)
        for step, plane in enumerate(planes):
            self._planes[channel, plane] = block[..., step].copy(order="F")
