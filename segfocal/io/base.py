"""The scan protocol: what the engine asks of a scene, a volume or an array.

A scan is a grid of pixels with named channels that is read by windows and never as a whole.

* Its axes are ``(row, col)`` for scenes and three axes for volumes, in the *canonical
  orientation*: north-up rows for rasters, the orientation asked for when a volume is
  opened (three letters such as ``"RAS"``, one per array axis). Reading maps each window to
  the file's own order; writers map it back. Nobody above this layer sees a file's order.
* ``read(window)`` takes a tuple of slices with ``0 <= start <= stop <= length`` and returns
  a :class:`~segfocal.types.Patch`: values ``(*sides, channels)`` with scale and offset
  applied, and which of them are valid. A window outside the scan is a ``ValueError``;
  padding is the business of the tile grid.
* ``channels`` argument of ``read``: channel indices, in the order in which they are wanted;
  all channels when left out.
* Reads may come from any one thread at a time or from several: an implementation whose
  library is not thread-safe holds a lock.
* A closed scan raises ``ValueError`` on read. Scans are context managers.

Implementations: :class:`~segfocal.io.geotiff.RasterScan`,
:class:`~segfocal.io.nifti.VolumeScan`, :class:`~segfocal.io.memory.MemoryScan`, and of other scans
a region (:func:`~segfocal.io.cropping.crop`) or another resolution
(:class:`~segfocal.io.resampling.ResampledScan`); one contract test
(``tests/io/test_scan_contract.py``) runs over all of them. Any object with these members is a
scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from segfocal.types import Patch, Window

__all__ = ["Scan", "check_window", "grid_of"]


@runtime_checkable
class Scan(Protocol):
    """Read-only, windowed view of a grid of pixels with named channels."""

    @property
    def name(self) -> str:
        """What to call the scan in messages: its path, or ``"array"``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the spatial axes in pixels, canonical orientation."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, unique, in file order."""

    @property
    def channels_are_named(self) -> bool:
        """True when the file names its channels; False when the names were made up."""

    @property
    def channel_note(self) -> str:
        """What explains an unexpected number of channels, or ``""``."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the values that ``read`` returns."""

    @property
    def slow_axis(self) -> int:
        """Spatial axis along which the file is laid out slowest: sweep along this one."""

    @property
    def resolution(self) -> tuple[float, ...] | None:
        """Size of a pixel along each axis, in CRS units or mm; None when unknown."""

    def georeference(self) -> dict[str, Any]:
        """Where the grid lies, as a JSON value: for people and for comparison, not for writing."""

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window."""

    def close(self) -> None:
        """Release the file. Closing twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def grid_of(scan: Scan) -> Scan:
    """Return the scan that says where another one lies: of several files stacked, the first."""
    while hasattr(scan, "grid"):  # views may stand on views
        scan = scan.grid
    return scan


def check_window(window: Window, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the window lies inside a grid of this shape."""
    inside = len(window) == len(shape) and all(
        side.step in (None, 1)
        and isinstance(side.start, (int, np.integer))
        and isinstance(side.stop, (int, np.integer))
        and 0 <= side.start <= side.stop <= length
        for side, length in zip(window, shape, strict=False)
    )
    if not inside:
        raise ValueError(
            f"window {window} is not inside a scan of shape {shape}; expected one slice per "
            "axis with 0 <= start <= stop <= length and step 1"
        )
