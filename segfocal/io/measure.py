"""What a pixel measures on the ground, or a voxel in the body."""

from __future__ import annotations

import numpy as np

from segfocal.io.base import Scan

__all__ = ["pixel_measure"]


def pixel_measure(scan: Scan) -> tuple[str, float] | None:
    """Return the unit and the size of a pixel: hectares, or millilitres for a volume.

    None where it is not known or differs from pixel to pixel: arrays, scenes without a
    projected CRS.
    """
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
