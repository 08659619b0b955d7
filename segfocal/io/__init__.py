"""Reading scans by windows and writing label maps on the same grid.

Importing this package loads neither rasterio nor nibabel: each is imported when the first
scan or output of its kind is opened.
"""

from __future__ import annotations

import os

from segfocal.io.base import Scan
from segfocal.io.formats import is_volume_path
from segfocal.io.grids import check_same_grid
from segfocal.io.labels import LabelWriter, open_label_writer, read_labels
from segfocal.io.memory import MemoryScan
from segfocal.io.pending import PendingOutput

__all__ = [
    "LabelWriter",
    "MemoryScan",
    "PendingOutput",
    "Scan",
    "check_same_grid",
    "open_label_writer",
    "open_scan",
    "read_labels",
]


def open_scan(path: str | os.PathLike[str], *, orientation: str = "RAS") -> Scan:
    """Open a scene or a volume for reading by windows.

    Args:
        path: A file, or anything else that GDAL opens (``/vsi`` path, URL, VRT). Names that
            end in ``.nii``, ``.nii.gz``, ``.mgh``, ``.mgz``, and ``.hdr``/``.img`` pairs
            with a NIfTI header are volumes; everything else is opened with GDAL.
        orientation: Canonical orientation of a volume: nibabel axis codes, one letter per
            array axis. Not used for scenes, which are always north-up.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file is not a scan that can be read.
    """
    name = os.fspath(path)
    if is_volume_path(name):
        from segfocal.io.nifti import VolumeScan

        return VolumeScan(name, orientation)
    from segfocal.io.geotiff import RasterScan

    return RasterScan(name)
