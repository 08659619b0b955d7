"""Regions: the part of a scan that is to be segmented, and which pixels of it get a label.

A region is a window of the scan. What is computed inside is bit by bit what it would be for the
whole scan: tiles lie on the same grid, anchored at the scan's origin, and read what lies around
the region too. The output is the region's part of the scan's grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from segfocal.errors import GeometryError
from segfocal.io.base import Scan
from segfocal.types import BoolArray, Window, full_window

__all__ = ["Mask", "checked_region", "needed_in"]


class Mask(Protocol):
    """Which pixels of a region get a label; the others are nodata in the output.

    The network sees the pixels that get none all the same, as context of those that do.
    """

    @property
    def identity(self) -> Any:
        """JSON value that tells the mask from any other, for the fingerprint."""

    def __call__(self, window: Window) -> BoolArray:
        """Return, for a window in pixels of the scan, where there is to be a label.

        May be called from any thread.
        """


def checked_region(region: Window | None, scan: Scan) -> Window | None:
    """Return a region with plain numbers; None where it is all of the scan.

    Raises:
        GeometryError: It is empty or lies, even in part, outside the scan.
    """
    if region is None:
        return None
    inside = len(region) == len(scan.shape) and all(
        0 <= side.start < side.stop <= length and side.step in (None, 1)
        for side, length in zip(region, scan.shape, strict=False)
    )
    if not inside:
        sides = ", ".join(f"{side.start}:{side.stop}" for side in region)
        shape = " x ".join(str(length) for length in scan.shape)
        raise GeometryError(
            f"{scan.name}: region {sides} of a scan of {shape} pixels; expected a part of it with "
            "at least one pixel: clip the region to the scan"
        )
    plain = tuple(slice(int(side.start), int(side.stop)) for side in region)
    return None if plain == full_window(scan.shape) else plain


def needed_in(mask: Mask | None) -> Callable[[Window], bool] | None:
    """Return whether anything in a window gets a label; None where everything does."""
    return None if mask is None else lambda window: bool(mask(window).any())
