"""Which pixels have their centre in a polygon, for any window, without a mask of the whole scan.

Rows are filled between the places where sides cross the line through their centres. Places
follow from the polygon alone, so that a pixel's answer does not depend on the window it is
asked in. The rule is that of GDAL's rasterize, also where a side runs through a centre: the
left one is out, the right one in.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.types import BoolArray, Window, window_shape

__all__ = ["PolygonMask"]

_ROWS_AT_ONCE = 1024


class PolygonMask:
    """The inside of rings, by the even-odd rule; see :class:`segfocal.engine.region.Mask`.

    Args:
        rings: Closed rings ``(corners, 2)`` of columns and rows in pixels of the scan, where
            a pixel's centre is at one half. They do not cross.
    """

    def __init__(self, rings: list[NDArray[np.float64]]) -> None:
        sides = np.concatenate([np.concatenate([ring[:-1], ring[1:]], 1) for ring in rings])
        sides = sides[sides[:, 1] != sides[:, 3]]
        down = sides[:, 1] < sides[:, 3]
        self._sides = np.where(down[:, None], sides, sides[:, [2, 3, 0, 1]])
        digest = hashlib.sha256()
        for ring in rings:
            digest.update(np.ascontiguousarray(ring, "<f8").tobytes())
        self._digest = digest.hexdigest()
        self._low = np.min([ring.min(0) for ring in rings], 0)
        self._high = np.max([ring.max(0) for ring in rings], 0)

    @property
    def identity(self) -> Any:
        """Hash of the rings."""
        return {"polygon": self._digest}

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that pixels inside can have; may reach over the scan, or be empty."""
        low = np.array([np.floor(self._low[0] + 0.5), np.ceil(self._low[1] - 0.5)])
        high = np.array([np.floor(self._high[0] + 0.5), np.ceil(self._high[1] - 0.5)])
        (left, top), (right, bottom) = low.tolist(), high.tolist()
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def __call__(self, window: Window) -> BoolArray:
        """Return which pixels of a window are inside, ``window_shape(window)``."""
        rows, cols = window
        inside = np.empty(window_shape(window), np.bool_)
        for top in range(rows.start, rows.stop, _ROWS_AT_ONCE):
            bottom = min(top + _ROWS_AT_ONCE, rows.stop)
            inside[top - rows.start : bottom - rows.start] = self._filled(top, bottom, cols)
        return inside

    def _filled(self, top: int, bottom: int, cols: slice) -> BoolArray:
        x1, y1, x2, y2 = self._sides.T
        # Rows of which a side crosses the centre line: y1 <= row + 1/2 < y2.
        first = np.clip(np.ceil(y1 - 0.5), top, bottom).astype(np.int64)
        count = np.clip(np.ceil(y2 - 0.5), top, bottom).astype(np.int64) - first
        side = np.repeat(np.arange(len(count)), count)
        starts = np.cumsum(count) - count
        row = first[side] + np.arange(len(side)) - starts[side]
        slope = (x2[side] - x1[side]) / (y2[side] - y1[side])
        x = x1[side] + (row + 0.5 - y1[side]) * slope
        width = cols.stop - cols.start
        col = np.clip(np.floor(x + 0.5) - cols.start, 0, width).astype(np.int64)
        crossings = np.bincount(
            (row - top) * (width + 1) + col, minlength=(bottom - top) * (width + 1)
        )
        parity = np.bitwise_and(crossings, 1).astype(np.uint8).reshape(bottom - top, width + 1)
        return np.bitwise_xor.accumulate(parity, axis=1)[:, :width].astype(np.bool_)
