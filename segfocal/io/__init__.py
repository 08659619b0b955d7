"""Reading scans by windows and writing label maps on the same grid.

Importing this package loads neither rasterio nor nibabel: each is imported when the first
scan or output of its kind is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeAlias

from segfocal.errors import ScanError
from segfocal.io.base import Scan
from segfocal.io.cropping import crop
from segfocal.io.formats import is_volume_path
from segfocal.io.grids import check_same_grid
from segfocal.io.labels import LabelWriter, open_label_writer, read_labels
from segfocal.io.memory import MemoryScan
from segfocal.io.pending import PendingOutput
from segfocal.io.stacking import StackedScan

if TYPE_CHECKING:
    from segfocal.io.nifti import VolumeScan

__all__ = [
    "LabelWriter",
    "MemoryScan",
    "PendingOutput",
    "Scan",
    "ScanPath",
    "StackedScan",
    "check_same_grid",
    "crop",
    "open_label_writer",
    "open_scan",
    "read_labels",
]

ScanPath: TypeAlias = str | os.PathLike[str]
"""A file, or another name that GDAL opens."""


def open_scan(
    path: ScanPath | Sequence[ScanPath] | Mapping[str, ScanPath], *, orientation: str = "RAS"
) -> Scan:
    """Open a scene or a volume for reading by windows.

    Args:
        path: A file, or anything else that GDAL opens (``/vsi`` path, URL, VRT). Names that
            end in ``.nii``, ``.nii.gz``, ``.mgh``, ``.mgz``, and ``.hdr``/``.img`` pairs
            with a NIfTI header are volumes; everything else is opened with GDAL. A list of
            them is one scan with the channels of all, on the grid of the first: scenes and
            volumes on another grid are resampled to it (linearly, window by window, with a
            warning).
            A dict of names and files with one channel each names the channels.
        orientation: Canonical orientation of a volume: nibabel axis codes, one letter per
            array axis. Not used for scenes, which are always north-up.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file is not a scan that can be read, or several do not go together.
    """
    if isinstance(path, str | os.PathLike):
        return _open_one(os.fspath(path), orientation)
    names = list(path) if isinstance(path, Mapping) else None
    paths = [os.fspath(one) for one in (path.values() if isinstance(path, Mapping) else path)]
    with ExitStack() as stack:
        scans: list[Scan] = []
        for name in paths:
            first = scans[0] if scans else None
            scans.append(stack.enter_context(_open_one(name, orientation, first)))
        stacked = StackedScan(scans, names)
        stack.pop_all()
    return stacked


def _onto(volume: VolumeScan, first: Scan) -> Scan:
    from segfocal.io.nifti import VolumeScan
    from segfocal.io.regridding import regridded_onto

    assert isinstance(first, VolumeScan)
    try:
        return regridded_onto(volume, first)
    except ScanError:
        volume.close()
        raise


def _open_one(name: str, orientation: str, first: Scan | None = None) -> Scan:
    """Open a file, on the grid of the first of several."""
    if first is not None and is_volume_path(name) != (len(first.shape) == 3):
        raise ScanError(
            f"{name} and {first.name}: a scene and a volume; expected files of one kind"
        )
    if is_volume_path(name):
        from segfocal.io.nifti import VolumeScan

        volume = VolumeScan(name, orientation)
        return volume if first is None else _onto(volume, first)
    from segfocal.io.geotiff import RasterScan

    return RasterScan(name, onto=first if isinstance(first, RasterScan) else None)
