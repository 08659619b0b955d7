"""Label maps: the writers of integer class values, and reading labels back.

Files hold class *values* (the integers of the user's files), never class indices; the model
card maps one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import OutputError, ScanError
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.types import BoolArray, Window, window_shape

if TYPE_CHECKING:
    from segfocal.card import Card
    from segfocal.io.pending import PendingOutput

__all__ = [
    "LabelWriter",
    "Layout",
    "checked_labels",
    "open_label_writer",
    "output_kind",
    "read_labels",
]

Layout = Literal["cog", "gtiff"]

_RASTER_SUFFIXES = (".tif", ".tiff")
_VOLUME_SUFFIXES = (".nii", ".nii.gz")


class LabelWriter(Protocol):
    """Writes a label map by windows, then assembles and verifies the file.

    Windows are in the canonical orientation of the scan, arrive in any order and together
    cover each pixel once. A writer is released with its pending output.
    """

    @property
    def dtype(self) -> np.dtype:
        """Type of the values in the file."""

    @property
    def nodata(self) -> int:
        """Value for pixels without valid input.

        GeoTIFF: 255, or 65535 when a class value is 255 or more. NIfTI knows no nodata: 0.
        """

    def write(self, window: Window, values: NDArray[np.integer]) -> None:
        """Write class values of shape ``window_shape(window)``, nodata filled in.

        Raises:
            ValueError: The window is outside the grid, or the values do not fit.
            OutputError: The scratch file cannot be written.
        """

    def finish(self) -> None:
        """Assemble the final file at ``pending.main`` and verify it.

        Raises:
            OutputError: Pixels are missing, or the file cannot be written or differs from
                what was written.
        """


def open_label_writer(
    pending: PendingOutput,
    scan: Scan,
    card: Card,
    *,
    layout: Layout = "cog",
    tags: Mapping[str, str] | None = None,
) -> LabelWriter:
    """Return the writer for a label map on the grid of ``scan``.

    Args:
        pending: An entered pending output. ``.tif`` and ``.tiff`` are for scenes; ``.nii``
            and ``.nii.gz`` for volumes.
        scan: Where the grid and its georeference or header come from. The grid of an array
            in memory has none.
        card: Class values, names and colours.
        layout: ``"cog"``: a cloud-optimised GeoTIFF with overviews; ``"gtiff"``: a tiled one
            without. Volumes have one layout only.
        tags: More metadata for a GeoTIFF, by name.

    Raises:
        OutputError: The suffix does not fit the scan, the layout is unknown, or there is not
            enough free disk.
    """
    if layout not in get_args(Layout):
        raise OutputError(f"layout {layout!r}; expected one of {', '.join(get_args(Layout))}")
    name, scan = pending.destination.name.lower(), grid_of(scan)
    if len(scan.shape) == 2:
        if name.endswith(_RASTER_SUFFIXES):
            from segfocal.io.geotiff_writer import RasterLabelWriter

            return RasterLabelWriter(pending, scan, card, layout=layout, tags=tags or {})
        expected = f"{' or '.join(_RASTER_SUFFIXES)}, as {scan.name} is a scene"
    else:
        if name.endswith(_VOLUME_SUFFIXES):
            from segfocal.io.nifti_writer import VolumeLabelWriter

            return VolumeLabelWriter(pending, scan, card)
        expected = f"{' or '.join(_VOLUME_SUFFIXES)}, as {scan.name} is a volume"
    raise OutputError(f"{pending.destination}: cannot write labels there; expected {expected}")


def output_kind(destination: Path, layout: Layout = "cog") -> str:
    """Return the kind of file that a label map at ``destination`` is, by its suffix."""
    name = destination.name.lower()
    if name.endswith(_RASTER_SUFFIXES):
        return layout
    return next((suffix for suffix in _VOLUME_SUFFIXES if name.endswith(suffix)), "unknown")


def checked_labels(
    window: Window, values: NDArray[np.generic], shape: tuple[int, ...], dtype: np.dtype
) -> NDArray[np.generic]:
    """Return ``values`` as ``dtype`` after checking them against window, grid and type.

    Raises:
        ValueError: They do not fit.
    """
    check_window(window, shape)
    values = np.asarray(values)
    if values.shape != window_shape(window) or values.dtype.kind not in "iu":
        raise ValueError(
            f"labels {values.dtype} of shape {values.shape} for window {window}; expected "
            f"integers of shape {window_shape(window)}"
        )
    if values.size and values.dtype != dtype:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > np.iinfo(dtype).max:
            raise ValueError(f"labels from {low} to {high}; expected 0 to {np.iinfo(dtype).max}")
    return values.astype(dtype, copy=False)


def read_labels(scan: Scan, window: Window) -> tuple[NDArray[np.int32], BoolArray]:
    """Read class values from a label scan.

    Returns:
        Class values, int32 of shape ``window_shape(window)`` and 0 where invalid, and which
        of them are valid.

    Raises:
        ScanError: The scan has more than one channel, or values that are not integers.
    """
    if len(scan.channels) != 1:
        raise ScanError(
            f"{scan.name}: {len(scan.channels)} channels; expected one channel of class values: "
            "a label map, not an image or one-hot masks"
        )
    patch = scan.read(window)
    valid = patch.valid[..., 0]
    values = np.where(valid, patch.values[..., 0], 0)
    with np.errstate(invalid="ignore"):  # out of range, found by the comparison
        labels = values.astype(np.int32)
    wrong = labels != values
    if wrong.any():
        raise ScanError(
            f"{scan.name}: value {values[wrong][0]} among the labels; expected whole numbers "
            "that fit in 32 bits: was the label map resampled with interpolation?"
        )
    return labels, valid
