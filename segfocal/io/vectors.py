"""Vector labels: polygons drawn on the grid of a scene, window by window.

Needs the extra ``vector`` (pyogrio and shapely).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.io.channels import channel_indices
from segfocal.io.network import check_polygons_stay_local
from segfocal.io.polygon_places import shapes_in_pixels
from segfocal.types import Patch, Window, window_shape

__all__ = ["VECTOR_SUFFIXES", "VectorScan", "attribute_values"]

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")


class VectorScan:
    """Polygons of a file as a scan of one channel on the grid of a scene.

    A pixel has the value of the polygon on top that holds its centre. Lines and points count
    as the pixels they lie in. Polygons of the scene's place are held in memory. Those that its
    CRS has no place for are left out with a warning.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or FlatGeobuf.
        scene: An open scene with a CRS; not closed with this one.
        values: Value for each text of ``field``; without a field, the value for ``""``.
        field: Attribute that is looked up in ``values``.
        layer: Layer of the file; the first when left out.
        order: ``"file"``: later polygons lie on top; ``"area"``: smaller ones;
            ``"classes"``: those later in ``values``; else an attribute: higher ones.
        all_touched: Fill every pixel that a polygon touches.
        outside: Value of what no polygon covers; None: it is not valid.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file cannot be read, lacks an attribute, or holds a text that is not in
            ``values``; none of its shapes has a place in its CRS; pyogrio is not installed; the
            scene lies nowhere.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scan,
        values: Mapping[str, int],
        *,
        field: str | None = None,
        layer: str | None = None,
        order: str = "file",
        all_touched: bool = False,
        outside: int | None = None,
    ) -> None:
        self.name = os.fspath(path)
        grid: Any = grid_of(scene)
        if getattr(grid, "crs", None) is None:
            raise ScanError(
                f"{scene.name}: has no CRS, so the polygons of {self.name} have no place in it; "
                "expected a georeferenced scene"
            )
        self.grid, self.shape = grid, grid.shape
        self.channels: tuple[str, ...] = ("label",)
        self.channels_are_named = False
        self.channel_note = ""
        self.dtype: np.dtype = np.dtype(np.int32)
        self.slow_axis, self.resolution = grid.slow_axis, grid.resolution
        self.files: tuple[str, ...] = (self.name,)
        self._touched, self._outside = all_touched, outside
        wanted = [name for name in (field, order) if name not in (None, *_ORDERS)]
        shapes, columns = _read(self.name, layer, wanted, grid)
        codes = _codes(self.name, field, columns, values, len(shapes))
        rank = _rank(order, shapes, columns, codes, list(values.values()))
        import shapely

        self._shapes: NDArray[Any] | None = shapes[rank]
        self._codes = codes[rank]
        self._tree = shapely.STRtree(self._shapes)

    @property
    def count(self) -> int:
        """Number of polygons that touch the scene."""
        return len(self._codes)

    def georeference(self) -> dict[str, Any]:
        """Return that of the scene."""
        return self.grid.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        import shapely
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        if self._shapes is None:
            raise ValueError(f"{self.name}: the scan is closed")
        check_window(window, self.shape)
        chosen = channel_indices(channels, 1)
        sides = window_shape(window)
        none = np.iinfo(np.int32).min
        codes = np.full(sides, none, np.int32)
        if codes.size:
            rows, cols = window
            box = shapely.box(cols.start, rows.start, cols.stop, rows.stop)
            there = np.sort(self._tree.query(box))
            if len(there):
                pairs = zip(self._shapes[there], self._codes[there].tolist(), strict=True)
                rasterize(
                    pairs,
                    out=codes,
                    transform=Affine.translation(cols.start, rows.start),
                    all_touched=self._touched,
                )
        covered = codes != none
        codes[~covered] = 0 if self._outside is None else self._outside
        valid = covered if self._outside is None else np.ones(sides, np.bool_)
        return Patch(codes[..., None][..., chosen], valid[..., None][..., chosen])

    def close(self) -> None:
        """Let go of the polygons."""
        self._shapes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_ORDERS = ("file", "area", "classes")


def _read(
    name: str, layer: str | None, columns: list[str], grid: Any
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return shapes in pixels of the scene, columns first, and attributes."""
    crs, wkb, meta = _layer(name, layer, columns)
    import shapely

    try:
        shapes = np.asarray(shapely.from_wkb(wkb), object)
    except shapely.GEOSException as error:
        raise ScanError(f"{name}: holds a shape that cannot be read ({error})") from error
    kept = np.array([shape is not None and not shape.is_empty for shape in shapes], np.bool_)
    shapes = shapes[kept]
    if not len(shapes):
        return shapes, {column: values[kept] for column, values in meta.items()}
    shapes, near = shapes_in_pixels(name, crs, shapes, grid)
    return shapes, {column: values[kept][near] for column, values in meta.items()}


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
    shapes: NDArray[Any],
    columns: dict[str, NDArray[Any]],
    codes: NDArray[np.int32],
    values: list[int],
) -> NDArray[np.intp]:
    """Return the order in which shapes are drawn, the last on top."""
    import shapely

    if order == "file" or not len(shapes):
        return np.arange(len(shapes))
    if order == "area":
        return np.argsort(-shapely.area(shapes), kind="stable")
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
