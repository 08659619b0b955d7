"""Distances between the surfaces of what is there and what was found.

A *boundary pixel* of a class is a pixel of it with a face neighbour that is known to be of
another class. The edge of the scan counts as another class, as in MONAI and medpy; pixels of
which nothing is known (ignored, no data) do not, or the outlines of the labelled area would pass
for agreement. Distances are between centres of boundary pixels.

Points are found block by block, and nearest ones with a tree: memory goes with the surface, not
with the volume.

A distance is that of whole steps: positions are subtracted as whole numbers and multiplied by the
spacing then, or two pixels side by side would be more than a pixel apart, by rounding, in one place
and less in another. A distance is within a tolerance that it exceeds by at most
:data:`ROUNDING` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = [
    "ROUNDING",
    "SurfaceDistances",
    "boundary_pixels",
    "distances_between",
    "surface_distances",
]

BYTES_PER_POINT = 200
"""About what a boundary pixel takes: coordinates as integers and floats, tree, distance."""

ROUNDING = 1e-6
"""Share of a tolerance by which a distance may be above it and is within it still: far above the
rounding of a float32 header (6e-8), far below any difference between distances of whole pixels."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, in units of the spacing.

    With both surfaces empty every measure is NaN. With one of them empty the distances are
    infinite and the surface Dice is 0.

    Attributes:
        to_found: From each boundary pixel of the reference to the nearest one that was found.
        to_reference: The other way round.
    """

    to_found: NDArray[np.float64]
    to_reference: NDArray[np.float64]

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Return the greater of the percentiles of both directions: HD95, or HD with 100."""
        if self._neither:
            return float("nan")
        if self._one_empty:
            return float("inf")
        both = (self.to_found, self.to_reference)
        return max(float(np.percentile(distances, percentile)) for distances in both)

    def surface_dice(self, tolerance: float) -> float:
        """Return NSD: the share of all boundary pixels within a tolerance of the other surface.

        Nikolov et al. 2021, with boundary pixels in place of surface elements. A distance that is
        equal to the tolerance is within it, see :data:`ROUNDING`.

        Args:
            tolerance: In units of the spacing, 0 or more.
        """
        if self._neither:
            return float("nan")
        within = sum(
            int((distances <= tolerance * (1 + ROUNDING)).sum())
            for distances in (self.to_found, self.to_reference)
        )
        return within / (len(self.to_found) + len(self.to_reference))

    def average(self) -> float:
        """Return the average symmetric surface distance: the mean over all boundary pixels."""
        if self._neither:
            return float("nan")
        return float(np.concatenate([self.to_found, self.to_reference]).mean())

    @property
    def _neither(self) -> bool:
        return not len(self.to_found) and not len(self.to_reference)

    @property
    def _one_empty(self) -> bool:
        return not len(self.to_found) or not len(self.to_reference)


def boundary_pixels(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which pixels are boundary pixels of their own class.

    Args:
        labels: Class indices of any number of axes; negative ones are unknown. What lies beyond
            the array counts as another class.
    """
    boundary = np.zeros(labels.shape, np.bool_)
    for axis in range(labels.ndim):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        differ = labels[ahead] != labels[behind]
        differ &= (labels[ahead] >= 0) & (labels[behind] >= 0)
        boundary[ahead] |= differ
        boundary[behind] |= differ
        if labels.shape[axis]:
            boundary[(slice(None),) * axis + ([0, -1],)] = True
    return boundary & (labels >= 0)


def distances_between(
    reference: NDArray[np.integer], found: NDArray[np.integer], spacing: Sequence[float]
) -> SurfaceDistances:
    """Return the distances between two sets of pixels.

    They do not depend on where the sets lie, only on how they lie to each other.

    Args:
        reference: Positions in whole pixels, ``(n, axes)``.
        found: Positions in whole pixels, ``(m, axes)``.
        spacing: Pixel size along each axis.
    """
    if not len(reference) or not len(found):
        return SurfaceDistances(np.full(len(reference), np.inf), np.full(len(found), np.inf))
    # Which of two neighbours is nearer may be a matter of rounding: it is the same everywhere.
    origin = np.minimum(reference.min(0), found.min(0))
    here, there = np.subtract(reference, origin), np.subtract(found, origin)
    sides = np.asarray(spacing, np.float64)
    return SurfaceDistances(_nearest(here, there, sides), _nearest(there, here, sides))


def surface_distances(
    reference: NDArray[np.bool_], found: NDArray[np.bool_], spacing: Sequence[float] | None = None
) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    Args:
        reference: Boolean mask of two or three axes.
        found: Boolean mask of the same shape.
        spacing: Pixel size along each axis; left out, 1.

    Raises:
        ValueError: The shapes differ.
    """
    if reference.shape != found.shape:
        raise ValueError(
            f"masks of shapes {reference.shape} and {found.shape}; expected equal ones"
        )
    sets = []
    for mask in (reference, found):
        mask = np.asarray(mask, bool)
        box = _bounding_box(mask)
        # A margin, or the edge of the box would pass for the edge of the scan.
        margin = tuple(
            slice(max(side.start - 1, 0), min(side.stop + 1, length))
            for side, length in zip(box, mask.shape, strict=True)
        )
        cropped = mask[margin].astype(np.int8)
        origin = [side.start for side in margin]
        sets.append(np.argwhere(boundary_pixels(cropped) & (cropped > 0)) + origin)
    return distances_between(sets[0], sets[1], spacing or (1.0,) * reference.ndim)


def _nearest(
    pixels: NDArray[np.integer], others: NDArray[np.integer], sides: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance from each pixel to the nearest of the others."""
    _, nearest = cKDTree(others * sides).query(pixels * sides)
    steps = pixels - others[nearest]
    distances: NDArray[np.float64] = np.linalg.norm(steps * sides, axis=-1)
    return distances


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    sides = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        sides.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0))
    return tuple(sides)
