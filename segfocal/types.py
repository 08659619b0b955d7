"""Words shared by every layer: windows and the values that travel in them.

A *window* is a box of pixels: a tuple of slices, one per spatial axis, row first
(``(plane,) row, col``), with explicit non-negative start and stop and step 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BoolArray",
    "FloatArray",
    "Patch",
    "Window",
    "full_window",
    "overlap_of",
    "shifted",
    "window_shape",
]

Window: TypeAlias = tuple[slice, ...]
BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True)
class Patch:
    """Pixels of one window and which of them can be used.

    Attributes:
        values: Array of shape ``(*window_shape, channels)``, in the scan's physical units
            (scale and offset applied). What stands at unusable places is unspecified.
        valid: Boolean array of the same shape, False where a channel holds nodata, NaN or
            is masked.
    """

    values: NDArray[np.generic]
    valid: BoolArray


def window_shape(window: Window) -> tuple[int, ...]:
    """Return the lengths of a window's sides in pixels."""
    return tuple(side.stop - side.start for side in window)


def full_window(shape: tuple[int, ...]) -> Window:
    """Return the window that covers a whole array of spatial shape ``shape``."""
    return tuple(slice(0, length) for length in shape)


def overlap_of(a: slice, b: slice) -> slice:
    """Return what two stretches have in common; it starts at or behind its stop when nothing."""
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def shifted(window: Window, origin: Window) -> Window:
    """Return a window as seen from the start of another."""
    return tuple(
        slice(side.start - zero.start, side.stop - zero.start)
        for side, zero in zip(window, origin, strict=True)
    )
