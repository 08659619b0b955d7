"""Shapes of a vector file brought into the pixels of a scene.

A projection knows its own part of the world only. Shapes that reach beyond the scene are
therefore clipped in their own CRS first, to the scene with a margin, and get vertices on long
edges, which are straight there and curved in the scene; those that lie elsewhere never meet
the projection.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io.nearest import canonical_transform

__all__ = ["shapes_in_pixels", "whole_areas"]

MARGIN = 0.1
"""Part of the scene's sides that is kept around it: shapes at its edge stay as they are."""

LATTICE = 33
"""Points along each side of the scene that tell its box in another CRS."""

PIECES = 64
"""Pieces that an edge as long as the box is cut into."""


def shapes_in_pixels(
    name: str, crs: str | None, shapes: NDArray[Any], grid: Any
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return shapes in pixels of a scene, column before row.

    Args:
        name: The file, for messages.
        crs: Its CRS; None: the scene's, with a warning.
        shapes: ``(shapes,)``, shapely's, none of them empty.
        grid: The scene.

    Returns:
        The shapes that touch the scene, and which of ``shapes`` they are.

    Raises:
        ScanError: The CRS is unknown, or there is no shape that has a place in it and can be
            brought into the scene's.
    """
    import shapely

    source = _source(name, crs, grid)
    there = np.isfinite(shapely.bounds(shapes)).all(-1)
    moved = shapes.copy()
    if source != grid.crs:
        there &= _has_place(shapes, source)
        _tell_lost(name, source, grid, shapes, there)
        moved = _clipped(moved, there, source, grid)
        there &= ~shapely.is_empty(moved)
        found = _projected(moved, there, source, grid)
        if found is not None:
            moved[there] = found
        else:
            _project_each(name, moved, there, source, grid)
    back = ~canonical_transform(grid)
    moved = shapely.transform(moved[there], lambda points: _applied(back, points))
    rows, cols = grid.shape
    touching = shapely.intersects(moved, shapely.box(0, 0, cols, rows))
    there[there] = touching
    return moved[touching], there


def whole_areas(crs: str | None, shapes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the areas of shapes as they are in their file, to be compared with each other.

    Where coordinates are angles, those far from the equator are as much smaller as they are on
    the ground.

    Args:
        crs: The file's CRS.
        shapes: ``(shapes,)``, shapely's.
    """
    import shapely
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    areas: NDArray[np.float64] = shapely.area(shapes)
    try:
        circle = None if crs is None else _circle(CRS.from_user_input(crs))
    except CRSError:  # told when the shapes are brought into the scene
        circle = None
    if circle is None:
        return areas
    _, bottom, _, top = shapely.bounds(shapes).T
    return areas * np.abs(np.cos((bottom + top) * np.pi / circle))


def _applied(affine: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = points[:, 0], points[:, 1]
    return np.stack(
        [affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f], -1
    )


def _source(name: str, crs: str | None, grid: Any) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if crs is None:
        warnings.warn(
            f"{name}: has no CRS and is taken to be in that of {grid.name}",
            SegfocalWarning,
            stacklevel=2,
        )
        return grid.crs
    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise ScanError(
            f"{name}: its CRS {crs!r} is not known to PROJ; expected one that is"
        ) from error


def _circle(source: Any) -> float | None:
    """Return the full circle in units of a CRS, 360 for degrees; None where it has no angles."""
    return 2 * np.pi / source.units_factor[1] if source.is_geographic else None


def _has_place(shapes: NDArray[Any], source: Any) -> NDArray[np.bool_]:
    """Return which shapes have coordinates that their CRS can have."""
    import shapely

    circle = _circle(source)
    if circle is None:
        return np.ones(len(shapes), np.bool_)
    left, bottom, right, top = shapely.bounds(shapes).T / circle
    # A little beyond the pole is rounding; longitudes may be counted on past half a circle.
    latitudes = (bottom >= -0.25 - 1e-8) & (top <= 0.25 + 1e-8)
    return latitudes & (left >= -1.5) & (right <= 1.5)


def _tell_lost(
    name: str, source: Any, grid: Any, shapes: NDArray[Any], there: NDArray[np.bool_]
) -> None:
    """Warn of shapes that have no place, and refuse when there are no others."""
    import shapely

    lost = np.flatnonzero(~there)
    if not len(lost):
        return
    x, y = shapely.get_coordinates(shapes[lost[0]])[0]
    text = (
        f"{name}: {len(lost)} of {len(there)} shapes cannot be brought from its CRS, "
        f"{source.to_string()}, into that of {grid.name}; one has the corner {x:.10g}, {y:.10g}"
    )
    if len(lost) == len(there):
        raise ScanError(f"{text}: expected coordinates of that CRS; is the file in another one?")
    warnings.warn(f"{text}; they are left out", SegfocalWarning, stacklevel=2)


def _clipped(
    shapes: NDArray[Any], there: NDArray[np.bool_], source: Any, grid: Any
) -> NDArray[Any]:
    """Return shapes clipped to the scene with its margin, in the CRS of the shapes.

    Shapes within it, and all when the scene has no box in that CRS, are left as they are.
    """
    import shapely

    box = _box(source, grid)
    if box is None:
        return shapes
    left, bottom, right, top = box
    west, south, east, north = shapely.bounds(shapes).T
    beyond = (west < left) | (east > right) | (south < bottom) | (north > top)
    circle = _circle(source)
    parts: dict[int, list[Any]] = {place: [] for place in np.flatnonzero(beyond & there).tolist()}
    for turn in (0.0,) if circle is None else (0.0, -circle, circle):
        meets = (west + turn <= right) & (east + turn >= left) & (south <= top) & (north >= bottom)
        for place in np.flatnonzero(beyond & there & meets).tolist():
            turned = shapely.transform(
                shapes[place], lambda points, by=turn: points + np.array([by, 0.0])
            )
            whole = turned if shapely.is_valid(turned) else shapely.make_valid(turned)
            parts[place].append(shapely.intersection(whole, shapely.box(*box)))
    clipped = shapes.copy()
    longest = max(right - left, top - bottom) / PIECES
    for place, own in parts.items():
        one = own[0] if len(own) == 1 else shapely.union_all(own)
        clipped[place] = shapely.segmentize(one, longest)
    return clipped


def _box(source: Any, grid: Any) -> tuple[float, float, float, float] | None:
    """Return left, bottom, right, top of the scene and its margin in another CRS."""
    rows, cols = (np.linspace(-MARGIN * side, (1 + MARGIN) * side, LATTICE) for side in grid.shape)
    points = np.stack(np.meshgrid(cols, rows), -1).reshape(-1, 2)
    found = _transformed(_applied(canonical_transform(grid), points), grid.crs, source)
    if found is None:
        return None
    (left, bottom), (right, top) = found.min(0), found.max(0)
    # Between the points of the lattice the scene may reach a little farther.
    more_x, more_y = (right - left) / LATTICE, (top - bottom) / LATTICE
    left, bottom, right, top = left - more_x, bottom - more_y, right + more_x, top + more_y
    circle = _circle(source)
    if circle is not None and right - left > circle / 2:  # over the antimeridian or a pole
        left, right = -circle / 2, circle / 2
    return left, bottom, right, top


def _projected(
    shapes: NDArray[Any], there: NDArray[np.bool_], source: Any, grid: Any
) -> NDArray[Any] | None:
    """Return the shapes that are there in the CRS of the scene, or None when one cannot be."""
    import shapely

    chosen = shapes[there]
    found = _transformed(shapely.get_coordinates(chosen), source, grid.crs)
    return None if found is None else shapely.transform(chosen, lambda points: found)


def _project_each(
    name: str, shapes: NDArray[Any], there: NDArray[np.bool_], source: Any, grid: Any
) -> None:
    """Bring shapes into the CRS of the scene one by one, and warn of those that cannot be."""
    tried = np.flatnonzero(there)
    before = shapes[tried]
    for place in tried:
        found = _projected(shapes[place : place + 1], there[place : place + 1], source, grid)
        if found is None:
            there[place] = False
        else:
            shapes[place] = found[0]
    _tell_lost(name, source, grid, before, there[tried])


def _transformed(
    points: NDArray[np.float64], source: Any, target: Any
) -> NDArray[np.float64] | None:
    """Return points ``(points, 2)`` in another CRS, or None when one of them has no place there."""
    from rasterio._err import CPLE_BaseError  # raised by transform, exported nowhere else
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    if not len(points):
        return points
    try:
        found = np.stack(transform(source, target, points[:, 0], points[:, 1])[:2], -1)
    except (RasterioError, CPLE_BaseError, ValueError):
        return None
    return found if np.isfinite(found).all() else None
