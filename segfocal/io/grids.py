"""Whether two scans lie on the same grid."""

from __future__ import annotations

import warnings

import numpy as np

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io.base import Scan, grid_of

__all__ = ["check_same_grid", "lie_on_the_same_grid"]

TOLERANCE = 1e-3
"""Largest distance of corresponding corners, in pixels: headers are rounded differently."""


def check_same_grid(scan: Scan, other: Scan) -> None:
    """Raise unless two scans have the same shape and lie in the same place.

    A difference in the CRS alone, with equal transforms, is only warned of: tags that differ
    by a datum's realisation are common, and the pixels coincide. Scans without a
    georeference are compared by shape.

    Raises:
        ScanError: Shape, transform or affine differ.
    """
    if scan.shape != other.shape:
        raise ScanError(
            f"{other.name} has shape {other.shape}, {scan.name} has {scan.shape}; expected the "
            "same grid: resample one onto the other"
        )
    here, there = scan.georeference(), other.georeference()
    for key, mine, its in (
        ("transform", here.get("transform"), there.get("transform")),
        ("affine", _canonical_affine(scan), _canonical_affine(other)),
    ):
        if mine is None or its is None:
            continue
        apart = _corner_distance(_matrix(mine), _matrix(its), scan.shape)
        if apart > TOLERANCE:
            raise ScanError(
                f"{other.name} lies up to {apart:.3g} pixels away from {scan.name} ({key}s "
                "differ); expected the same grid: resample one onto the other"
            )
    if here.get("crs") and there.get("crs") and here["crs"] != there["crs"]:
        warnings.warn(
            f"{other.name} and {scan.name} have the same transform but different CRS tags; they "
            "are taken to coincide",
            SegfocalWarning,
            stacklevel=2,
        )


def lie_on_the_same_grid(scan: Scan, other: Scan) -> bool:
    """Return whether :func:`check_same_grid` would pass."""
    try:
        check_same_grid(scan, other)
    except ScanError:
        return False
    return True


def _canonical_affine(scan: Scan) -> np.ndarray | None:
    """Return the affine of what a volume's ``read`` returns: files may be stored otherwise."""
    return getattr(grid_of(scan), "canonical_affine", None)


def _matrix(numbers: np.ndarray | list[float]) -> np.ndarray:
    """Return an affine as a square matrix, from rasterio's six numbers or nibabel's rows."""
    values = np.asarray(numbers, np.float64)
    if values.ndim == 2:
        return values
    return np.vstack([values.reshape(2, 3), [0, 0, 1]])


def _corner_distance(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return how far, in pixels of ``a``, the corners of the two grids are apart."""
    reach = max(shape)
    corners = np.array(np.meshgrid(*[[0, reach]] * (len(a) - 1), indexing="ij"))
    points = np.vstack([corners.reshape(len(a) - 1, -1), np.ones(2 ** (len(a) - 1))])
    step = np.linalg.norm(a[:-1, :-1], axis=0).min()
    return float(np.abs(((a - b) @ points)[:-1]).max() / step)
