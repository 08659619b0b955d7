"""Areas of interest: bounds or polygons on the ground, as a window and a mask of a scene.

Coordinates are easting before northing and longitude before latitude, whatever order the CRS
names its axes in. What is in another CRS than the scene is transformed corner by corner, with
corners added until straight sides stay within a hundredth of a pixel of the true curve.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from segfocal.errors import ScanError
from segfocal.io.base import Scan, grid_of
from segfocal.io.geotiff import RasterScan
from segfocal.io.geotiff_writer import GDAL_ERRORS
from segfocal.io.polygon_mask import PolygonMask
from segfocal.io.vector import read_polygons
from segfocal.types import Window

__all__ = ["Area", "area_of_interest"]

Area = str | os.PathLike[str] | Sequence[float]

Ring = NDArray[np.float64]
Points = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_CLOSE = 0.01  # pixels
_FIRST_PARTS = 8  # of a side, so that a curve that is straight by half is seen
_MOST_CORNERS = 2_000_000


def area_of_interest(
    area: Area, scan: Scan, area_crs: str | None = None
) -> tuple[Window, PolygonMask | None]:
    """Return the window of a scene that an area spans, and which pixels of it are inside.

    A pixel is inside when its centre is.

    Args:
        area: Bounds ``(xmin, ymin, xmax, ymax)``, as numbers or as text with commas, or the
            path of a file with polygons. In longitude and latitude, bounds with ``xmin`` above
            ``xmax`` lie across the antimeridian.
        scan: An open scene.
        area_crs: CRS of the coordinates. Left out: the scene's for bounds, and the one that a
            file names.

    Returns:
        The window, and the mask; None where all pixels of the window are inside.

    Raises:
        ScanError: The area cannot be understood or lies outside the scene.
    """
    scene = _georeferenced(scan)
    bounds = _bounds(area)
    if bounds is not None:
        crs = scene.crs if area_crs is None else _crs(area_crs)
        rings = [_rectangle(bounds, crs)]
        what = f"area {','.join(f'{side:g}' for side in bounds)}"
    else:
        path = os.fspath(area)  # type: ignore[arg-type]
        rings, named = read_polygons(path)
        what = f"area {path}"
        told = area_crs or named
        if told is None and scene.crs is not None:
            raise ScanError(f"{what}: names no CRS; give the one of its coordinates as area_crs")
        crs = None if told is None else _crs(told)
    if crs is not None and scene.crs is None:
        raise ScanError(f"{what}: has a CRS and {scene.name} has none; expected both or neither")
    inside = _rings_in_pixels(rings, crs, scene, what)
    mask = PolygonMask(inside)
    window = tuple(
        slice(max(side.start, 0), min(side.stop, length))
        for side, length in zip(mask.window, scene.shape, strict=True)
    )
    if any(side.start >= side.stop for side in window) or not _any_inside(mask, window):
        raise ScanError(
            f"{what}: no pixel of {scene.name} has its centre there; the scene spans "
            f"{_extent(scene)}: check the coordinates, their order (x before y) and their CRS"
        )
    return window, None if _is_upright_rectangle(inside) else mask


def _georeferenced(scan: Scan) -> RasterScan:
    scan = grid_of(scan)
    if not isinstance(scan, RasterScan):
        raise ScanError(f"{scan.name}: an area of interest is for scenes; this is no raster file")
    if scan.transform.is_identity and (scan.gcps[0] or scan.rpcs is not None):
        kind = "ground control points" if scan.gcps[0] else "RPCs"
        raise ScanError(
            f"{scan.name}: lies on the ground by {kind} only, which tell no area of its pixels; "
            "warp the scene first (gdalwarp)"
        )
    return scan


def _bounds(area: Area) -> tuple[float, float, float, float] | None:
    """Return bounds, or None where the area is a path."""
    if isinstance(area, os.PathLike):
        return None
    parts: Sequence[Any] = area.split(",") if isinstance(area, str) else list(area)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return None
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise ScanError(
            f"area {area!r}; expected four numbers xmin,ymin,xmax,ymax or a file with polygons"
        )
    xmin, ymin, xmax, ymax = numbers
    return xmin, ymin, xmax, ymax


def _rectangle(bounds: tuple[float, float, float, float], crs: CRS | None) -> Ring:
    xmin, ymin, xmax, ymax = bounds
    if xmin > xmax and crs is not None and crs.is_geographic:
        xmax += 360
    if not (xmin < xmax and ymin < ymax):
        raise ScanError(
            f"area {','.join(f'{side:g}' for side in bounds)}: is empty; expected "
            "xmin,ymin,xmax,ymax with xmin below xmax and ymin below ymax"
        )
    corners = [(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax), (xmin, ymin)]
    return np.array(corners, np.float64)


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise ScanError(
            f"area_crs {text!r}: no CRS that is known ({' '.join(str(error).split())}); expected "
            "something like EPSG:4326"
        ) from error


def _rings_in_pixels(
    rings: list[Ring], crs: CRS | None, scene: RasterScan, what: str
) -> list[Ring]:
    to_pixels = _pixels_of(scene)
    if crs is None or crs == scene.crs:
        inside = [to_pixels(ring) for ring in rings]
    else:
        inside = [_curved(ring, _transformed(crs, scene.crs, to_pixels, what)) for ring in rings]
    if scene.crs is None or not scene.crs.is_geographic:
        return inside
    # 190 degrees east are 170 degrees west: the scene may say it otherwise than the area.
    origin, turn = to_pixels(np.array([[0.0, 0.0], [360.0, 0.0]]))
    shifts = [step * (turn - origin) for step in (0, -1, 1)]
    turned = [ring + shift for shift in shifts for ring in inside]
    rows, cols = scene.shape
    there = [
        ring for ring in turned if (ring.max(0) > 0).all() and (ring.min(0) < (cols, rows)).all()
    ]
    return there or inside


def _pixels_of(scene: RasterScan) -> Points:
    inverse = ~scene.transform
    rows = scene.shape[0]

    def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = xy.T
        col = inverse.a * x + inverse.b * y + inverse.c
        row = inverse.d * x + inverse.e * y + inverse.f
        return np.stack([col, rows - row if scene.flip_rows else row], -1)

    return to_pixels


def _transformed(source: CRS, target: CRS, to_pixels: Points, what: str) -> Points:
    def transform(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            there = rasterio.warp.transform(source, target, *xy.T.tolist())
        except GDAL_ERRORS as error:
            raise ScanError(
                f"{what}: does not reach the scene's CRS ({' '.join(str(error).split())}); check "
                "coordinates and CRS, or cut the area closer to the scene"
            ) from error
        points = np.array(there[:2], np.float64).T
        if not np.isfinite(points).all():
            raise ScanError(
                f"{what}: has points that do not reach the scene's CRS; check coordinates and CRS, "
                "or cut the area closer to the scene"
            )
        return to_pixels(points)

    return transform


def _curved(ring: Ring, transform: Points) -> Ring:
    """Transform a ring, with corners added where its straight sides become curves."""
    share = np.arange(_FIRST_PARTS)[:, None] / _FIRST_PARTS
    sides = ring[:-1, None] * (1 - share) + ring[1:, None] * share
    source = np.concatenate([sides.reshape(-1, 2), ring[-1:]])
    target = transform(source)
    while len(source) < _MOST_CORNERS:
        middle = (source[:-1] + source[1:]) / 2
        there = transform(middle)
        off = np.hypot(*(there - (target[:-1] + target[1:]) / 2).T) > _CLOSE
        if not off.any():
            break
        places = np.flatnonzero(off) + 1
        source = np.insert(source, places, middle[off], axis=0)
        target = np.insert(target, places, there[off], axis=0)
    target[-1] = target[0]
    return target


def _any_inside(mask: PolygonMask, window: Window) -> bool:
    rows, cols = window
    step = max(1, 2**22 // (cols.stop - cols.start))
    return any(
        mask((slice(top, min(top + step, rows.stop)), cols)).any()
        for top in range(rows.start, rows.stop, step)
    )


def _is_upright_rectangle(rings: list[Ring]) -> bool:
    return (
        len(rings) == 1
        and len(rings[0]) == 5
        and all(a[0] == b[0] or a[1] == b[1] for a, b in zip(rings[0], rings[0][1:], strict=False))
    )


def _extent(scene: RasterScan) -> str:
    rows, cols = scene.shape
    grid = scene.transform
    corners = [(0, 0), (cols, 0), (0, rows), (cols, rows)]
    xs = [grid.a * col + grid.b * row + grid.c for col, row in corners]
    ys = [grid.d * col + grid.e * row + grid.f for col, row in corners]
    crs = "pixels" if scene.crs is None else scene.crs.to_string()
    crs = crs if len(crs) < 40 else "its CRS"
    return f"{min(xs):.10g},{min(ys):.10g},{max(xs):.10g},{max(ys):.10g} in {crs}"
