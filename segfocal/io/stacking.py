"""Channels of several files as one scan: bands of a scene, modalities of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np

from segfocal.errors import ScanError
from segfocal.io.base import Scan, check_window
from segfocal.io.channels import channel_indices, scaling_of
from segfocal.io.grids import check_same_grid
from segfocal.types import Patch, Window, window_shape

__all__ = ["StackedScan"]


class StackedScan:
    """Several scans of one grid, their channels one after the other.

    The first scan is the one that labels are written on: name, georeference and header are
    its own. A pixel of a channel is valid where it is in the scan that the channel is from.

    Args:
        scans: Open scans; they are closed with this one.
        names: A name for each channel. Left out: the channels' own names where every scan
            names them, else made from the names of the files.

    Attributes:
        grid: The first scan.
        files: Names of the files of all scans.
        scaling: Scale and offset of each channel, which its file says and ``read`` has applied.

    Raises:
        ScanError: The scans do not lie on the same grid, or names stand twice.
    """

    def __init__(self, scans: Sequence[Scan], names: Sequence[str] | None = None) -> None:
        if not scans:
            raise ScanError("no files to read channels from; expected at least one")
        self.grid, *others = scans
        for other in others:
            check_same_grid(self.grid, other)
        self._scans: tuple[Scan, ...] | None = tuple(scans)
        self._origin = [(scan, channel) for scan in scans for channel in range(len(scan.channels))]
        self.channels_are_named = names is not None or all(
            scan.channels_are_named for scan in scans
        )
        self.channels: tuple[str, ...] = _names(scans) if names is None else tuple(names)
        if len(self.channels) != len(self._origin):
            raise ScanError(
                f"{self.grid.name}: {len(self._origin)} channels in {len(scans)} files; expected "
                f"{len(self.channels)}: {', '.join(self.channels)}"
            )
        twice = [name for name in self.channels if self.channels.count(name) > 1]
        if twice:
            raise ScanError(
                f"{self.grid.name}: channel {twice[0]} is in two of the files; expected each once"
            )
        self.scaling = tuple(pair for scan in scans for pair in scaling_of(scan))
        self.name, self.shape = self.grid.name, self.grid.shape
        self.slow_axis, self.resolution = self.grid.slow_axis, self.grid.resolution
        self.dtype: np.dtype = np.result_type(*(scan.dtype for scan in scans))
        self.channel_note = next((scan.channel_note for scan in scans if scan.channel_note), "")
        self.files: tuple[str, ...] = tuple(
            dict.fromkeys(name for scan in scans for name in (scan.name, *_files(scan)))
        )

    def georeference(self) -> dict[str, Any]:
        """Return that of the first scan."""
        return self.grid.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`.

        Raises:
            ScanError: A file cannot be read there.
        """
        if self._scans is None:
            raise ValueError(f"{self.name}: the scan is closed")
        check_window(window, self.shape)
        chosen = [self._origin[i] for i in channel_indices(channels, len(self._origin))]
        shape = (*window_shape(window), len(chosen))
        values, valid = np.empty(shape, self.dtype), np.empty(shape, np.bool_)
        for scan in self._scans:
            places = [i for i, (of, _) in enumerate(chosen) if of is scan]
            if places:
                patch = scan.read(window, [chosen[i][1] for i in places])
                values[..., places], valid[..., places] = patch.values, patch.valid
        return Patch(values, valid)

    def remember_planes(self) -> None:
        """Keep planes of compressed volumes; see :class:`~segfocal.io.nifti.VolumeScan`."""
        for scan in self._scans or ():
            if hasattr(scan, "remember_planes"):
                scan.remember_planes()

    @property
    def remembered_bytes(self) -> int:
        """What the planes that are kept may take."""
        return sum(getattr(scan, "remembered_bytes", 0) for scan in self._scans or ())

    def close(self) -> None:
        """Close all scans. Closing twice is harmless."""
        for scan in self._scans or ():
            scan.close()
        self._scans = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _files(scan: Scan) -> tuple[str, ...]:
    return tuple(getattr(scan, "files", ()))


def _names(scans: Sequence[Scan]) -> tuple[str, ...]:
    """Return names of all channels: their own, or the file's where that makes them differ."""
    own = [name for scan in scans for name in scan.channels]
    if all(scan.channels_are_named for scan in scans) and len(set(own)) == len(own):
        return tuple(own)
    names = []
    for scan in scans:
        stem = PurePath(scan.name).name.split(".")[0]
        single = len(scan.channels) == 1 and not scan.channels_are_named
        names += [stem] if single else [f"{stem}.{name}" for name in scan.channels]
    return tuple(names)
