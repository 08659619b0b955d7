"""Regions of scans seen as scans: the same file, a part of its grid.

What writers ask of a scan, where its grid lies, is that of the part: the transform begins at its
corner, ground control points and the offsets of RPCs count from there, a volume's affine has
another origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from segfocal.io.base import Scan, check_window, grid_of
from segfocal.types import Patch, Window, window_shape

__all__ = ["CroppedScan", "crop"]


def crop(scan: Scan, region: Window) -> Scan:
    """Return a region of a scan as a scan of its own, which reads from the same file.

    Args:
        scan: An open scan; it is closed together with the region.
        region: Window in pixels of the scan, not empty.

    Raises:
        ValueError: The region is outside the scan.
    """
    check_window(region, scan.shape)
    # By what a scan has: the formats' libraries are loaded only where their scans are.
    grid = grid_of(scan)
    if hasattr(grid, "transform"):
        from segfocal.io.cropped_raster import CroppedRaster

        return CroppedRaster(scan, region)
    if hasattr(grid, "affine"):
        from segfocal.io.cropped_volume import CroppedVolume

        return CroppedVolume(scan, region)
    return CroppedScan(scan, region)


class CroppedScan:
    """A region of any scan, without a georeference; see :func:`crop`."""

    def __init__(self, scan: Scan, region: Window) -> None:
        self._whole, self._region = scan, region
        self.name = scan.name
        self.shape: tuple[int, ...] = window_shape(region)
        self.channels = scan.channels
        self.channels_are_named = scan.channels_are_named
        self.channel_note = scan.channel_note
        self.dtype: np.dtype = scan.dtype
        self.slow_axis = scan.slow_axis
        self.resolution = scan.resolution

    def georeference(self) -> dict[str, Any]:
        """Return nothing: what is known of the whole scan does not hold for a part of it."""
        return {}

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        check_window(window, self.shape)
        within = tuple(
            slice(side.start + whole.start, side.stop + whole.start)
            for side, whole in zip(window, self._region, strict=True)
        )
        return self._whole.read(within, channels)

    def close(self) -> None:
        """Close the scan that this is a region of."""
        self._whole.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
