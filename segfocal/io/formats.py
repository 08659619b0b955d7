"""Which paths are scenes and which are volumes, decided without opening them fully."""

from __future__ import annotations

import os
import re

from segfocal.errors import ScanError, ScanNotFoundError

__all__ = ["check_is_file", "is_local_path", "is_volume_path"]

_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
_SHARED_SUFFIXES = (".hdr", ".img")  # also ENVI and Erdas Imagine rasters
_HEADER_SIZES = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
_DRIVER_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_+]+:")  # two letters: C: is a Windows drive


def is_local_path(name: str) -> bool:
    """Return False for names that only GDAL can resolve: ``/vsi``, URL, ``NETCDF:file:var``."""
    return not name.startswith("/vsi") and _DRIVER_PREFIX.match(name) is None


def check_is_file(name: str) -> None:
    """Raise unless a local name is an existing, non-empty file; other names pass.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: It is a folder or an empty file.
    """
    if not is_local_path(name):
        return
    if os.path.islink(name) and not os.path.exists(name):
        raise ScanNotFoundError(
            f"{name}: is a link to {os.readlink(name)}, which is not there; fetch the data "
            "(git annex get, dvc pull) or mend the link"
        )
    if not os.path.exists(name):
        raise ScanNotFoundError(f"{name}: no such file; check the path")
    if os.path.isdir(name):
        raise ScanError(f"{name}: is a folder; expected a GeoTIFF, NIfTI or similar file")
    if os.path.getsize(name) == 0:
        raise ScanError(f"{name}: the file is empty (0 bytes); copy or download it again")


def is_volume_path(name: str) -> bool:
    """Return True when the name stands for a NIfTI, MGH or NIfTI pair file."""
    lower = name.lower()
    if lower.endswith(_VOLUME_SUFFIXES):
        return True
    if not lower.endswith(_SHARED_SUFFIXES):
        return False
    stem = name[: -len(".hdr")]
    for header in (stem + ".hdr", stem + ".HDR"):
        try:
            with open(header, "rb") as file:
                return file.read(4) in _HEADER_SIZES
        except OSError:
            continue
    return False
