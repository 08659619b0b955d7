"""NIfTI files that are written by streaming: the input's geometry, then voxels from a raw file."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension, Nifti1Extensions
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from segfocal.io.base import Scan
from segfocal.io.nifti import VolumeScan
from segfocal.io.orientation import AxisOrder
from segfocal.io.raw_volume import chunks

__all__ = ["NIFTI_ERRORS", "axis_order", "faults_on_disk", "output_header", "write_nifti"]

NIFTI1_LONGEST_SIDE = 32767

NIFTI_ERRORS = (HeaderDataError, ImageFileError, zlib.error, EOFError)
"""What writing and reading back may raise besides ``OSError``."""

_SPATIAL_UNITS = 0b111
_FREE_TEXT = {"descrip", "db_name", "aux_file", "data_type"}


def axis_order(scan: Scan) -> AxisOrder:
    """Return how a scan's axes lie in its file; an array in memory lies as it is."""
    return scan.order if isinstance(scan, VolumeScan) else AxisOrder.identity(scan.shape)


def output_header(scan: Scan, dtype: np.dtype, layers: int | None = None) -> nib.Nifti1Header:
    """Return the input's header with everything that describes its values replaced.

    Args:
        scan: Where grid and header come from.
        dtype: Type of the voxels.
        layers: Length of a fourth axis; none when left out.
    """
    shape = axis_order(scan).file_shape
    source = scan.header if isinstance(scan, VolumeScan) else None
    affine = scan.affine if isinstance(scan, VolumeScan) else np.eye(4)
    header = _geometry(source, affine, shape)
    header.set_data_dtype(dtype)
    header.set_data_shape(shape if layers is None else (*shape, layers))
    if layers is not None:  # what the axis counts is no time
        header["pixdim"][4], header["toffset"], header["slice_code"] = 1, 0, 0
        header["xyzt_units"] = int(header["xyzt_units"]) & _SPATIAL_UNITS
    header["intent_code"], header["intent_name"] = 0, b""
    header["intent_p1"], header["intent_p2"], header["intent_p3"] = 0, 0, 0
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    # Free text of converters may name a patient, or a file that these voxels do not belong to.
    for field in _FREE_TEXT & {*header.keys()}:
        header[field] = b""
    spacing = scan.stored_spacing if isinstance(scan, VolumeScan) else None
    if spacing is not None and min(spacing) < 0:
        header["pixdim"][1:4] = spacing
    header["magic"] = header.single_magic
    return header


def _geometry(
    source: object, affine: NDArray[np.float64], shape: tuple[int, ...]
) -> nib.Nifti1Header:
    """Return a little-endian NIfTI header with the source's geometry, bit by bit if possible."""
    wide = isinstance(source, nib.Nifti2Header)
    needs_wide = wide or max(shape) > NIFTI1_LONGEST_SIDE
    kind = nib.Nifti2Header if needs_wide else nib.Nifti1Header
    if isinstance(source, nib.Nifti1Header) and wide == needs_wide:
        little = source.as_byteswapped("<")
        return kind(little.binaryblock, endianness="<", check=False)
    header = kind(endianness="<")
    header.set_data_shape(shape)
    header.set_zooms(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    if isinstance(source, nib.Nifti1Header):
        header.set_qform(source.get_qform(), int(source["qform_code"]))
        header.set_sform(source.get_sform(), int(source["sform_code"]))
        header["xyzt_units"] = source["xyzt_units"]
    else:
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        header.set_xyzt_units("mm")
    return header


def write_nifti(
    path: Path, header: nib.Nifti1Header, raw: Path, extensions: Sequence[Nifti1Extension] = ()
) -> int:
    """Write a header, its extensions and the voxels of a raw file.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        header: Its ``vox_offset`` is set.
        raw: Voxels in the order of the file.
        extensions: Header extensions; the input's are never copied, as they may hold names of
            patients.

    Returns:
        Checksum of the voxels.
    """
    block = Nifti1Extensions(extensions)
    extra = BytesIO()
    extra.write(b"\1\0\0\0" if extensions else b"\0\0\0\0")
    block.write_to(extra, byteswap=header.endianness != nib.volumeutils.native_code)
    header["vox_offset"] = header.single_vox_offset + block.get_sizeondisk()
    checksum = 0
    with _open_output(path) as output, open(raw, "rb") as voxels:
        output.write(header.binaryblock + extra.getvalue())
        for chunk in chunks(voxels):
            checksum = zlib.crc32(chunk, checksum)
            output.write(chunk)
    return checksum


def faults_on_disk(path: Path, header: nib.Nifti1Header, checksum: int) -> list[str]:
    """Read back a file; return in words what is not as it was written."""
    output = nib.load(path, mmap=False)
    if not isinstance(output, SpatialImage):
        return ["kind of file"]
    checks = (
        ("shape", output.shape == header.get_data_shape()),
        ("affine", np.array_equal(output.affine, _affine_read(header))),
        ("type", output.get_data_dtype() == header.get_data_dtype()),
        ("voxels", _stored_checksum(path, int(header["vox_offset"])) == checksum),
    )
    return [what for what, same in checks if not same]


def _affine_read(header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return the affine that nibabel reads from a header: without the signs of spacings."""
    mended = header.copy()
    mended["pixdim"][1:4] = np.abs(mended["pixdim"][1:4])
    return mended.get_best_affine()


def _stored_checksum(path: Path, skip: int) -> int:
    checksum = 0
    with gzip.open(path) if _is_packed(path) else open(path, "rb") as file:
        file.seek(skip)
        for chunk in chunks(file):  # type: ignore[arg-type]
            checksum = zlib.crc32(chunk, checksum)
    return checksum


@contextlib.contextmanager
def _open_output(path: Path) -> Iterator[IO[bytes]]:
    """Open for writing; compressed bytes hold neither time nor file name, so that they repeat."""
    with open(path, "wb") as file:
        if _is_packed(path):
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield file


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")
