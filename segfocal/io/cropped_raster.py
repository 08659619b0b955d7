"""A region of a scene, with its georeference."""

from __future__ import annotations

import copy
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from segfocal.io.base import Scan, grid_of
from segfocal.io.cropping import CroppedScan
from segfocal.io.geotiff import RasterScan
from segfocal.types import Window

__all__ = ["CroppedRaster"]


class CroppedRaster(CroppedScan, RasterScan):
    """A region of a scene; see :func:`~segfocal.io.cropping.crop`.

    It has the attributes of a :class:`~segfocal.io.geotiff.RasterScan`, in pixels of the region.
    """

    def __init__(self, whole: Scan, region: Window) -> None:
        super().__init__(whole, region)
        scan: Any = grid_of(whole)
        rows, cols = region
        top = scan.shape[0] - rows.stop if scan.flip_rows else rows.start
        self.crs = scan.crs
        # The identity stands for no georeference, and a part of none has none either.
        self.transform: Affine = (
            scan.transform
            if scan.transform.is_identity
            else _moved_transform(scan.transform, top, cols.start)
        )
        points, crs = scan.gcps
        self.gcps = ([_moved_point(point, top, cols.start) for point in points], crs)
        self.rpcs = None if scan.rpcs is None else _moved_rpcs(scan.rpcs, top, cols.start)
        self.area_or_point = scan.area_or_point
        self.files: tuple[str, ...] = scan.files
        self.flip_rows: bool = scan.flip_rows

    def georeference(self) -> dict[str, Any]:
        """Return what is known of the scene, with the region's transform."""
        return {**self._whole.georeference(), "transform": list(self.transform)[:6]}


def _moved_transform(grid: Affine, top: int, left: int) -> Affine:
    # By hand: versions of affine differ in which operator multiplies.
    x = grid.a * left + grid.b * top + grid.c
    y = grid.d * left + grid.e * top + grid.f
    return Affine(grid.a, grid.b, x, grid.d, grid.e, y)


def _moved_point(point: GroundControlPoint, top: int, left: int) -> GroundControlPoint:
    return GroundControlPoint(
        row=point.row - top, col=point.col - left, x=point.x, y=point.y, z=point.z,
        id=point.id, info=point.info,
    )  # fmt: skip


def _moved_rpcs(rpcs: RPC, top: int, left: int) -> RPC:
    moved = copy.copy(rpcs)
    moved.line_off = rpcs.line_off - top
    moved.samp_off = rpcs.samp_off - left
    return moved
