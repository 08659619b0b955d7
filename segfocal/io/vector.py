"""Reading vector files, through pyogrio and shapely, which are an extra of segfocal's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import OutputError, ScanError, ScanNotFoundError
from segfocal.io.formats import is_local_path
from segfocal.io.network import check_polygons_stay_local

__all__ = ["read_polygons", "require_vector_libraries"]


def require_vector_libraries(what: str) -> None:
    """Raise ``OutputError`` unless pyogrio and shapely are installed."""
    try:
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401
    except ImportError as error:
        raise OutputError(
            f"{what}: needs {error.name}, which is not installed: pip install 'segfocal[vector]'"
        ) from error


def read_polygons(path: str) -> tuple[list[NDArray[np.float64]], str | None]:
    """Read all polygons of a file as one area.

    Returns:
        Closed rings ``(corners, 2)``, x before y, that do not cross and by the even-odd rule
        hold what is in any of the polygons; and the CRS, or None.

    Raises:
        ScanError: There is no such file, it cannot be read, has several layers or holds no
            polygons.
    """
    require_vector_libraries(f"area {path}")
    import pyogrio
    import shapely
    from pyogrio import raw

    check_polygons_stay_local(path)
    if is_local_path(path) and not Path(path).exists():
        raise ScanNotFoundError(
            f"area {path}: no such file; expected one, or bounds xmin,ymin,xmax,ymax"
        )
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            raise ScanError(
                f"area {path}: has {len(layers)} layers with geometry"
                f"{': ' if layers else ''}{', '.join(layers)}; expected one: copy it to a file of "
                "its own (ogr2ogr)"
            )
        about, _, found, _ = raw.read(path, layer=layers[0], columns=[], force_2d=True)
        shapes = shapely.from_wkb(found)
    except (RuntimeError, shapely.errors.ShapelyError) as error:
        raise ScanError(
            f"area {path}: cannot be read ({' '.join(str(error).split())}); expected bounds "
            "xmin,ymin,xmax,ymax or a file with polygons"
        ) from error
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    kinds = sorted({shape.geom_type for shape in shapes})
    if not kinds or set(kinds) - {"Polygon", "MultiPolygon"}:
        raise ScanError(
            f"area {path}: holds {', '.join(kinds) or 'no geometry'}; expected polygons"
        )
    together = shapely.union_all(shapely.make_valid(shapes))
    parts = shapely.get_parts(together)
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    if not shapely.area(polygons).any():
        raise ScanError(f"area {path}: its polygons cover nothing; expected some with an area")
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]
    return rings, about["crs"]
