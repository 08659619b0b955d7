"""Polygons of a label map: what lies connected and shows the same class is one feature.

The label map is read by strips, twice; features are written as their pieces end. Memory
follows from the largest pieces and not from the scene, unless the outlines are simplified:
neighbours are simplified together then, and all polygons are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import OutputError
from segfocal.io.base import Scan, grid_of
from segfocal.io.geotiff import RasterScan
from segfocal.io.ground import Ground, ground_of
from segfocal.io.pending import PendingOutput, writing
from segfocal.io.polygons_writer import SUFFIXES, PolygonsWriter
from segfocal.io.qgis_style import polygon_style
from segfocal.io.vector import require_vector_libraries
from segfocal.outlines import Outlines, trace

if TYPE_CHECKING:
    from segfocal.card import LabelClass

__all__ = ["check_polygons", "polygonize"]

STRIP_PIXELS = 2**20
DEFAULT_MEMORY = 2 * 2**30

_PIECE_BYTES, _CORNER_BYTES = 64, 160  # of a table's row; of a corner and what simplifying takes


@dataclass
class _Memory:
    """What may be held."""

    limit: int

    def check(self, pieces: int, corners: int = 0) -> None:
        needed = pieces * _PIECE_BYTES + corners * _CORNER_BYTES
        if needed > self.limit:
            what = f"polygons of at least {pieces} pieces"
            what += f" with {corners} corners, all of which simplifying holds" if corners else ""
            raise OutputError(
                f"{what}: about {needed / 1e6:.0f} MB are needed so far and {self.limit / 1e6:.0f} "
                "MB allowed; raise max_memory, or have fewer pieces with min_size"
            )


def check_polygons(path: Path, scan: Scan, *, simplify: float | None, area_in_metres: bool) -> None:
    """Raise unless polygons of a scan's labels can be written to a path.

    Args:
        path: The vector file.
        scan: The scan.
        simplify: Tolerance, or None.
        area_in_metres: Whether a minimum area in square metres is asked for.

    Raises:
        OutputError: Of a volume, of a scene without a grid in its CRS, for an unknown suffix
            or without the libraries.
    """
    require_vector_libraries(str(path))
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: no format for polygons; expected {', '.join(SUFFIXES)}")
    if len(scan.shape) != 2:
        raise OutputError(f"{path}: {scan.name} is a volume; polygons are for scenes")
    if simplify is not None and not 0 < simplify < float("inf"):
        raise OutputError(f"simplify {simplify}; expected a tolerance above 0, in units of the CRS")
    scan = grid_of(scan)
    if isinstance(scan, RasterScan):
        if scan.transform.is_identity and (scan.gcps[0] or scan.rpcs is not None):
            kind = "ground control points" if scan.gcps[0] else "RPCs"
            raise OutputError(
                f"{path}: {scan.name} lies on the ground by {kind} only, where pixels have no "
                "straight sides; warp the label map first (gdalwarp), or the scene"
            )
        ground = ground_of(scan)
        if ground.crs is None and path.suffix.lower() == ".geojson":
            raise OutputError(
                f"{path}: GeoJSON is in longitude and latitude, and {scan.name} has no CRS; "
                "expected .gpkg or .fgb, or a scene with a CRS"
            )
        if area_in_metres and not ground.hectares_known:
            raise OutputError(
                f"{path}: {scan.name} has no CRS that tells metres; give min_area in pixels"
            )


def polygonize(
    labels: Path,
    pending: PendingOutput,
    classes: Sequence[LabelClass],
    *,
    simplify: float | None = None,
    min_area: tuple[float, bool] | None = None,
    max_memory: int | None = None,
) -> int:
    """Write the polygons of a label map to a vector file, and return how many there are.

    Args:
        labels: The label map, a GeoTIFF.
        pending: The entered pending output; the file is left at ``pending.main``.
        classes: The classes of which there are to be polygons.
        simplify: Tolerance in units of the CRS; None leaves the sides of pixels.
        min_area: Polygons below are left out: a number of pixels, or with True of square
            metres.
        max_memory: Bytes that tables and what is simplified may take; 2 GiB when left out.

    Raises:
        OutputError: The file cannot be written, or it takes more memory.
    """
    memory = _Memory(DEFAULT_MEMORY if max_memory is None else max_memory)
    names = {label.value: label.name for label in classes}
    with RasterScan(labels) as scan:
        ground = ground_of(scan)
        noded = simplify is not None or pending.destination.suffix.lower() == ".geojson"
        batches = trace(
            lambda: _strips(scan, list(names)), _nothing(names), noded=noded, check=memory.check
        )
        area = "area_ha" if ground.hectares_known else "area"
        crs = None if ground.crs is None else ground.crs.to_wkt(version="WKT2_2019")
        fields = {"value": np.int32, "name": object, area: np.float64}
        writer = PolygonsWriter(pending, crs, fields, polygon_style(classes))
        with writing(pending.destination):
            features: Iterator[_Features] = (_features(each, ground) for each in batches)
            if simplify is not None:
                features = _simplified(features, simplify, memory)
            for polygons, values, pixels, areas in features:
                kept = _large_enough(pixels, areas, min_area)
                shown = np.array([names[value] for value in values[kept].tolist()], object)
                writer.write(polygons[kept], values[kept].astype(np.int32), shown, areas[kept])
        writer.finish()
    return writer.features


_Features = tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Polygons, class values, pixels and areas."""


def _nothing(names: Mapping[int, str]) -> int:
    """Return a value that stands for what has no polygon."""
    return max(names) + 1


def _strips(scan: RasterScan, values: list[int]) -> Iterator[NDArray[np.unsignedinteger]]:
    rows, cols = scan.shape
    step = max(1, STRIP_PIXELS // cols)
    for top in range(0, rows, step):
        patch = scan.read((slice(top, min(top + step, rows)), slice(0, cols)))
        strip, valid = patch.values[..., 0].astype(np.uint32), patch.valid[..., 0]
        yield np.where(valid & np.isin(strip, values), strip, np.uint32(max(values) + 1))


def _features(outlines: Outlines, ground: Ground) -> _Features:
    import shapely

    xy = ground.coordinates(outlines.corners)
    rings = shapely.linearrings(xy, indices=outlines.ring_of_corner)
    polygons = shapely.polygons(rings, indices=outlines.piece_of_ring)
    areas = ground.areas(outlines.pixels, xy, outlines.ring_of_corner, outlines.piece_of_ring)
    return polygons, outlines.values, outlines.pixels, areas


def _simplified(
    features: Iterator[_Features], tolerance: float, memory: _Memory
) -> Iterator[_Features]:
    """Simplify all polygons together, so that neighbours keep what they share in common."""
    import shapely

    held: list[_Features] = []
    pieces = corners = 0
    for batch in features:
        held.append(batch)
        pieces += len(batch[0])
        corners += int(shapely.get_num_coordinates(batch[0]).sum())
        memory.check(pieces, corners)
    if held:
        polygons, *others = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield shapely.coverage_simplify(polygons, tolerance), *others


def _large_enough(
    pixels: NDArray[np.int64], areas: NDArray[np.float64], min_area: tuple[float, bool] | None
) -> NDArray[np.bool_]:
    if min_area is None:
        return np.ones(len(pixels), np.bool_)
    least, in_metres = min_area
    # A hair below: 0.09 ha are one pixel of 30 m, whatever their product is in binary.
    return areas * 10_000 >= least * (1 - 1e-9) if in_metres else pixels >= least
