"""Label maps of volumes: NIfTI on the grid, and with the header, of the input.

Labels go to a raw scratch file in the order of the final file, which is then streamed behind
a header. Plain reads and writes: a full disk is then an error, where a memory map would kill
the process.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from segfocal.errors import OutputError
from segfocal.io.base import Scan
from segfocal.io.labels import checked_labels
from segfocal.io.nifti import VolumeScan
from segfocal.io.orientation import AxisOrder
from segfocal.io.pending import PendingOutput, writing
from segfocal.types import Window, window_shape

if TYPE_CHECKING:
    from segfocal.card import Card

__all__ = ["VolumeLabelWriter"]

NIFTI1_LONGEST_SIDE = 32767
_LABEL_INTENT = 1002
_CHUNK = 4 * 2**20
_NO_EXTENSIONS = b"\0\0\0\0"


class VolumeLabelWriter:
    """Writes labels of a volume; see :class:`~segfocal.io.labels.LabelWriter`.

    Attributes:
        dtype: uint8, or uint16 when a class value is 255 or more.
        nodata: 0, as NIfTI knows no nodata value.
    """

    nodata = 0

    def __init__(self, pending: PendingOutput, scan: Scan, card: Card) -> None:
        self.dtype: np.dtype = np.dtype("<u1" if card.class_values.max() < 255 else "<u2")
        self._pending, self._scan = pending, scan
        self._order = scan.order if isinstance(scan, VolumeScan) else AxisOrder.identity(scan.shape)
        self._missing = int(np.prod(scan.shape))
        size = self._missing * self.dtype.itemsize
        self._compress = pending.destination.name.lower().endswith(".gz")
        # Labels in .nii.gz take a few percent of their raw size; a quarter is generous.
        pending.require_space(size + (size // 4 if self._compress else size))
        self._path = pending.scratch("labels.raw")
        with writing(pending.destination):
            self._scratch: IO[bytes] = open(self._path, "w+b", buffering=0)  # noqa: SIM115
            pending.defer(self._scratch.close)
            self._scratch.truncate(size)

    def write(self, window: Window, values: NDArray[np.integer]) -> None:
        """Write class values; see :class:`~segfocal.io.labels.LabelWriter`."""
        labels = checked_labels(window, values, self._scan.shape, self.dtype)
        if labels.size == 0:
            return
        self._missing -= labels.size
        if self._missing < 0:
            raise ValueError(f"{self._pending.destination}: voxels of {window} stand twice")
        box = self._order.file_window(window)
        first, second, slow = box
        block = self._order.to_file(labels)
        width = self._order.file_shape[0]
        whole = window_shape(box)[0] == width
        with writing(self._pending.destination):
            for step, plane in enumerate(range(slow.start, slow.stop)):
                # Lines of the fastest axis, contiguous in the file.
                start = (plane * self._order.file_shape[1] + second.start) * width
                lines = block[:, :, step].T
                if not whole:
                    lines = self._read(start, (lines.shape[0], width))
                    lines[:, first] = block[:, :, step].T
                self._scratch.seek(start * self.dtype.itemsize)
                _write_all(self._scratch, lines.tobytes())

    def _read(self, start: int, shape: tuple[int, int]) -> NDArray[np.generic]:
        self._scratch.seek(start * self.dtype.itemsize)
        lines = np.empty(shape, dtype=self.dtype)
        view = memoryview(lines.data).cast("B")
        while view:
            count = self._scratch.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"{self._path} is shorter than it was made")
            view = view[count:]
        return lines

    def finish(self) -> None:
        """Assemble and verify the file; see :class:`~segfocal.io.labels.LabelWriter`."""
        destination = self._pending.destination
        if self._missing:
            raise OutputError(
                f"{destination}: {self._missing} voxels were never written; expected windows "
                "that cover the whole scan"
            )
        header = self._header()
        with writing(destination, HeaderDataError, ImageFileError, zlib.error, EOFError):
            self._scratch.close()
            checksum = 0
            with _open_output(self._pending.main, self._compress) as output:
                output.write(header.binaryblock + _NO_EXTENSIONS)
                for chunk in _chunks(self._path):
                    checksum = zlib.crc32(chunk, checksum)
                    output.write(chunk)
            self._verify(header, checksum)

    def _header(self) -> nib.Nifti1Header:
        """Return the input's header with everything that describes its values replaced."""
        scan, shape = self._scan, self._order.file_shape
        source = scan.header if isinstance(scan, VolumeScan) else None
        affine = scan.affine if isinstance(scan, VolumeScan) else np.eye(4)
        header = _geometry(source, affine, shape)
        header.set_data_dtype(self.dtype)
        header.set_data_shape(shape)
        header.set_intent(_LABEL_INTENT, allow_unknown=True)
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["cal_min"], header["cal_max"] = 0, 0
        header["magic"] = header.single_magic
        header["vox_offset"] = header.single_vox_offset  # extensions are not copied
        return header

    def _verify(self, header: nib.Nifti1Header, checksum: int) -> None:
        """Read back what is on disk and compare it with what was written."""
        output = nib.load(self._pending.main, mmap=False)
        if not isinstance(output, SpatialImage):
            raise OutputError(f"{self._pending.destination}: verification failed: not a volume")
        faults = [
            what
            for what, same in (
                ("shape", output.shape == self._order.file_shape),
                ("affine", np.array_equal(output.affine, header.get_best_affine())),
                ("type", output.get_data_dtype() == self.dtype),
                ("voxels", self._stored_checksum(header) == checksum),
            )
            if not same
        ]
        if faults:
            raise OutputError(
                f"{self._pending.destination}: verification failed: {', '.join(faults)} on disk "
                "not as written; check the disk and run again"
            )

    def _stored_checksum(self, header: nib.Nifti1Header) -> int:
        checksum = 0
        skip = header.single_vox_offset
        for chunk in _chunks(self._pending.main, skip, compressed=self._compress):
            checksum = zlib.crc32(chunk, checksum)
        return checksum


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


@contextlib.contextmanager
def _open_output(path: Path, compress: bool) -> Iterator[IO[bytes]]:
    """Open for writing; compressed bytes hold neither time nor file name, so that they repeat."""
    with open(path, "wb") as file:
        if compress:
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield file


def _chunks(path: Path, skip: int = 0, *, compressed: bool = False) -> Iterator[bytes]:
    with gzip.open(path) if compressed else open(path, "rb") as file:
        file.seek(skip)
        while chunk := file.read(_CHUNK):
            yield chunk


def _write_all(file: IO[bytes], content: bytes) -> None:
    """An unbuffered file may take less than it is given."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
