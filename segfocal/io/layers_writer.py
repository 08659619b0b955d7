"""Several layers of a scene in one GeoTIFF: probabilities per class, uncertainty.

Layers go to an uncompressed scratch GeoTIFF first, of which any part can be written at any
time, and are compressed when they are copied to their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from segfocal.errors import OutputError
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.io.geotiff import RasterScan, limit_gdal_cache
from segfocal.io.geotiff_writer import GDAL_ERRORS, block_side, quiet
from segfocal.io.labels import Layout
from segfocal.io.pending import PendingOutput, writing
from segfocal.types import Window

__all__ = ["LayersWriter"]


class LayersWriter:
    """Writes layers of numbers on the grid of a scene.

    Args:
        pending: The entered pending output.
        name: File name; the file is moved out beside the main file, before it.
        scan: Where the grid and its georeference come from.
        layers: Names of the layers, one band each.
        dtype: ``float32`` with nodata NaN, or ``uint8`` with nodata 255.
        scale: Factor from the numbers in the file to what they mean; 1 for floats.
        layout: Layout of the GeoTIFF.
        tags: More metadata, by name.

    Raises:
        OutputError: The scratch file cannot be made.
    """

    def __init__(
        self,
        pending: PendingOutput,
        name: str,
        scan: Scan,
        layers: Sequence[str],
        *,
        dtype: str,
        scale: float = 1.0,
        layout: Layout = "cog",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._pending, self._main = pending, pending.path(name)
        scan = grid_of(scan)
        self._shape: tuple[int, ...] = scan.shape
        self._flip = isinstance(scan, RasterScan) and scan.flip_rows
        self._layout, self._block = layout, block_side(scan.shape)
        self._path = pending.scratch(f"layers-{name}")
        limit_gdal_cache()
        grid: dict[str, object] = {}
        if isinstance(scan, RasterScan):
            if scan.crs is not None:
                grid["crs"] = scan.crs
            if not scan.transform.is_identity:
                grid["transform"] = scan.transform
        with writing(pending.destination, *GDAL_ERRORS), quiet():
            self._scratch: Any = rasterio.open(
                self._path, "w+", driver="GTiff", height=scan.shape[0], width=scan.shape[1],
                count=len(layers), dtype=dtype, nodata=np.nan if dtype == "float32" else 255,
                tiled=True, blockxsize=self._block, blockysize=self._block, interleave="band",
                photometric="minisblack", bigtiff="YES", sparse_ok=True, **grid,
            )  # fmt: skip
            pending.defer(self._close)
            self._describe(scan, layers, scale, dict(tags or {}))

    def _describe(
        self, scan: Scan, layers: Sequence[str], scale: float, tags: dict[str, str]
    ) -> None:
        if isinstance(scan, RasterScan):
            if scan.area_or_point:
                tags["AREA_OR_POINT"] = scan.area_or_point
            if scan.gcps[0]:
                self._scratch.gcps = scan.gcps
            if scan.rpcs is not None:
                self._scratch.rpcs = scan.rpcs
        self._scratch.update_tags(TIFFTAG_SOFTWARE="segfocal", **tags)
        self._scratch.descriptions = tuple(layers)
        if scale != 1.0:
            self._scratch.scales = (scale,) * len(layers)

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write numbers ``(rows, cols, layers)`` of the file's type, nodata filled in.

        Raises:
            ValueError: The window is outside the grid.
            OutputError: The scratch file cannot be written.
        """
        check_window(window, self._shape)
        rows, cols = window
        if self._flip:
            rows = slice(self._shape[0] - rows.stop, self._shape[0] - rows.start)
            values = values[::-1]
        box = RasterWindow(cols.start, rows.start, values.shape[1], values.shape[0])
        with writing(self._pending.destination, *GDAL_ERRORS):
            self._scratch.write(np.ascontiguousarray(np.moveaxis(values, -1, 0)), window=box)

    def finish(self) -> None:
        """Copy the layers to their place and verify them.

        Raises:
            OutputError: They cannot be written, or differ from what was written.
        """
        self._close()
        options: dict[str, Any] = {"compress": "DEFLATE", "bigtiff": "IF_SAFER"}
        floats = self._kind == "float32"
        if self._layout == "cog":
            options |= {"driver": "COG", "blocksize": self._block, "overview_resampling": "AVERAGE",
                        "predictor": "YES"}  # fmt: skip
        else:
            options |= {"driver": "GTiff", "tiled": True, "blockxsize": self._block,
                        "blockysize": self._block, "predictor": 3 if floats else 2,
                        "interleave": "band", "photometric": "minisblack"}  # fmt: skip
        with writing(self._pending.destination, *GDAL_ERRORS), quiet():
            rasterio.shutil.copy(self._path, self._main, **options)
            with rasterio.open(self._path) as scratch, rasterio.open(self._main) as output:
                for band in scratch.indexes:
                    if not _are_equal(scratch, output, band):
                        raise OutputError(
                            f"{self._pending.destination}: verification failed: layer {band} of "
                            f"{self._main.name} is not as written; check the disk and run again"
                        )
        Path(self._path).unlink()

    def _close(self) -> None:
        if not self._scratch.closed:
            self._kind = self._scratch.dtypes[0]
            self._scratch.close()


def _are_equal(scratch: rasterio.DatasetReader, output: rasterio.DatasetReader, band: int) -> bool:
    """Compare a band of two files bit by bit: GDAL's checksum takes floats for whole numbers."""
    return all(
        scratch.read(band, window=window).tobytes() == output.read(band, window=window).tobytes()
        for _, window in output.block_windows(band)
    )
