"""Scenes on another grid: resampled by GDAL, window by window, as they are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from segfocal.errors import ScanError, SegfocalWarning

if TYPE_CHECKING:
    from segfocal.io.geotiff import RasterScan

__all__ = ["warped_onto"]

TOLERANCE = 1e-3
"""Largest distance of corresponding corners, in pixels, of grids that count as one."""


def warped_onto(source: Any, name: str, grid: RasterScan) -> Any:
    """Return a dataset seen on the grid of a scene; itself when it lies there already.

    Args:
        source: An open rasterio dataset.
        name: What to call it in messages.
        grid: The scene.

    Raises:
        ScanError: The dataset or the scene lies nowhere, or the two do not touch.
    """
    if _coincide(source, grid):
        return source
    if source.crs is None or grid.crs is None:
        without = name if source.crs is None else grid.name
        raise ScanError(
            f"{name}: {source.height} x {source.width} pixels lie on another grid than "
            f"{grid.name}, and {without} has no CRS; expected the same grid, or a CRS of both"
        )
    try:
        corners = _corners(source.transform, source.shape)
        bounds = transform_bounds(source.crs, grid.crs, *corners.min(1), *corners.max(1))
        if not _touch(bounds, _bounds(grid)):
            raise ScanError(
                f"{name}: lies at {_text(bounds)}, {grid.name} at {_text(_bounds(grid))} "
                f"({grid.crs.to_string()}); expected files of one place"
            )
        source = _with_one_nodata(source)
        # Where nothing else tells, an alpha band says which pixels the file reaches.
        masked = source.nodata is not None or ColorInterp.alpha in source.colorinterp
        warped = WarpedVRT(
            source,
            crs=grid.crs,
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            resampling=Resampling.bilinear,
            dtype="float32",
            tolerance=1e-6,  # pixels; else values would depend on the window that is read
            add_alpha=not masked,
        )
    except (RasterioError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ScanError(
            f"{name}: cannot be resampled to the grid of {grid.name} ({text}); expected files of "
            "one place with a CRS that PROJ knows"
        ) from error
    warnings.warn(f"{name}: is resampled to the grid of {grid.name}", SegfocalWarning, stacklevel=2)
    return warped


def _with_one_nodata(source: Any) -> Any:
    """Return a dataset whose nodata value NaN says all that a mask and nodata values say.

    GDAL warps with the nodata value of the first band alone, and without the mask of a dataset
    that has one. Where that tells all, and with alpha bands, the dataset stays as it is.
    """
    values = [str(value) for value in source.nodatavals]
    has_mask = any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)
    if ColorInterp.alpha in source.colorinterp or set(values) == {"None"}:
        return source
    if not has_mask and len(set(values)) == 1:
        return source
    name = source.name
    if has_mask:
        # GDAL looks at the mask or at a nodata value of a source: one VRT for each.
        filled = ["nan" if value == "None" else value for value in values]
        name = _vrt_of(source, name, [("UseMaskBand", "true")] * source.count, filled)
    taken = [None if value == "None" else ("NODATA", value) for value in values]
    return rasterio.open(_vrt_of(source, name, taken, ["nan"] * source.count))


def _vrt_of(
    like: Any, name: str, taken: Sequence[tuple[str, str] | None], nodata: Sequence[str]
) -> str:
    """Return a VRT of a dataset whose bands hold a nodata value where a source has no data.

    Args:
        like: The dataset, or one like it.
        name: What the VRT reads.
        taken: Per band, element and text by which GDAL knows what is no data.
        nodata: Per band, the value that it holds there.
    """
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(like.width), rasterYSize=str(like.height)
    )
    _add(root, "SRS", like.crs.to_wkt())
    _add(root, "GeoTransform", ", ".join(map(repr, like.transform.to_gdal())))
    for i, band in enumerate(like.indexes):
        # Float64 holds every nodata value.
        one = ElementTree.SubElement(root, "VRTRasterBand", dataType="Float64", band=str(band))
        _add(one, "Description", like.descriptions[i] or "")
        _add(one, "NoDataValue", nodata[i])
        _add(one, "Offset", repr(like.offsets[i]))
        _add(one, "Scale", repr(like.scales[i]))
        part = ElementTree.SubElement(one, "ComplexSource")
        _add(part, "SourceFilename", name).set("relativeToVRT", "0")
        _add(part, "SourceBand", str(band))
        known = taken[i]
        if known is not None:
            _add(part, *known)
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: ElementTree.Element, name: str, text: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = text
    return element


def _coincide(source: Any, grid: RasterScan) -> bool:
    """Return True for the same shape and place, whatever the CRS tags say of the datum."""
    if source.shape != grid.shape:
        return False
    if source.transform.is_identity or grid.transform.is_identity:
        return bool(source.transform == grid.transform)
    apart = np.abs(_corners(source.transform, source.shape) - _corners(grid.transform, grid.shape))
    if apart.max() > TOLERANCE * abs(grid.transform.determinant) ** 0.5:
        return False
    return source.crs is None or grid.crs is None or _units(source) == _units(grid)


def _units(source: Any) -> tuple[bool, float]:
    """Equal numbers in degrees and in metres are different places."""
    crs = source.crs
    return crs.is_geographic, 1.0 if crs.is_geographic else crs.linear_units_factor[1]


def _corners(transform: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return x and y of the four corners, shape ``(2, 4)``."""
    rows, cols = shape
    matrix = np.reshape(tuple(transform)[:6], (2, 3))
    return matrix @ np.array([[0, cols, 0, cols], [0, 0, rows, rows], [1, 1, 1, 1]])


def _bounds(grid: RasterScan) -> tuple[float, ...]:
    corners = _corners(grid.transform, grid.shape)
    return (*corners.min(1), *corners.max(1))


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and min(a[1], a[3]) < b[3] and b[1] < max(a[1], a[3])


def _text(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in bounds)
