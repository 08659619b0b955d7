"""Opening volume files with nibabel, and what their headers must be like to be read."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.formats import check_is_file
from segfocal.io.network import check_stays_local

__all__ = [
    "PACKED_SUFFIXES",
    "READ_ERRORS",
    "checked_affine",
    "header_notes",
    "mm_per_unit",
    "open_volume",
    "returned_dtype",
    "spatial_layout",
    "stored_spacing",
    "voxel_file",
]

PACKED_SUFFIXES = (".gz", ".mgz", ".bz2", ".zst")

READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
ORTHOGONAL_WITHIN = 1e-3
"""Largest cosine between axes that ITK, too, takes for a right angle."""

_INFLATED_AT_MOST = 256 * 2**20

_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


def open_volume(name: str) -> SpatialImage:
    check_stays_local(name)
    check_is_file(name)
    expected = "expected a NIfTI file (.nii, .nii.gz, .hdr/.img) or .mgh/.mgz, complete"
    try:
        # No mmap: a file that shrinks while it is mapped kills the process.
        image = nib.load(name, mmap=False, keep_file_open=True)
    except (ImageFileError, HeaderDataError, *READ_ERRORS) as error:
        damage = _damage(name)
        if damage:
            raise ScanError(f"{name}: {damage}; copy or download it again") from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise ScanError(f"{name}: not a volume that nibabel can open ({text}); {expected}") from (
            error
        )
    if not isinstance(image, SpatialImage) or not nib.is_proxy(image.dataobj):
        raise ScanError(f"{name}: {type(image).__name__} is not a volume; {expected}")
    stored = voxel_file(name, image)
    if not os.path.exists(stored):
        raise ScanError(f"{name}: its image file {stored} is missing; put it beside the header")
    if not stored.lower().endswith(PACKED_SUFFIXES):
        data: Any = image.dataobj
        needed = int(data.offset) + int(np.prod(image.shape)) * data.dtype.itemsize
        if os.path.getsize(stored) < needed:
            raise ScanError(
                f"{name}: the file is truncated: {os.path.getsize(stored)} bytes, the header "
                f"asks for {needed}; copy or download it again"
            )
    return image


def _damage(name: str) -> str:
    """Return what is wrong with the compression of a .gz file; "" when nothing was found."""
    if not name.lower().endswith((".gz", ".mgz")):
        return ""
    try:
        with gzip.open(name) as file:
            while file.tell() < _INFLATED_AT_MOST and file.read(1 << 20):
                pass
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" in str(error):
            return f"is no gzip file, as its name says ({error})"
        return f"its compressed data is damaged ({error})"
    except READ_ERRORS as error:
        return f"its compressed data is damaged ({error or type(error).__name__})"
    return ""


def voxel_file(name: str, image: SpatialImage) -> str:
    """Return the file that holds the voxels."""
    part = image.file_map.get("image")
    return name if part is None or part.filename is None else os.fspath(part.filename)


def spatial_layout(
    name: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return spatial shape, indices between plane and channel axis, and number of channels."""
    core = shape = tuple(int(length) for length in shape)  # MGH has numpy integers
    while len(core) > 3 and core[-1] == 1:
        core = core[:-1]
    if len(core) < 3:
        raise ScanError(
            f"{name}: an image of shape {shape}; expected a volume of three axes: save it as "
            "(x, y, 1), or as GeoTIFF or PNG for a scene"
        )
    if 0 in core:
        raise ScanError(f"{name}: a volume of shape {shape}; expected at least one voxel")
    if len(core) == 3:
        return core, (0,) * (len(shape) - 3), 1
    if len(core) == 4 or (len(core) == 5 and core[3] == 1):
        return core[:3], (0,) * (len(core) - 4), core[-1]
    raise ScanError(
        f"{name}: a volume of shape {shape}; expected (x, y, z), (x, y, z, channels) or "
        "(x, y, z, 1, channels): split the other axes into files"
    )


def checked_affine(name: str, image: SpatialImage) -> NDArray[np.float64]:
    _check_spacing(name, image)
    affine = image.affine
    if affine is not None and np.isfinite(affine).all():
        affine = np.array(affine, dtype=np.float64)
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        # Relative to a box of these spacings: 0 when two axes point the same way.
        if lengths.all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6:
            return affine
    rows = "unset" if affine is None else np.array2string(np.asarray(affine)[:3]).replace("\n", "")
    raise ScanError(
        f"{name}: unusable affine {rows}; expected finite, independent axes with spacings above "
        "0: repair the header's sform, qform or pixdim"
    )


def stored_spacing(image: SpatialImage) -> tuple[float, float, float] | None:
    """Return the spacing as a NIfTI header holds it, with its signs, which nibabel mends."""
    if not isinstance(image.header, nib.Nifti1Header):
        return None
    part = image.file_map.get("header", image.file_map["image"])
    name = os.fspath(part.filename or "")
    # gzip, which reads a few kB for a header, where indexed_gzip would read a piece of the file.
    packed = name.lower().endswith(".gz")
    with gzip.open(name) if packed else part.get_prepare_fileobj("rb") as file:
        stored = type(image.header).from_fileobj(file, check=False)
    first, second, third = (float(side) for side in stored["pixdim"][1:4])
    return first, second, third


def _check_spacing(name: str, image: SpatialImage) -> None:
    """Raise where the affine follows from a spacing of 0, in place of which nibabel puts 1."""
    header: Any = image.header
    spacing = stored_spacing(image)
    if spacing is None or header["sform_code"] > 0:
        return
    if not all(np.isfinite(side) and side for side in spacing):
        raise ScanError(
            f"{name}: unusable affine, as the spacing is {', '.join(f'{s:g}' for s in spacing)}; "
            "expected three numbers above 0: repair the header's pixdim or set its sform"
        )


def header_notes(
    name: str, image: SpatialImage, affine: NDArray[np.float64], spacing: Sequence[float] | None
) -> tuple[str, ...]:
    """Return what the user should know of a header, a line each."""
    notes = []
    axes = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew >= ORTHOGONAL_WITHIN:
        angle = np.degrees(np.arcsin(min(skew, 1.0)))
        notes.append(
            f"{name}: its axes are up to {angle:.2g} degrees from orthogonal; the affine is kept "
            "as it is, and programs built on ITK may refuse it or show it otherwise"
        )
    if spacing is not None and min(spacing) < 0:
        notes.append(
            f"{name}: its header holds a negative spacing; it is taken without the sign, as "
            "nibabel does, and kept in the output, so that each program shows both alike"
        )
    if not _tells_sides(image):
        runs = "right to left" if affine[0, 0] < 0 else "left to right"
        notes.append(
            f"{name}: its header does not tell left from right; x is taken to run from {runs}, as "
            "nibabel does: check the side, or store it as NIfTI with a qform or sform"
        )
    return tuple(notes)


def _tells_sides(image: SpatialImage) -> bool:
    header: Any = image.header
    if isinstance(header, nib.Nifti1Header):
        return bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    if isinstance(header, AnalyzeHeader):  # SPM keeps the orientation in a .mat file beside it
        beside = image.file_map.get("mat")
        return beside is not None and os.path.exists(os.fspath(beside.filename or ""))
    return True


def returned_dtype(name: str, image: SpatialImage) -> np.dtype:
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "RGB" if dtype.fields else str(dtype)
        raise ScanError(
            f"{name}: voxels of type {kind}; expected integers or floats: store colours or "
            "complex parts as channels of a 4-D volume"
        )
    data: Any = image.dataobj
    if (getattr(data, "slope", 1.0), getattr(data, "inter", 0.0)) != (1.0, 0.0):
        return np.dtype(np.float32)
    return dtype.newbyteorder("=")


def mm_per_unit(image: SpatialImage) -> float:
    units = getattr(image.header, "get_xyzt_units", None)
    try:
        return _MM_PER_UNIT.get(units()[0], 1.0) if units else 1.0
    except KeyError:  # a code that the standard does not know
        return 1.0
