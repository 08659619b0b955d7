"""Scenes: everything that GDAL opens, read through rasterio by windows.

Rows run from north to south. A south-up file (positive row step, no rotation) is flipped on
reading; rotated grids and files without georeference are taken as they are.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window as RasterWindow

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io.base import check_window
from segfocal.io.channels import channel_indices, numbered_names
from segfocal.io.formats import check_is_file, is_local_path
from segfocal.io.network import check_stays_local
from segfocal.io.vrt_sources import check_sources_end
from segfocal.io.warping import warped_onto
from segfocal.types import BoolArray, Patch, Window, window_shape

__all__ = ["GDAL_CACHE_BYTES", "RasterScan", "limit_gdal_cache"]

GDAL_CACHE_BYTES = 64 * 2**20
"""Size of GDAL's block cache; its default, 5 % of RAM, would break the memory bound."""


def limit_gdal_cache() -> None:
    """Bound GDAL's block cache for this process unless the user chose a size."""
    if "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)


_OTHER_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima", ".nii.zip")


def _open(name: str) -> rasterio.DatasetReader:
    check_stays_local(name)
    check_is_file(name)
    check_sources_end(name)
    limit_gdal_cache()
    # A scan is data: no code in a VRT is run, whatever the environment allows.
    set_gdal_config("GDAL_VRT_ENABLE_PYTHON", "NO")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(name)
    except (RasterioError, OSError, ValueError) as error:
        # GDAL tells a missing /vsi or http file from a broken one only by its message.
        text = " ".join(str(error).split())
        if "No such file" in text or "does not exist" in text or "404" in text:
            raise ScanNotFoundError(f"{name}: not found ({text}); check the path") from error
        expected = "expected a GeoTIFF or another raster file, complete and not damaged"
        if name.lower().endswith(_OTHER_VOLUMES):
            expected = (
                "expected a NIfTI file: convert it, with SimpleITK.WriteImage or, a DICOM series, "
                "with dcm2niix"
            )
        raise ScanError(f"{name}: not a raster that GDAL can open ({text}); {expected}") from error
    try:
        if not is_local_path(name):  # in an archive, say, where only GDAL sees what it refers to
            check_stays_local(name, source.files)
    except ScanError:
        source.close()
        raise
    return source


class RasterScan:
    """A raster file as a scan of axes ``(row, col)``, north-up.

    Alpha bands are masks, not channels. A pixel of a channel is valid when it is not the nodata
    value of its band, no mask (``.msk`` file, internal mask) and no alpha band is 0 there, and it
    is finite. Bands with a scale or offset are returned as float32 in their units.

    Attributes:
        crs: Coordinate reference system (rasterio's), or None.
        transform: Affine of the file's own row order.
        gcps: Ground control points and their CRS, as rasterio returns them.
        rpcs: Rational polynomial coefficients, or None.
        area_or_point: The file's AREA_OR_POINT tag, or None.
        files: Names of the files that GDAL reads: the file, masks, sources of a VRT.
        scaling: Scale and offset of each channel, which ``read`` has applied.
        flip_rows: True when the file is south-up, so that row 0 of the scan is its last row.

    Args:
        path: Anything that GDAL opens.
        onto: A scan on whose grid this one is to be read: it is resampled bilinearly where it
            lies on another, window by window; pixels that it does not reach are not valid.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file is not a raster with real-valued bands, or cannot be brought onto
            the other grid.
    """

    def __init__(self, path: str | os.PathLike[str], *, onto: RasterScan | None = None) -> None:
        self.name = os.fspath(path)
        self._lock = threading.Lock()
        source = _open(self.name)
        self._file = source
        self._source: rasterio.DatasetReader | None = source
        try:
            if onto is not None:
                source = self._source = warped_onto(source, self.name, onto)
            self._describe(source)
        except BaseException:
            source.close()
            self._file.close()
            raise

    def _describe(self, source: rasterio.DatasetReader) -> None:
        alpha = [
            i
            for i, kind in zip(source.indexes, source.colorinterp, strict=True)
            if kind == ColorInterp.alpha
        ]
        bands = [i for i in source.indexes if i not in alpha]
        if not bands:
            within = f"; it holds {', '.join(source.subdatasets[:3])}" if source.subdatasets else ""
            raise ScanError(
                f"{self.name}: no bands besides masks{within}; expected at least one band: give "
                "the name of a subdataset, or another file"
            )
        types = [source.dtypes[band - 1] for band in bands]
        if any("complex" in kind for kind in types):
            raise ScanError(
                f"{self.name}: complex values ({types[0]}); expected real bands: convert to "
                "amplitude first, for example with gdal_calc.py"
            )
        self.scaling = tuple(
            (float(source.scales[band - 1]), float(source.offsets[band - 1])) for band in bands
        )
        scaled = [pair != (1.0, 0.0) for pair in self.scaling]
        self._alpha, self._bands, self._scaled = alpha, bands, scaled
        self.channel_note = (
            f"band {alpha[0]} is marked as alpha and taken as a mask; if it is data, run "
            f"`gdal_edit.py -colorinterp_{alpha[0]} undefined {self.name}`"
            if alpha
            else ""
        )
        self._raw_dtype = np.result_type(*types)
        self._same_type = len(set(types)) == 1
        self.dtype: np.dtype = np.dtype(np.float32) if any(scaled) else self._raw_dtype
        descriptions = [(source.descriptions[band - 1] or "").strip() for band in bands]
        self.channels_are_named = all(descriptions) and len(set(descriptions)) == len(bands)
        self.channels: tuple[str, ...] = (
            tuple(descriptions) if self.channels_are_named else numbered_names("band", len(bands))
        )
        self.shape: tuple[int, ...] = (source.height, source.width)
        self.slow_axis = 0
        self.crs = source.crs
        self.transform = source.transform
        self._nodata = None if source.nodata is None else str(source.nodata)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self.gcps = source.gcps
            self.rpcs = source.rpcs
        self.area_or_point = source.tags().get("AREA_OR_POINT")
        self.files: tuple[str, ...] = tuple(source.files)
        grid = self.transform
        # GDAL stands for "no georeference" with the identity, whose row step is positive too.
        georeferenced = not grid.is_identity
        self.flip_rows = bool(georeferenced and grid.b == grid.d == 0 and grid.e > 0)
        self.resolution: tuple[float, ...] | None = (
            (float(np.hypot(grid.b, grid.e)), float(np.hypot(grid.a, grid.d)))
            if georeferenced
            else None
        )

    def georeference(self) -> dict[str, Any]:
        """Return CRS, transform (of the file) and nodata value as a JSON value."""
        return {
            "crs": None if self.crs is None else self.crs.to_string(),
            "transform": list(self.transform)[:6],
            "nodata": self._nodata,
            "south_up": self.flip_rows,
        }

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`.

        Raises:
            ScanError: The file cannot be read there: truncated, damaged or gone.
        """
        chosen = channel_indices(channels, len(self.channels))
        with self._lock:
            if self._source is None:
                raise ValueError(f"{self.name}: the scan is closed")
            check_window(window, self.shape)
            shape = (*window_shape(window), len(chosen))
            if 0 in shape:
                return Patch(np.zeros(shape, self.dtype), np.zeros(shape, dtype=np.bool_))
            rows, cols = window
            top = self.shape[0] - rows.stop if self.flip_rows else rows.start
            box = RasterWindow(cols.start, top, shape[1], shape[0])
            try:
                raw, valid = self._read_raw(self._source, box, chosen)
            except (RasterioIOError, OSError) as error:
                cause = error.__cause__ or error
                raise ScanError(
                    f"{self.name}: cannot read rows {rows.start}:{rows.stop}, cols "
                    f"{cols.start}:{cols.stop} ({' '.join(str(cause).split())}); the file is "
                    "truncated, damaged or gone: copy or download it again"
                ) from error
            values = self._in_units(self._source, raw, chosen)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        if self.flip_rows:
            values, valid = values[:, ::-1], valid[:, ::-1]
        return Patch(np.moveaxis(values, 0, -1), np.moveaxis(valid, 0, -1))

    def _read_raw(
        self, source: rasterio.DatasetReader, box: RasterWindow, chosen: list[int]
    ) -> tuple[NDArray[np.generic], BoolArray]:
        """Return file values and validity, both of shape ``(channels, rows, cols)``."""
        bands = [self._bands[channel] for channel in chosen]
        if self._same_type:
            raw = source.read(bands, window=box)
        else:  # rasterio refuses to read bands of different types together
            raw = np.stack([source.read(band, window=box) for band in bands], dtype=self._raw_dtype)
        valid = np.ones(raw.shape, dtype=np.bool_)
        for place, band in enumerate(bands):
            # GDAL's mask of a band is of one kind: a mask of the dataset hides the nodata value.
            flags = source.mask_flag_enums[band - 1]
            valid[place] = ~_equals_nodata(raw[place], source.nodatavals[band - 1])
            by_itself = flags in ([MaskFlags.all_valid], [MaskFlags.nodata])
            if not by_itself and MaskFlags.alpha not in flags:
                valid[place] &= source.read_masks(band, window=box) != 0
        for band in self._alpha:
            valid &= source.read(band, window=box) != 0
        return raw, valid

    def _in_units(
        self, source: rasterio.DatasetReader, raw: NDArray[np.generic], chosen: list[int]
    ) -> NDArray[np.generic]:
        if self.dtype == raw.dtype and not any(self._scaled):
            return raw
        values = np.empty(raw.shape, dtype=self.dtype)
        for place, channel in enumerate(chosen):
            band = self._bands[channel]
            if self._scaled[channel]:
                scale, offset = source.scales[band - 1], source.offsets[band - 1]
                with np.errstate(over="ignore"):  # nodata such as -1.8e308
                    values[place] = raw[place].astype(np.float64) * scale + offset
            else:
                values[place] = raw[place]
        return values

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        with self._lock:
            if self._source is not None:
                self._source.close()
                getattr(self._source, "src_dataset", self._file).close()
                self._file.close()
                self._source = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _equals_nodata(values: NDArray[np.generic], nodata: float | None) -> BoolArray:
    """Compare with a nodata value as GDAL does; its own mask would read each block twice."""
    if nodata is None:
        return np.zeros(values.shape, dtype=np.bool_)
    if values.dtype.kind != "f":
        return np.asarray(values == nodata)
    if np.isnan(nodata):
        return np.isnan(values)
    epsilon = float(np.spacing(np.ones(1, dtype=values.dtype))[0])
    # The header holds nodata as decimal text: floats two units in the last place off are equal.
    with np.errstate(over="ignore"):
        return np.isclose(values, nodata, rtol=2 * epsilon, atol=0)
