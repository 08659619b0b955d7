"""Labels that lie on another grid, read on the grid of a scan: nearest, window by window.

The centre of each pixel is looked up in the labels, so no value is invented. Between two
coordinate systems the place is computed on a lattice of every 32nd pixel and interpolated
between, which for map projections is right to well below a hundredth of a pixel; the lattice
is anchored at the scan's origin, so that a value does not depend on the window.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.io.channels import channel_indices
from segfocal.io.grids import check_same_grid
from segfocal.types import Patch, Window, window_shape

__all__ = ["NearestScan", "labels_on_grid"]

LATTICE = 32
MAX_BOX = 2**24
"""Pixels of the labels that are read at once."""

SAME_PLACE = 2.0
"""Pixels that two CRS may lie apart and still count as one that is tagged differently."""

HALF = 0.5
"""Part of labels of a scan's shape below which they hardly were made for it, where they say."""

Coordinates = tuple[NDArray[np.float64], ...]


def labels_on_grid(scan: Scan, labels: Scan) -> Scan:
    """Return labels on the grid of a scan: as they are, or read nearest with a warning.

    A difference in the CRS's datum alone, with equal transforms, is only warned of. Where one
    of two scenes has no georeference and their shapes are equal, as of a GeoTIFF and a PNG, they
    are taken to lie pixel on pixel, with a warning.

    Raises:
        ScanError: The grids differ and one has no georeference, or they do not touch.
    """
    grid, other = grid_of(scan), grid_of(labels)
    try:
        # Equal numbers in two CRS may be different places.
        if not _crs_far_apart(grid, other):
            check_same_grid(scan, labels)
            return labels
    except ScanError:
        if _one_is_bare(grid, other) and scan.shape == labels.shape:
            bare, placed = (labels, scan) if _is_bare(other) else (scan, labels)
            warnings.warn(
                f"{bare.name}: has no georeference, and the shape of {placed.name}; they are taken "
                "to lie pixel on pixel",
                SegfocalWarning,
                stacklevel=2,
            )
            return labels
        if not (_has_place(grid) and _has_place(other)):
            raise
    view = NearestScan(labels, grid)
    text = f"lies on another grid than {scan.name} and is read there, nearest"
    if hasattr(grid, "canonical_affine") and scan.shape == labels.shape:
        share = _share_on(grid, other)
        if share < HALF:
            text = (
                f"has the shape of {scan.name}, and {share:.0%} of its voxels fall on it; is its "
                "affine right? It is read where the affine says, nearest"
            )
    warnings.warn(f"{labels.name}: {text}", SegfocalWarning, stacklevel=2)
    return view


def _is_bare(grid: Any) -> bool:
    return bool(grid.transform.is_identity) and not grid.gcps[0] and grid.rpcs is None


def _one_is_bare(grid: Any, other: Any) -> bool:
    """Return whether one of two raster files lies nowhere, and rows are read as they are stored.

    Rows of a south-up file are turned, and nothing tells whether those of the other should be.
    """
    return all(hasattr(each, "gcps") and not each.flip_rows for each in (grid, other)) and _is_bare(
        grid
    ) != _is_bare(other)


def _share_on(grid: Any, labels: Any) -> float:
    """Return which part of the labels falls on the grid."""
    coarse = [np.linspace(0, length - 1, min(length, LATTICE + 1)) for length in labels.shape]
    return float(_inside(_mapping(labels, grid, labels.name)(coarse), grid.shape).mean())


class NearestScan:
    """A scan on the grid of another, the nearest pixel for each.

    Pixels that the scan does not reach are not valid.

    Args:
        source: The scan; it is closed with this one.
        grid: A scene or volume that lies where this one is to be read.

    Raises:
        ScanError: The two do not touch, or PROJ cannot go from one CRS to the other.
    """

    def __init__(self, source: Scan, grid: Scan) -> None:
        self._source, self.grid = source, grid
        self.name, self.shape = source.name, grid.shape
        self.channels, self.channels_are_named = source.channels, source.channels_are_named
        self.channel_note = source.channel_note
        self.dtype: np.dtype = source.dtype
        self.slow_axis, self.resolution = grid.slow_axis, grid.resolution
        self.files: tuple[str, ...] = tuple(getattr(source, "files", ()))
        self._to_source = _mapping(grid, grid_of(source), source.name)
        coarse = [np.linspace(0, length - 1, 33) for length in self.shape]
        places = self._to_source(coarse)
        if not _inside(places, source.shape).any() and not _between(places, source.shape):
            raise ScanError(
                f"{source.name}: does not touch {grid.name}; expected labels of the same place"
            )

    def georeference(self) -> dict[str, Any]:
        """Return that of the grid."""
        return self.grid.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        check_window(window, self.shape)
        chosen = channel_indices(channels, len(self.channels))
        sides = window_shape(window)
        values = np.zeros((*sides, len(chosen)), self.dtype)
        valid = np.zeros(values.shape, np.bool_)
        if values.size:
            self._fill(values, valid, window, chosen)
        return Patch(values, valid)

    def _fill(
        self,
        values: NDArray[np.generic],
        valid: NDArray[np.bool_],
        window: Window,
        chosen: list[int],
    ) -> None:
        places = self._places(window)
        inside = _inside(places, self._source.shape)
        if not inside.any():
            return
        index = [np.floor(np.where(inside, place, 0)).astype(np.int64) for place in places]
        box = tuple(slice(int(axis[inside].min()), int(axis[inside].max()) + 1) for axis in index)
        sides = window_shape(window)
        longest = int(np.argmax(sides))
        if np.prod(window_shape(box), dtype=float) > MAX_BOX and sides[longest] > 1:
            middle = sides[longest] // 2
            for part in (slice(0, middle), slice(middle, sides[longest])):
                cut = [slice(None)] * len(sides)
                cut[longest] = part
                start = window[longest].start
                half = list(window)
                half[longest] = slice(start + part.start, start + part.stop)
                self._fill(values[tuple(cut)], valid[tuple(cut)], tuple(half), chosen)
            return
        patch = self._source.read(box, chosen)
        at = tuple(axis[inside] - side.start for axis, side in zip(index, box, strict=True))
        values[inside], valid[inside] = patch.values[at], patch.valid[at]

    def _places(self, window: Window) -> Coordinates:
        """Return where in the source each pixel's centre lies, as fractional indices."""
        knots = [
            np.arange(side.start // LATTICE, (side.stop - 1) // LATTICE + 2) * float(LATTICE)
            for side in window
        ]
        lattice = self._to_source(knots)
        for axis, (side, knot) in enumerate(zip(window, knots, strict=True)):
            at = np.arange(side.start, side.stop, dtype=np.float64)
            low = np.minimum(((at - knot[0]) // LATTICE).astype(int), len(knot) - 2)
            share = (at - knot[low]) / LATTICE
            share = share.reshape([-1 if k == axis else 1 for k in range(len(window))])
            lattice = tuple(
                np.take(place, low, axis) * (1 - share) + np.take(place, low + 1, axis) * share
                for place in lattice
            )
        return lattice

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _mapping(grid: Any, source: Any, name: str) -> Any:
    """Return a function from pixel indices along each axis to places in the source.

    Places are fractional indices: 2.0 to 3.0 is pixel 2.
    """
    if hasattr(grid, "canonical_affine"):
        matrix = np.linalg.inv(source.canonical_affine) @ grid.canonical_affine

        def volume(knots: list[NDArray[np.float64]]) -> Coordinates:
            mesh = np.meshgrid(*knots, indexing="ij")
            # NIfTI affines give the centre of a voxel for whole indices.
            return tuple(
                sum(matrix[i, k] * mesh[k] for k in range(3)) + matrix[i, 3] + 0.5 for i in range(3)
            )

        return volume

    from rasterio._err import CPLE_BaseError  # raised by transform, exported nowhere else
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    forward, back = canonical_transform(grid), ~canonical_transform(source)
    same = grid.crs == source.crs

    def scene(knots: list[NDArray[np.float64]]) -> Coordinates:
        rows, cols = np.meshgrid(*[knot + 0.5 for knot in knots], indexing="ij")
        x = forward.a * cols + forward.b * rows + forward.c
        y = forward.d * cols + forward.e * rows + forward.f
        if not same:
            try:
                there = transform(grid.crs, source.crs, x.ravel(), y.ravel())
            except (RasterioError, CPLE_BaseError, ValueError) as error:
                text = " ".join(str(error).split())
                raise ScanError(
                    f"{name}: cannot be brought onto the grid of {grid.name} ({text}); expected "
                    "a CRS that PROJ knows"
                ) from error
            x, y = (np.asarray(values, np.float64).reshape(x.shape) for values in there[:2])
        return back.d * x + back.e * y + back.f, back.a * x + back.b * y + back.c

    return scene


def canonical_transform(grid: Any) -> Any:
    """Return the affine of a scene's north-up rows, which ``read`` returns."""
    file = grid.transform
    if not grid.flip_rows:
        return file
    from rasterio.transform import Affine

    # Only grids without rotation are flipped.
    return Affine(file.a, 0, file.c, 0, -file.e, file.f + file.e * grid.shape[0])


def on_ground(affine: Any, col: float, row: float) -> tuple[float, float]:
    """Return x and y of a place in pixels."""
    return (
        affine.a * col + affine.b * row + affine.c,
        affine.d * col + affine.e * row + affine.f,
    )


def _inside(places: Coordinates, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # what PROJ cannot place is infinite
        tests = [(p >= 0) & (p < n) for p, n in zip(places, shape, strict=True)]
    return np.logical_and.reduce(tests)


def _between(places: Coordinates, shape: tuple[int, ...]) -> bool:
    """Return whether the source may lie between the points that were tried."""
    return all(
        np.nanmin(np.where(np.isfinite(p), p, np.nan), initial=np.inf) < n
        and np.nanmax(np.where(np.isfinite(p), p, np.nan), initial=-np.inf) >= 0
        for p, n in zip(places, shape, strict=True)
    )


def _has_place(grid: Any) -> bool:
    if hasattr(grid, "canonical_affine"):
        return True
    return getattr(grid, "crs", None) is not None and not grid.transform.is_identity


def _crs_far_apart(grid: Any, other: Any) -> bool:
    """Return whether the same numbers in the two CRS are pixels apart."""
    if not all(hasattr(each, "crs") and _has_place(each) for each in (grid, other)):
        return False
    if grid.crs == other.crs:
        return False
    try:
        (row,), (col,) = (
            place.ravel()
            for place in _mapping(grid, other, other.name)(
                [np.array([length / 2]) for length in grid.shape]
            )
        )
    except ScanError:
        return False
    middle = (grid.shape[1] / 2 + 0.5, grid.shape[0] / 2 + 0.5)
    here = on_ground(~canonical_transform(other), *on_ground(canonical_transform(grid), *middle))
    return not np.hypot(row - here[1], col - here[0]) < SAME_PLACE
