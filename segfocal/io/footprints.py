"""Where scenes lie on the ground, for comparison between files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segfocal.io.base import Scan, grid_of
from segfocal.types import Window

__all__ = ["Footprint", "footprint_of", "shared_part"]

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Footprint:
    """The box of a window on the ground: left, bottom, right, top.

    Attributes:
        crs: Name of the scene's CRS; ``""``: it has none.
        bounds: In units of the CRS.
        degrees: In degrees east and north; NaN where they are not known: the box is then
            comparable with those of the same ``crs`` only.
    """

    crs: str
    bounds: Bounds
    degrees: Bounds


def footprint_of(scan: Scan) -> Callable[[Window], Footprint] | None:
    """Return a function that places windows of a scene, or None for what lies nowhere.

    Volumes lie in coordinates of their scanner, which say nothing of other volumes.
    """
    grid: Any = grid_of(scan)
    if not hasattr(grid, "transform") or grid.transform.is_identity:
        return None
    from rasterio._err import CPLE_BaseError  # raised by transform, exported nowhere else
    from rasterio.errors import RasterioError
    from rasterio.warp import transform_bounds

    from segfocal.io.nearest import canonical_transform, on_ground

    crs, affine = grid.crs, canonical_transform(grid)

    def placed(window: Window) -> Footprint:
        rows, cols = window
        ends = itertools.product((cols.start, cols.stop), (rows.start, rows.stop))
        x, y = np.array([on_ground(affine, *corner) for corner in ends]).T
        bounds = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        if crs is None:
            return Footprint("", bounds, (np.nan,) * 4)
        try:
            degrees = transform_bounds(crs, "EPSG:4326", *bounds)
        except (
            RasterioError,
            CPLE_BaseError,
            ValueError,
        ):  # a local CRS: comparable within itself only
            degrees = (np.nan,) * 4
        return Footprint(crs.to_string(), bounds, degrees)

    return placed


def shared_part(a: Footprint, b: Footprint) -> float:
    """Return which part of the smaller of two boxes lies in the other, 0 to 1."""
    one, other = (a.bounds, b.bounds) if a.crs == b.crs else (a.degrees, b.degrees)
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if not (width > 0 and height > 0):
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / smaller
