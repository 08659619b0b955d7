"""Layers of vector files as label sources: shapes, codes of their classes, and drawing order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io.network import check_polygons_stay_local
from segfocal.io.polygon_places import shapes_in_pixels, whole_areas

__all__ = ["attribute_values", "drawn_layer"]

_ORDERS = ("file", "area", "classes")


def drawn_layer(
    name: str,
    grid: Any,
    values: Mapping[str, int],
    *,
    field: str | None = None,
    layer: str | None = None,
    order: str = "file",
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the shapes of a layer in pixels of a scene, and their codes, in drawing order.

    Args:
        name: The vector file.
        grid: The scene.
        values: Codes by the text of ``field``; without one, by ``""``.
        field: Attribute that tells the class.
        layer: Name of the layer; the first when left out.
        order: ``"file"``, ``"area"`` (of whole shapes, as they are in the file), ``"classes"`` or
            an attribute: the last shape is on top.

    Raises:
        ScanError: See :class:`~segfocal.io.vectors.VectorScan`.
    """
    wanted = [one for one in (field, order) if one not in (None, *_ORDERS)]
    shapes, areas, columns = _read(name, layer, wanted, grid)
    codes = _codes(name, field, columns, values, len(shapes))
    rank = _rank(order, areas, columns, codes, list(values.values()))
    return shapes[rank], codes[rank]


def _read(
    name: str, layer: str | None, columns: list[str], grid: Any
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Return shapes in pixels of the scene, columns first, areas of the whole and attributes."""
    crs, wkb, meta = _layer(name, layer, columns)
    import shapely

    try:
        shapes = np.asarray(shapely.from_wkb(wkb), object)
    except shapely.GEOSException as error:
        raise ScanError(f"{name}: holds a shape that cannot be read ({error})") from error
    kept = np.array([shape is not None and not shape.is_empty for shape in shapes], np.bool_)
    shapes = shapes[kept]
    areas = whole_areas(crs, shapes)
    if not len(shapes):
        return shapes, areas, {column: values[kept] for column, values in meta.items()}
    shapes, near = shapes_in_pixels(name, crs, shapes, grid)
    return shapes, areas[near], {column: values[kept][near] for column, values in meta.items()}


def _layer(
    name: str, layer: str | None, columns: list[str] | None
) -> tuple[str | None, NDArray[Any], dict[str, NDArray[Any]]]:
    """Return CRS, shapes as WKB and attributes (None: all) of a layer."""
    try:
        import pyogrio
        import pyogrio.errors
        import shapely  # noqa: F401
    except ImportError as error:
        raise ScanError(
            f"{name}: reading polygons needs pyogrio and shapely; pip install 'segfocal[vector]'"
        ) from error
    check_polygons_stay_local(name)
    if not os.path.exists(name):
        raise ScanNotFoundError(f"{name}: no such file; check the path")
    try:
        layers = [str(row[0]) for row in pyogrio.list_layers(name)]
        if not layers or (layer is not None and layer not in layers):
            raise ScanError(f"{name}: no layer {layer!r}; expected one of {', '.join(layers)}")
        chosen = layer or layers[0]
        info = pyogrio.read_info(name, layer=chosen)
        fields = [str(field) for field in info["fields"]]
        missing = [column for column in columns or () if column not in fields]
        if missing:
            raise ScanError(
                f"{name}: no attribute {missing[0]!r}; expected one of {', '.join(fields)}"
            )
        _, _, wkb, data = pyogrio.raw.read(name, layer=chosen, columns=columns)
    except (pyogrio.errors.DataSourceError, OSError, RuntimeError) as error:
        raise ScanError(
            f"{name}: not a vector file that GDAL can read ({' '.join(str(error).split())}); "
            "expected a GeoPackage, GeoJSON or Shapefile"
        ) from error
    order = fields if columns is None else [field for field in fields if field in columns]
    shapes = np.empty(0, object) if wkb is None else wkb
    return info["crs"], shapes, dict(zip(order, data, strict=True))


def _codes(
    name: str,
    field: str | None,
    columns: dict[str, NDArray[Any]],
    values: Mapping[str, int],
    count: int,
) -> NDArray[np.int32]:
    if field is None:
        return np.full(count, values[""], np.int32)
    texts = [_text(value) for value in columns[field]]
    unknown = sorted({text for text in texts if text not in values})
    if unknown:
        shown = ", ".join(repr(text) for text in unknown[:8])
        raise ScanError(
            f"{name}: {field} holds {shown}, which no class stands for; expected "
            f"{', '.join(repr(text) for text in values)}: add it to a class's from"
        )
    return np.array([values[text] for text in texts], np.int32)


def _text(value: Any) -> str:
    """Return an attribute as text: 3.0, as files without whole numbers hold it, is ``3``."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _rank(
    order: str,
    areas: NDArray[np.float64],
    columns: dict[str, NDArray[Any]],
    codes: NDArray[np.int32],
    values: list[int],
) -> NDArray[np.intp]:
    """Return the order in which shapes are drawn, the last on top."""
    if order == "file" or not len(areas):
        return np.arange(len(areas))
    if order == "area":
        return np.argsort(-areas, kind="stable")
    if order == "classes":
        return np.argsort([values.index(code) for code in codes], kind="stable")
    column = columns[order]
    keys = [(value is not None and value == value, value) for value in column]
    try:
        ranked = sorted(range(len(keys)), key=lambda i: keys[i] if keys[i][0] else (False,))
    except TypeError:
        ranked = sorted(range(len(keys)), key=lambda i: str(keys[i][1]))
    return np.array(ranked, np.intp)


def attribute_values(path: str | os.PathLike[str], most: int = 60) -> dict[str, list[str]]:
    """Return the texts of each attribute of a vector file's first layer, at most ``most``.

    Raises:
        ScanError: See :class:`VectorScan`.
    """
    name = os.fspath(path)
    _, _, columns = _layer(name, None, None)
    found = {}
    for column, values in columns.items():
        texts = sorted({_text(value) for value in values})
        if texts and len(texts) <= most:
            found[column] = texts
    return found
