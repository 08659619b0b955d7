"""Polygons with fields to a vector file, through pyogrio and shapely."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import OutputError
from segfocal.io.pending import PendingOutput, writing
from segfocal.io.qgis_style import STYLE_TABLE, style_row

__all__ = ["SUFFIXES", "PolygonsWriter"]

SUFFIXES = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}

_FAILURE = re.compile(r"writ|flush|space|disk|I/O|trunc|fail", re.IGNORECASE)
_FEATURES_AT_ONCE = 20_000
_SAME_DATE = "2000-01-01T00:00:00.000Z"  # a GeoPackage holds one, and is to repeat


class PolygonsWriter:
    """Writes polygons with fields to one layer, a stretch of them at a time.

    GeoPackages are appended to. The other formats cannot be: they are copied from a
    GeoPackage, as a stream. GeoJSON is as RFC 7946 wants it: in longitude and latitude on
    WGS 84, with seven decimals.

    Args:
        pending: The entered pending output, ``.gpkg``, ``.geojson`` or ``.fgb``.
        crs: Coordinate reference system as WKT, or None.
        fields: Names of the fields and their numpy types, ``object`` for text.
        style: QGIS's style of the layer; kept in a GeoPackage.

    Attributes:
        features: How many polygons were written.
    """

    def __init__(
        self, pending: PendingOutput, crs: str | None, fields: dict[str, Any], style: str
    ) -> None:
        self._pending, self._crs, self._fields = pending, crs, fields
        self._style = style
        self._driver = SUFFIXES[pending.destination.suffix.lower()]
        self._layer = pending.destination.stem
        direct = self._driver == "GPKG"
        self._path = pending.main if direct else pending.scratch("polygons.gpkg")
        self._waiting: list[tuple[NDArray[Any], ...]] = []
        self.features = 0
        self._append([np.empty(0, kind) for kind in (object, *fields.values())], begin=True)

    def write(self, polygons: NDArray[np.object_], *fields: NDArray[Any]) -> None:
        """Add polygons, with one array of values for each field.

        Raises:
            OutputError: They cannot be written.
        """
        self._waiting.append((polygons, *fields))
        if sum(len(part[0]) for part in self._waiting) >= _FEATURES_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """Complete the file at ``pending.main`` and read back how many polygons it holds.

        Raises:
            OutputError: It cannot be written, or is not as written.
        """
        import pyogrio

        self._flush()
        destination = self._pending.destination
        with _writing(destination):
            if self._path == self._pending.main:
                self._add_style()
            else:
                self._convert()
            about = pyogrio.read_info(self._pending.main, self._layer, force_feature_count=True)
            found = about["features"]
        if found != self.features:
            raise OutputError(
                f"{destination}: verification failed: {found} polygons on disk, {self.features} "
                "written; check the disk and run again"
            )

    def _flush(self) -> None:
        if self._waiting:
            self._append([np.concatenate(parts) for parts in zip(*self._waiting, strict=True)])
            self._waiting = []

    def _append(self, columns: list[NDArray[Any]], *, begin: bool = False) -> None:
        import shapely
        from pyogrio import raw

        polygons, *fields = columns
        with _writing(self._pending.destination):
            raw.write(
                self._path, shapely.to_wkb(polygons), fields, list(self._fields),
                layer=self._layer, driver="GPKG", geometry_type="Polygon", crs=self._crs,
                append=not begin,
            )  # fmt: skip
        self.features += len(polygons)

    def _add_style(self) -> None:
        import pyogrio
        from pyogrio import raw

        geometry = pyogrio.read_info(self._path, self._layer)["geometry_name"]
        row = style_row(self._layer, geometry, self._style)
        raw.write(
            self._path, None, list(row.values()), list(row), layer=STYLE_TABLE, driver="GPKG",
            append=True,
        )  # fmt: skip

    def _convert(self) -> None:
        from pyogrio import raw

        options = {"RFC7946": "YES"} if self._driver == "GeoJSON" else {}
        with raw.open_arrow(self._path, use_pyarrow=False) as (about, stream):
            raw.write_arrow(
                stream, self._pending.main, layer=self._layer, driver=self._driver,
                geometry_name=about["geometry_name"], geometry_type="Polygon", crs=self._crs,
                **options,
            )  # fmt: skip


@contextlib.contextmanager
def _writing(destination: Path) -> Iterator[None]:
    """Turn what GDAL says of a writing block that failed into an ``OutputError``."""
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _SAME_DATE})
    try:
        # All errors of pyogrio are RuntimeErrors.
        with writing(destination, RuntimeError), warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            yield
            # Of a full disk, GDAL may tell by a warning only. The others, such as that there is
            # no CRS, are nothing new to the user.
            for warning in found:
                if issubclass(warning.category, RuntimeWarning) and _FAILURE.search(
                    str(warning.message)
                ):
                    raise OSError(str(warning.message))
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
