"""Volumes: NIfTI and the other formats of nibabel, read by windows.

The file is read plane by plane of its slowest spatial axis, at most one plane more than the
window asks for, so memory never grows with the volume. ``.nii.gz`` files are read through
indexed_gzip, which can start in the middle of the compressed stream.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from nibabel.orientations import (
    aff2axcodes,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.base import check_window
from segfocal.io.channels import channel_indices, numbered_names
from segfocal.io.orientation import AxisOrder
from segfocal.io.plane_cache import PLANE_BYTES, PlaneCache
from segfocal.io.plane_stream import PlaneStream
from segfocal.io.volume_header import (
    PACKED_SUFFIXES,
    READ_ERRORS,
    checked_affine,
    header_notes,
    mm_per_unit,
    open_volume,
    returned_dtype,
    spatial_layout,
    stored_spacing,
    voxel_file,
)
from segfocal.types import Patch, Window, window_shape

__all__ = ["VolumeScan"]


class VolumeScan:
    """A volume file as a scan of three axes in a canonical orientation.

    A fourth axis (or a fifth behind a fourth of length 1) holds channels. Data with a slope
    and intercept is returned as float32 in its units, other data in its own type.

    Attributes:
        affine: The file's own affine, shape ``(4, 4)``.
        canonical_affine: The affine of the canonical grid that ``read`` returns.
        affine_mm: The same in millimetres, whatever the unit of the file.
        notes: What the user of the file should know, a line each.
        header: The file's nibabel header.
        stored_spacing: The spacing as the file's header holds it, with its signs; None: no NIfTI.
        order: How the canonical axes lie in the file.
        scaling: Slope and intercept of each channel, which ``read`` has applied.
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
        image = open_volume(self.name)
        self._data: Any = image.dataobj
        parts = (part.filename for part in image.file_map.values())
        self.files: tuple[str, ...] = tuple(os.fspath(name) for name in parts if name)
        file_shape, self._leading, count = spatial_layout(self.name, tuple(image.shape))
        self.affine = checked_affine(self.name, image)
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
        self.dtype: np.dtype = returned_dtype(self.name, image)
        slope, intercept = getattr(self._data, "slope", 1.0), getattr(self._data, "inter", 0.0)
        self.scaling = ((float(slope), float(intercept)),) * count
        spacing = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)) * mm_per_unit(image)
        self.resolution: tuple[float, ...] | None = tuple(float(spacing[a]) for a in file_axis)
        self.affine_mm = np.diag([*[mm_per_unit(image)] * 3, 1.0]) @ self.canonical_affine
        self.stored_spacing = stored_spacing(image)
        self.notes: tuple[str, ...] = header_notes(
            self.name, image, self.affine, self.stored_spacing
        )
        self._stored = voxel_file(self.name, image)
        self._packed = self._stored.lower().endswith(PACKED_SUFFIXES)
        self._planes: PlaneCache | None = None
        self._stream: PlaneStream | None = None

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
                except READ_ERRORS as error:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise ScanError(
                        f"{self.name}: cannot read voxels {_bounds(box)} ({text}); the file is "
                        "truncated, damaged or gone: copy or download it again"
                    ) from error
        values = self.order.to_canonical(block)
        if values.dtype.kind == "f":
            return Patch(values, np.isfinite(values))
        return Patch(values, np.ones(values.shape, dtype=np.bool_))

    def remember_planes(self) -> None:
        """Keep planes of a compressed file: for a caller that reads tiles row by row.

        Each plane of a row of tiles is then inflated once, and the file from front to back. One
        that is swept from its end (its slowest axis runs against the canonical one), or that
        has channels, is gone through once to learn where reads may begin, and then read in
        pieces of 16 MiB, each from up to 4 MiB before its start.
        Nothing is kept when a read takes more than 256 MiB of planes.
        """
        if self._packed and self._planes is None:
            self._planes = PlaneCache(self._plane_bytes, self._load_planes)
            in_order = not self.order.flipped[self.slow_axis] and len(self.channels) == 1
            if in_order and self._stored.lower().endswith((".gz", ".mgz")):
                self._stream = PlaneStream(self._stored, self._data, self.order.file_shape)

    @property
    def remembered_bytes(self) -> int:
        """What the planes that are kept may take."""
        whole = self._plane_bytes * self.shape[self.slow_axis] * len(self.channels)
        return min(PLANE_BYTES, whole) if self._packed else 0

    @property
    def _plane_bytes(self) -> int:
        return int(np.prod(self.order.file_shape[:2])) * self.dtype.itemsize

    def _fill(self, block: NDArray[np.generic], box: Window, chosen: list[int]) -> None:
        first, second, slow = box
        planes = self._planes
        if planes is not None and planes.has_room(block.shape[2] * len(chosen)):
            for place, channel in enumerate(chosen):
                kept = planes.get(channel, range(slow.start, slow.stop))
                for step, whole in enumerate(kept):
                    block[:, :, step, place] = whole[first, second]
            return
        for place, channel in enumerate(chosen):
            for step, plane in enumerate(range(slow.start, slow.stop)):
                # Whole lines of the fastest axis: one contiguous read instead of one per line.
                key = (slice(None), second, plane, *self._leading, channel, 0, 0, 0)
                lines = self._data[key[: self._data.ndim]]
                with np.errstate(over="ignore"):  # float32 infinity, which is invalid
                    block[:, :, step, place] = lines[first]

    def _load_planes(self, channel: int, planes: range) -> NDArray[np.generic]:
        with np.errstate(over="ignore"):  # float32 infinity, which is invalid
            if self._stream is not None and not self._stream.is_before(planes):
                self._stream.close()
                self._stream = None
            if self._stream is not None:
                return self._stream.read(planes).astype(self.dtype, copy=False)
            part = slice(planes.start, planes.stop)
            key = (slice(None), slice(None), part, *self._leading, channel, 0, 0, 0)
            return self._data[key[: self._data.ndim]].astype(self.dtype, copy=False)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        with self._lock:
            self._planes = None
            if self._stream is not None:
                self._stream.close()
                self._stream = None
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


def _bounds(window: Window) -> str:
    return ", ".join(f"{side.start}:{side.stop}" for side in window)
