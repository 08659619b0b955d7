"""What a pixel measures on the ground, or a voxel in the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segfocal.io.base import Scan, grid_of

__all__ = ["distance_unit", "pixel_measure", "row_hectares"]


def pixel_measure(scan: Scan) -> tuple[str, float] | None:
    """Return the unit and the size of a pixel: hectares, or millilitres for a volume.

    None where it is not known or differs from pixel to pixel: arrays, scenes without a
    projected CRS. See :func:`row_hectares` for those in degrees.
    """
    scan = grid_of(scan)
    affine = getattr(scan, "affine", None)
    if affine is not None and scan.resolution is not None:
        # The resolution is in millimetres whatever the file's unit; the affine may be oblique.
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        skew = abs(float(np.linalg.det(affine[:3, :3] / lengths)))
        return "millilitres", skew * float(np.prod(scan.resolution)) / 1000
    crs, transform = getattr(scan, "crs", None), getattr(scan, "transform", None)
    if crs is None or transform is None or transform.is_identity or not crs.is_projected:
        return None
    _, metres = crs.linear_units_factor
    return "hectares", abs(float(transform.determinant)) * metres**2 / 10_000


def row_hectares(scan: Scan) -> NDArray[np.float64] | None:
    """Return the size of a pixel in each row of a scene in longitude and latitude, ``(rows,)``.

    None for other scans, and where rows do not run along parallels.
    """
    scan = grid_of(scan)
    crs, transform = getattr(scan, "crs", None), getattr(scan, "transform", None)
    if crs is None or transform is None or transform.is_identity or not crs.is_geographic:
        return None
    if transform.b or transform.d:
        return None
    from segfocal.io.ground import ground_of

    return ground_of(scan).row_hectares()


def distance_unit(scan: Scan) -> str:
    """Return the unit of a scan's resolution: mm of volumes, the CRS's of scenes, or pixels."""
    scan = grid_of(scan)
    if getattr(scan, "affine", None) is not None:
        return "mm"
    crs, transform = getattr(scan, "crs", None), getattr(scan, "transform", None)
    if transform is None or transform.is_identity:
        return "pixels"
    if crs is None:
        return "units of the transform"
    if crs.is_geographic:
        return "degrees"
    unit = str(crs.linear_units)
    return "m" if unit in ("metre", "meter") else unit
