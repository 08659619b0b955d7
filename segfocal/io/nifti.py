"""Volumes: NIfTI and the other formats of nibabel, read by windows.

The file is read plane by plane of its slowest spatial axis, at most one plane more than the
window asks for, so memory never grows with the volume. ``.nii.gz`` files are read through
indexed_gzip, which can start in the middle of the compressed stream.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import (
    aff2axcodes,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.base import check_window
from segfocal.io.channels import channel_indices, numbered_names
from segfocal.io.formats import check_is_file
from segfocal.io.orientation import AxisOrder
from segfocal.types import Patch, Window, window_shape

__all__ = ["VolumeScan"]

_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


class VolumeScan:
    """A volume file as a scan of three axes in a canonical orientation.

    A fourth axis (or a fifth behind a fourth of length 1) holds channels. Data with a slope
    and intercept is returned as float32 in its units, other data in its own type.

    Attributes:
        affine: The file's own affine, shape ``(4, 4)``.
        canonical_affine: The affine of the canonical grid that ``read`` returns.
        header: The file's nibabel header.
        order: How the canonical axes lie in the file.
        files: Names of the files: one, or a pair of header and image.

    Args:
        path: The file.
        orientation: Axis codes, e.g. ``"RAS"``: the canonical axes point right, anterior
            and superior. Any of the 48 is possible.

    Raises:
        ScanNotFoundError: There is no such file.
        ScanError: The file is not a volume, or its header is unusable.
        ValueError: ``orientation`` is not a set of axis codes.
    """

    def __init__(self, path: str | os.PathLike[str], orientation: str = "RAS") -> None:
        self.name = os.fspath(path)
        if sorted(orientation.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
            raise ValueError(
                f"orientation {orientation!r}; expected three letters, one each of R/L, A/P and S/I"
            )
        self._lock = threading.Lock()
        image = _load(self.name)
        self._data: Any = image.dataobj
        parts = (part.filename for part in image.file_map.values())
        self.files: tuple[str, ...] = tuple(os.fspath(name) for name in parts if name)
        file_shape, self._leading, count = _layout(self.name, tuple(image.shape))
        self.affine = _checked_affine(self.name, image)
        self.header = image.header.copy()
        turn = ornt_transform(io_orientation(self.affine), axcodes2ornt(orientation))
        canonical = [int(axis) for axis in turn[:, 0]]
        file_axis = tuple(canonical.index(axis) for axis in range(3))
        self.order = AxisOrder(
            file_axis=file_axis,
            flipped=tuple(bool(turn[axis, 1] < 0) for axis in file_axis),
            shape=tuple(file_shape[axis] for axis in file_axis),
        )
        self.canonical_affine = self.affine @ inv_ornt_aff(turn, file_shape)
        self.orientation = orientation
        self.shape: tuple[int, ...] = self.order.shape
        self.channels = numbered_names("channel", count)
        self.channels_are_named = False
        self.channel_note = ""
        self.slow_axis = canonical[2]
        self.dtype: np.dtype = _returned_dtype(self.name, image)
        spacing = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)) * _mm_per_unit(image)
        self.resolution: tuple[float, ...] | None = tuple(float(spacing[a]) for a in file_axis)

    def georeference(self) -> dict[str, Any]:
        """Return the file's affine and orientation, and the scan's, as a JSON value."""
        return {
            "affine": self.affine.tolist(),
            "file_orientation": "".join(aff2axcodes(self.affine)),
            "orientation": self.orientation,
        }

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the voxels of a window; see :class:`~segfocal.io.base.Scan`.

        Raises:
            ScanError: The file cannot be read there: truncated, damaged or gone.
        """
        chosen = channel_indices(channels, len(self.channels))
        with self._lock:
            if self._data is None:
                raise ValueError(f"{self.name}: the scan is closed")
            check_window(window, self.shape)
            box = self.order.file_window(window)
            block = np.zeros((*window_shape(box), len(chosen)), dtype=self.dtype, order="F")
            if block.size:
                try:
                    self._fill(block, box, chosen)
                except _READ_ERRORS as error:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise ScanError(
                        f"{self.name}: cannot read voxels {_bounds(box)} ({text}); the file is "
                        "truncated, damaged or gone: copy or download it again"
                    ) from error
        values = self.order.to_canonical(block)
        if values.dtype.kind == "f":
            return Patch(values, np.isfinite(values))
        return Patch(values, np.ones(values.shape, dtype=np.bool_))

    def _fill(self, block: NDArray[np.generic], box: Window, chosen: list[int]) -> None:
        first, second, slow = box
        for place, channel in enumerate(chosen):
            for step, plane in enumerate(range(slow.start, slow.stop)):
                # Whole lines of the fastest axis: one contiguous read instead of one per line.
                key = (slice(None), second, plane, *self._leading, channel, 0, 0, 0)
                lines = self._data[key[: self._data.ndim]]
                with np.errstate(over="ignore"):  # float32 infinity, which is invalid
                    block[:, :, step, place] = lines[first]

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        with self._lock:
            self._data = None  # nibabel closes its file when the proxy goes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _load(name: str) -> SpatialImage:
    check_is_file(name)
    expected = "expected a NIfTI file (.nii, .nii.gz, .hdr/.img) or .mgh/.mgz, complete"
    try:
        # No mmap: a file that shrinks while it is mapped kills the process.
        image = nib.load(name, mmap=False, keep_file_open=True)
    except (ImageFileError, HeaderDataError, *_READ_ERRORS) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ScanError(f"{name}: not a volume that nibabel can open ({text}); {expected}") from (
            error
        )
    if not isinstance(image, SpatialImage) or not nib.is_proxy(image.dataobj):
        raise ScanError(f"{name}: {type(image).__name__} is not a volume; {expected}")
    part = image.file_map.get("image")
    stored = name if part is None or part.filename is None else os.fspath(part.filename)
    if not os.path.exists(stored):
        raise ScanError(f"{name}: its image file {stored} is missing; put it beside the header")
    if not stored.lower().endswith((".gz", ".mgz", ".bz2", ".zst")):
        data: Any = image.dataobj
        needed = int(data.offset) + int(np.prod(image.shape)) * data.dtype.itemsize
        if os.path.getsize(stored) < needed:
            raise ScanError(
                f"{name}: the file is truncated: {os.path.getsize(stored)} bytes, the header "
                f"asks for {needed}; copy or download it again"
            )
    return image


def _layout(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return spatial shape, indices between plane and channel axis, and number of channels."""
    core = shape
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


def _checked_affine(name: str, image: SpatialImage) -> NDArray[np.float64]:
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


def _returned_dtype(name: str, image: SpatialImage) -> np.dtype:
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


def _mm_per_unit(image: SpatialImage) -> float:
    units = getattr(image.header, "get_xyzt_units", None)
    try:
        return _MM_PER_UNIT.get(units()[0], 1.0) if units else 1.0
    except KeyError:  # a code that the standard does not know
        return 1.0


def _bounds(window: Window) -> str:
    return ", ".join(f"{side.start}:{side.stop}" for side in window)
