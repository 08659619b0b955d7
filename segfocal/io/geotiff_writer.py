"""Label maps of scenes: a GeoTIFF on the grid of the input, cloud-optimised or plain.

Labels go to a tiled, compressed scratch GeoTIFF first, as GDAL writes COGs only from a whole
dataset. Whole blocks only: GDAL rewrites a compressed block that changes at the end of the
file, so that partly written blocks would make it grow.
"""

from __future__ import annotations

import json
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # raised by shutil.copy, exported nowhere else
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from segfocal.errors import OutputError
from segfocal.io.base import Scan
from segfocal.io.geotiff import RasterScan, limit_gdal_cache
from segfocal.io.labels import Layout, checked_labels
from segfocal.io.pending import PendingOutput, writing
from segfocal.types import Window

if TYPE_CHECKING:
    from segfocal.card import Card

__all__ = ["BUFFER_BYTES", "GDAL_ERRORS", "RasterLabelWriter", "block_side", "quiet"]

BUFFER_BYTES = 64 * 2**20
"""Incomplete blocks that are kept in memory; beyond it the oldest go to disk as they are."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
_LARGEST_BLOCK, _SMALLEST_BLOCK = 512, 128

Block = tuple[int, int]


class RasterLabelWriter:
    """Writes labels of a scene; see :class:`~segfocal.io.labels.LabelWriter`.

    Attributes:
        dtype: uint8, or uint16 when a class value is 255 or more.
        nodata: The highest value of ``dtype``.
    """

    def __init__(
        self,
        pending: PendingOutput,
        scan: Scan,
        card: Card,
        *,
        layout: Layout = "cog",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        highest = int(card.class_values.max())
        self.dtype: np.dtype = np.dtype(np.uint8 if highest < 255 else np.uint16)
        self.nodata = int(np.iinfo(self.dtype).max)
        if highest >= self.nodata:
            raise OutputError(
                f"{pending.destination}: class value {highest} is the nodata value; expected "
                f"class values below {self.nodata}"
            )
        self._pending, self._card = pending, card
        self._layout, self._tags = layout, dict(tags or {})
        self._shape: tuple[int, ...] = scan.shape
        self._flip = isinstance(scan, RasterScan) and scan.flip_rows
        self._block = block_side(scan.shape)
        self._points: Sequence[GroundControlPoint] = ()
        self._partial: dict[Block, NDArray[np.generic]] = {}
        self._missing: dict[Block, int] = {}  # pixels still to come, of blocks begun
        limit_gdal_cache()
        # An estimate: label maps compress to far less than the half each for scratch and COG.
        pending.require_space(scan.shape[0] * scan.shape[1] * self.dtype.itemsize)
        self._path = pending.scratch("labels.tif")
        with writing(pending.destination, *GDAL_ERRORS), quiet():
            self._scratch: Any = self._create(scan)
        pending.defer(self._close)

    def _create(self, scan: Scan) -> Any:
        grid: dict[str, object] = {}
        if isinstance(scan, RasterScan):
            if scan.crs is not None:
                grid["crs"] = scan.crs
            if not scan.transform.is_identity:
                grid["transform"] = scan.transform
        scratch = rasterio.open(
            self._path, "w+", driver="GTiff", height=self._shape[0], width=self._shape[1],
            count=1, dtype=self.dtype, nodata=self.nodata, tiled=True, blockxsize=self._block,
            blockysize=self._block, compress="deflate", zlevel=1, bigtiff="IF_SAFER", **grid,
        )  # fmt: skip
        try:
            self._tag(scratch, scan)
        except BaseException:
            scratch.close()
            raise
        return scratch

    def _tag(self, scratch: Any, scan: Scan) -> None:
        names = {str(label.value): label.name for label in self._card.classes}
        tags = {
            "TIFFTAG_SOFTWARE": "segfocal",
            "CLASS_NAMES": json.dumps(names, ensure_ascii=False),
            **self._tags,
        }
        if isinstance(scan, RasterScan):
            if scan.area_or_point:
                tags["AREA_OR_POINT"] = scan.area_or_point
            if scan.gcps[0]:
                scratch.gcps = scan.gcps
                self._points = scan.gcps[0]
            if scan.rpcs is not None:
                scratch.rpcs = scan.rpcs
        scratch.update_tags(**tags)
        scratch.set_band_description(1, "class")
        palette = {label.value: (*label.color, 255) for label in self._card.classes}
        scratch.write_colormap(1, {**palette, self.nodata: (0, 0, 0, 0)})

    def write(self, window: Window, values: NDArray[np.integer]) -> None:
        """Write class values; see :class:`~segfocal.io.labels.LabelWriter`."""
        labels = checked_labels(window, values, self._shape, self.dtype)
        if labels.size == 0:
            return
        rows, cols = window
        if self._flip:
            rows = slice(self._shape[0] - rows.stop, self._shape[0] - rows.start)
            labels = labels[::-1]
        with writing(self._pending.destination, *GDAL_ERRORS):
            for row in range(rows.start // self._block, -(-rows.stop // self._block)):
                for col in range(cols.start // self._block, -(-cols.stop // self._block)):
                    self._put((row, col), rows, cols, labels)
            while sum(block.nbytes for block in self._partial.values()) > BUFFER_BYTES:
                oldest = next(iter(self._partial))
                self._write_block(oldest, self._partial.pop(oldest))

    def _put(self, key: Block, rows: slice, cols: slice, labels: NDArray[np.generic]) -> None:
        """Copy the part of ``labels`` that lies in a block; write the block when it is full."""
        top, left = (index * self._block for index in key)
        height = min(self._block, self._shape[0] - top)
        width = min(self._block, self._shape[1] - left)
        first, last = max(rows.start, top), min(rows.stop, top + height)
        begin, end = max(cols.start, left), min(cols.stop, left + width)
        part = labels[first - rows.start : last - rows.start, begin - cols.start : end - cols.start]
        begun = key in self._missing
        missing = self._missing.get(key, height * width) - part.size
        if missing < 0:
            raise ValueError(f"{self._pending.destination}: pixels of {(rows, cols)} stand twice")
        self._missing[key] = missing
        block = self._partial.pop(key, None)
        if block is None and begun:
            block = self._scratch.read(1, window=self._area(key))
        elif block is None:
            block = np.full((height, width), self.nodata, dtype=self.dtype)
        block[first - top : last - top, begin - left : end - left] = part
        if missing:
            self._partial[key] = block
        else:
            self._write_block(key, block)

    def _area(self, key: Block) -> RasterWindow:
        top, left = (index * self._block for index in key)
        return RasterWindow(
            left,
            top,
            min(self._block, self._shape[1] - left),
            min(self._block, self._shape[0] - top),
        )

    def _write_block(self, key: Block, block: NDArray[np.generic]) -> None:
        self._scratch.write(block, 1, window=self._area(key))

    def finish(self) -> None:
        """Assemble and verify the file; see :class:`~segfocal.io.labels.LabelWriter`."""
        destination = self._pending.destination
        rows, cols = (-(-length // self._block) for length in self._shape)
        complete = sum(missing == 0 for missing in self._missing.values())
        if complete < rows * cols:
            raise OutputError(
                f"{destination}: {rows * cols - complete} of {rows * cols} blocks are incomplete; "
                "expected windows that cover the whole scan"
            )
        self._close()
        described = self._path.with_suffix(".vrt")
        with writing(destination, *GDAL_ERRORS, ElementTree.ParseError), quiet():
            rasterio.shutil.copy(self._path, described, driver="VRT")
            _complete(described, self._card, self._points)
            rasterio.shutil.copy(
                described, self._pending.main, compress="DEFLATE", bigtiff="IF_SAFER",
                **self._layout_options(),
            )  # fmt: skip
            self._verify()

    def _layout_options(self) -> dict[str, Any]:
        if self._layout == "cog":
            # Compressed side by side, and written in the same order.
            return {
                "driver": "COG", "blocksize": self._block, "overview_resampling": "NEAREST",
                "num_threads": "ALL_CPUS",
            }  # fmt: skip
        sides = {"blockxsize": self._block, "blockysize": self._block}
        return {"driver": "GTiff", "tiled": True, **sides}

    def _verify(self) -> None:
        """GDAL may lose write errors on closing, so compare what is on disk."""
        with rasterio.open(self._path) as scratch, rasterio.open(self._pending.main) as output:
            for what in ("shape", "crs", "transform", "nodata", "dtypes"):
                found, expected = getattr(output, what), getattr(scratch, what)
                if found != expected:
                    raise OutputError(
                        f"{self._pending.destination}: verification failed: {what} is {found}, "
                        f"expected {expected}"
                    )
            if output.checksum(1) != scratch.checksum(1):
                raise OutputError(
                    f"{self._pending.destination}: verification failed: the pixels on disk are "
                    "not the ones written; check the disk and run again"
                )

    def _close(self) -> None:
        if not self._scratch.closed:
            self._scratch.close()


def block_side(shape: tuple[int, ...]) -> int:
    """Return the side of a file block: 512, or less for a small scene."""
    side = 1 << (max(shape) - 1).bit_length()
    return min(max(side, _SMALLEST_BLOCK), _LARGEST_BLOCK)


def quiet() -> warnings.catch_warnings[None]:
    """Silence the warning about scans without georeference: their labels have none either."""
    return warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning)


def _complete(vrt: Path, card: Card, points: Sequence[GroundControlPoint]) -> None:
    """Add class names to a VRT, the only way to GDAL's category names from rasterio.

    And all digits of ground control points, of which GDAL writes thirteen.
    """
    tree = ElementTree.parse(vrt)
    band = tree.getroot().find("VRTRasterBand")
    if band is None:
        raise OutputError(f"{vrt}: GDAL wrote a VRT without a band; check the GDAL installation")
    categories = ElementTree.SubElement(band, "CategoryNames")
    names = {label.value: label.name for label in card.classes}
    for value in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")
    for element, point in zip(tree.getroot().iterfind("GCPList/GCP"), points, strict=True):
        for name, number in zip("XYZ", (point.x, point.y, point.z or 0.0), strict=True):
            element.set(name, repr(float(number)))
    tree.write(vrt, encoding="utf-8")
