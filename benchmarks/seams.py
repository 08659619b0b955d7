"""Seams: jumps of probabilities across the borders of tiles, relative to others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segfocal.tiling import AxisGrid, TileGrid
from segfocal.types import Window

__all__ = ["seam"]


def borders(axis: AxisGrid) -> NDArray[np.intp]:
    """Return the pixels before which the tiles that make up an output pixel change."""
    starts = np.arange(1, axis.count) * axis.stride
    return np.union1d(starts, starts + axis.overlap)


def jumps(
    probabilities: NDArray[np.float32], axis: int, places: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the absolute differences between pixels and those before them, flat."""
    values = np.moveaxis(probabilities, axis, 0)
    found = np.abs(values[places] - values[places - 1]).mean(-1, dtype=np.float64).ravel()
    return found[np.isfinite(found)]


def seam(probabilities: NDArray[np.float32], window: Window, grid: TileGrid) -> float:
    """Return the mean jump at tile borders inside a window, relative to that elsewhere.

    Args:
        probabilities: Of the whole scan, ``(*sides, classes)``, NaN where there are none.
        window: Where to look.
        grid: Whose tiles.
    """
    inside = probabilities[window]
    at_borders, elsewhere = [], []
    for axis, (span, layout) in enumerate(zip(window, grid.axes, strict=True)):
        places = np.arange(span.start + 1, span.stop)
        is_border = np.isin(places, borders(layout))
        at_borders.append(jumps(inside, axis, places[is_border] - span.start))
        elsewhere.append(jumps(inside, axis, places[~is_border] - span.start))
    return float(np.concatenate(at_borders).mean() / np.concatenate(elsewhere).mean())
