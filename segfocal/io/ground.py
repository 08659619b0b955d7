"""The grid of a scene on the ground: where pixel corners lie, and the area that pixels cover."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.io.base import Scan, grid_of

__all__ = ["Ground", "ground_of", "unit_of_pixels"]

_ELLIPSOID = re.compile(r'(?:ELLIPSOID|SPHEROID)\["[^"]*",\s*([0-9.eE+]+),\s*([0-9.eE+]+)')


@dataclass(frozen=True)
class Ground:
    """Where the pixels of a scene lie.

    Attributes:
        crs: Coordinate reference system (rasterio's), or None.
        transform: Affine of the file's row order.
        rows: Rows of the scene.
        flip_rows: Whether row 0 of the scan is the file's last.
    """

    crs: Any
    transform: Any
    rows: int
    flip_rows: bool

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are degrees of longitude and latitude."""
        return self.crs is not None and self.crs.is_geographic

    @property
    def hectares_known(self) -> bool:
        """Whether areas are known in hectares; else they are in squared units of the CRS."""
        return self.crs is not None and (self.crs.is_projected or self.is_geographic)

    def coordinates(self, corners: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the coordinates ``(n, 2)`` of corners ``(n, 2)``, each column and row."""
        col, row = corners.T
        if self.flip_rows:
            row = self.rows - row
        grid = self.transform  # summed up in GDAL's order, for the same bits
        x = (grid.c + col * grid.a) + row * grid.b
        y = (grid.f + col * grid.d) + row * grid.e
        return np.stack([x, y], -1)

    def areas(
        self,
        pixels: NDArray[np.int64],
        xy: NDArray[np.float64],
        ring_of_corner: NDArray[np.int64],
        piece_of_ring: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the areas of pieces: hectares where known, else squared units of the CRS.

        Geographic coordinates: on the ellipsoid, with sides that are straight in longitude
        and latitude, as those of pixels are.

        Args:
            pixels: Pixels of each piece.
            xy: Coordinates of corners.
            ring_of_corner, piece_of_ring: Which ring a corner, which piece a ring belongs to.
        """
        if not self.is_geographic:
            size = abs(self.transform.determinant)
            if self.hectares_known:
                size *= self.crs.linear_units_factor[1] ** 2 / 10_000
            return pixels * size
        area_of = self._area_below()
        first = np.searchsorted(ring_of_corner, np.arange(len(piece_of_ring)))
        after = np.arange(1, len(xy) + 1)
        after[np.append(first[1:], len(xy)) - 1] = first
        lon, lat = np.radians(xy).T
        # Simpson's rule along each side; exact along parallels and meridians.
        middle = area_of((lat + lat[after]) / 2)
        below = area_of(lat)
        strip = (lon[after] - lon) * (below + 4 * middle + below[after]) / 6
        rings = np.add.reduceat(strip, first)
        return abs(np.bincount(piece_of_ring, rings, len(pixels))) / 10_000

    def row_hectares(self) -> NDArray[np.float64]:
        """Return the size of a pixel in each row, of a grid along parallels, ``(rows,)``."""
        edges = np.stack([np.zeros(self.rows + 1, np.int64), np.arange(self.rows + 1)], -1)
        lat = np.radians(self.coordinates(edges)[:, 1])
        below = self._area_below()(lat)
        return abs(np.diff(below) * np.radians(self.transform.a)) / 10_000

    def _area_below(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        return _Ellipsoid.of(self.crs).area_below


@dataclass(frozen=True)
class _Ellipsoid:
    """Semi-axes' data of an ellipsoid of revolution: a in metres, squared eccentricity."""

    a: float
    e2: float

    @classmethod
    def of(cls, crs: Any) -> _Ellipsoid:
        match = _ELLIPSOID.search(crs.to_wkt(version="WKT2_2019"))
        a, inverse = (6378137.0, 298.257223563) if match is None else map(float, match.groups())
        f = 1 / inverse if inverse else 0.0
        return cls(a, f * (2 - f))

    def area_below(self, lat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the area in m² between the equator and latitudes, per radian of longitude.

        Snyder, Map Projections: A Working Manual (1987), equation 3-12.
        """
        sin = np.sin(lat)
        if self.e2 == 0:
            return self.a**2 * sin
        e = np.sqrt(self.e2)
        return (
            self.a**2 * (1 - self.e2) / 2 * (sin / (1 - self.e2 * sin**2) + np.arctanh(e * sin) / e)
        )


def ground_of(scan: Any) -> Ground:
    """Return the grid of a scene: a RasterScan, or a region of one."""
    return Ground(scan.crs, scan.transform, scan.shape[0], scan.flip_rows)


def unit_of_pixels(scan: Scan) -> str | None:
    """Return the unit of a scan's resolution: degrees, metres, feet; None where it is not known."""
    grid: Any = grid_of(scan)
    if hasattr(grid, "canonical_affine"):
        return "millimetres"
    crs = getattr(grid, "crs", None)
    if crs is None or grid.transform.is_identity:
        return None
    from rasterio.errors import CRSError

    try:
        _, factor = crs.units_factor
    except CRSError:
        return None
    # By size and not by name: Meter is metre, and a survey foot differs in the sixth digit.
    known = [("degrees", np.pi / 180)] if crs.is_geographic else [("metres", 1.0), ("feet", 0.3048)]
    for name, size in known:
        if abs(factor / size - 1) < 1e-4:
            return name
    return f"units of {factor:.6g} {'radians' if crs.is_geographic else 'metres'}"
