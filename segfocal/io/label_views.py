"""Label scans made from others: a band, colours, instances, masks, annotated areas.

Each is a scan of one channel of whole numbers on the grid of the scan it is made from, and
closes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.base import Scan
from segfocal.io.channels import channel_indices
from segfocal.io.grids import check_same_grid
from segfocal.types import BoolArray, Patch, Window, window_shape

__all__ = ["AreaLabels", "BandLabels", "ColorLabels", "InstanceLabels", "MaskLabels"]

CODE = np.dtype(np.int32)


class _LabelView:
    """What the views share: everything but the values is the source's."""

    def __init__(self, source: Scan, dtype: np.dtype = CODE) -> None:
        self._source = source
        self.name = source.name
        self.shape = source.shape
        self.channels: tuple[str, ...] = ("label",)
        self.channels_are_named = False
        self.channel_note = ""
        self.dtype: np.dtype = dtype
        self.slow_axis, self.resolution = source.slow_axis, source.resolution
        self.grid = getattr(source, "grid", source)
        self.files: tuple[str, ...] = tuple(getattr(source, "files", ()))

    def georeference(self) -> dict[str, Any]:
        """Return that of the source."""
        return self._source.georeference()

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        """Return codes and validity of a window, both without a channel axis."""
        raise NotImplementedError

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        codes, valid = self.codes(window)
        chosen = channel_indices(channels, 1)
        return Patch(codes[..., None][..., chosen], valid[..., None][..., chosen])

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BandLabels(_LabelView):
    """One band of a scan, with the nodata value that a spec gives.

    Args:
        source: The scan.
        band: Which, counted from 1.
        nodata: Value that is no label.
        honour_nodata: False: what the file calls nodata is a label.

    Raises:
        ScanError: There is no such band.
    """

    def __init__(
        self,
        source: Scan,
        *,
        band: int = 1,
        nodata: float | None = None,
        honour_nodata: bool = True,
    ) -> None:
        super().__init__(source, source.dtype)
        if band > len(source.channels):
            raise ScanError(
                f"{source.name}: has {len(source.channels)} bands; labels are said to be in band "
                f"{band}"
            )
        self._band, self._nodata, self._honour = band - 1, nodata, honour_nodata

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        patch = self._source.read(window, [self._band])
        values: NDArray[Any] = patch.values[..., 0]
        valid: BoolArray = np.array(patch.valid[..., 0])
        if not self._honour:
            valid[...] = np.isfinite(values) if values.dtype.kind == "f" else True
        if self._nodata is not None:
            valid[values == self._nodata] = False
        return values, valid


class ColorLabels(_LabelView):
    """Colours as numbers: red << 16 | green << 8 | blue.

    Args:
        source: A scan of three channels: red, green and blue, 0 to 255.
        known: Packed colours of the classes.
        tolerance: A colour whose parts differ by no more than this from a known one is taken
            for the nearest: lossy compression changes colours.

    Raises:
        ScanError: The scan has other channels.
    """

    def __init__(self, source: Scan, known: Sequence[int], tolerance: int = 0) -> None:
        super().__init__(source)
        if len(source.channels) != 3 or source.dtype.kind != "u":
            raise ScanError(
                f"{source.name}: {len(source.channels)} channels of {source.dtype}; expected red, "
                "green and blue of 8 bits, as the labels are said to be colours"
            )
        self._known = np.asarray(known, np.int64)
        self._tolerance = tolerance

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        patch = self._source.read(window)
        red, green, blue = np.moveaxis(patch.values.astype(np.int32), -1, 0)
        codes = red << 16 | green << 8 | blue
        if self._tolerance and codes.size:
            colors, place = np.unique(codes, return_inverse=True)
            codes = self._snapped(colors)[place].reshape(codes.shape)
        valid: BoolArray = np.asarray(patch.valid.all(-1))
        return codes, valid

    def _snapped(self, colors: NDArray[np.int32]) -> NDArray[np.int32]:
        snapped = colors.copy()
        step = 2**16  # an image may hold 2^24 colours
        for start in range(0, len(colors), step):
            part = colors[start : start + step]
            apart = np.abs(_parts(part)[:, None] - _parts(self._known)[None]).max(-1)
            nearest = apart.argmin(1)
            near = apart[np.arange(len(part)), nearest] <= self._tolerance
            snapped[start : start + step][near] = self._known[nearest[near]]
        return snapped


def _parts(codes: NDArray[np.integer]) -> NDArray[np.int16]:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.int16)


class InstanceLabels(_LabelView):
    """Numbered objects as one class: above 0 is ``value``, 0 stays."""

    def __init__(self, source: Scan, value: int) -> None:
        super().__init__(source)
        self._value = value

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        patch = self._source.read(window, [0])
        values: NDArray[Any] = patch.values[..., 0]
        return np.where(values > 0, self._value, 0).astype(CODE), patch.valid[..., 0]


class AreaLabels(_LabelView):
    """Labels that count inside an area only.

    Args:
        source: The labels.
        area: A scan on the same grid, valid and above 0 inside; it is closed with this one.
    """

    def __init__(self, source: Scan, area: Scan) -> None:
        super().__init__(source, source.dtype)
        self._area = area

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        patch, area = self._source.read(window, [0]), self._area.read(window, [0])
        values: NDArray[Any] = area.values
        inside = area.valid & (values > 0)
        return patch.values[..., 0], (patch.valid & inside)[..., 0]

    def close(self) -> None:
        """Close both."""
        super().close()
        self._area.close()


class MaskLabels(_LabelView):
    """A mask for each class as one label map, 0 where there is none.

    Args:
        masks: Values and open scans of one grid, above 0 inside; of masks that overlap the
            later counts. They are closed with this one.

    Raises:
        ScanError: The masks do not lie on one grid.
    """

    def __init__(self, masks: Sequence[tuple[int, Scan]]) -> None:
        super().__init__(masks[0][1])
        for _, mask in masks[1:]:
            check_same_grid(masks[0][1], mask)
        self._masks = tuple(masks)

    def codes(self, window: Window) -> tuple[NDArray[np.generic], BoolArray]:
        codes = np.zeros(window_shape(window), CODE)
        valid = np.ones(codes.shape, np.bool_)
        for value, mask in self._masks:
            patch = mask.read(window, [0])
            values: NDArray[Any] = patch.values[..., 0]
            codes[values > 0] = value
            valid &= patch.valid[..., 0]
        return codes, valid

    def close(self) -> None:
        """Close all masks."""
        for _, mask in self._masks:
            mask.close()
