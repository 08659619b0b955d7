"""Scans seen at another resolution, window by window.

The new grid has ``max(1, round(n * old / new))`` pixels along each axis and the extent of the
scan; see :mod:`segfocal.interpolation`. Interpolation is linear, or by a cubic B-spline, as in
scipy and scikit-image, without smoothing before and without clipping after.

*Anisotropic volumes*: where the spacing along one axis is more than three times the smallest, the
nearest plane is taken along it and planes are interpolated within themselves, as nnU-Net does.

*Validity*: a pixel is valid when every pixel is that has a weight in linear interpolation there,
for both orders. What stands at a place that is not valid never counts: the cubic spline, which
reaches further, finds there what the valid pixels around say, spread from pixel to pixel.

*Exactness*: linear interpolation is the same to the last bit in whichever window it is read. A
cubic spline depends on all pixels, on far ones by next to nothing: windows are read with
a margin, and agree with the whole scan within 1e-5 of its range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segfocal.errors import ScanError
from segfocal.interpolation import AxisMap, all_valid, interpolate, small_windows
from segfocal.io.base import Scan, check_window, grid_of
from segfocal.io.channels import channel_indices
from segfocal.types import BoolArray, Patch, Window, window_shape

__all__ = ["Interpolation", "ResampledScan", "coarse_axis", "resampled_shape"]

Interpolation = Literal[1, 3]

ANISOTROPIC = 3
"""Ratio of spacings beyond which planes are interpolated each on its own, as in nnU-Net."""

MARGIN = 20
"""Pixels around a window from which a cubic spline is made; an error there has faded to 4e-12,
and to 2e-6 where it comes from what stands in for pixels that are not valid."""

SPREAD = 10
"""Pixels that values are spread over what is not valid; an error beyond has faded to 2e-6."""

READ_VALUES = 2**21
"""Pixels times channels that are read at once, the margin aside."""


def resampled_shape(
    shape: Sequence[int], resolution: Sequence[float], wanted: Sequence[float]
) -> tuple[int, ...]:
    """Return the numbers of pixels of the grid at another resolution."""
    return tuple(
        max(1, round(length * old / new))
        for length, old, new in zip(shape, resolution, wanted, strict=True)
    )


def coarse_axis(resolution: Sequence[float], wanted: Sequence[float]) -> int | None:
    """Return the axis of a volume along which the nearest plane is taken, or None.

    It is the one coarse axis of the grid that is resampled or, where that has none, of the grid
    wanted. Scenes and volumes with two coarse axes have none.
    """
    for sides in (resolution, wanted):
        if len(sides) == 3 and max(sides) > ANISOTROPIC * min(sides):
            coarsest = [axis for axis, side in enumerate(sides) if side == max(sides)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


class ResampledScan:
    """A scan at another resolution; see :class:`~segfocal.io.base.Scan` and this module.

    For images: class values cannot be interpolated.

    Args:
        scan: An open scan with a resolution; it is closed together with this one.
        resolution: Size of a pixel along each axis, in the unit of the scan's. That of this scan
            differs from it as far as its number of pixels is rounded.
        interpolation: 1 for linear, 3 for cubic.

    Attributes:
        scan: The scan.
        maps: From its pixels to the pixels of this one, per axis.
        back: The other way, linear or nearest, for probabilities.

    Raises:
        ScanError: The scan has no resolution, or another number of axes.
    """

    def __init__(
        self, scan: Scan, resolution: Sequence[float], interpolation: Interpolation = 1
    ) -> None:
        known = scan.resolution
        if known is None or len(known) != len(resolution):
            raise ScanError(
                f"{scan.name}: cannot be resampled: its resolution is {known}; expected "
                f"{len(resolution)} numbers"
            )
        self.scan, self.interpolation = scan, interpolation
        self.name = scan.name
        self.shape: tuple[int, ...] = resampled_shape(scan.shape, known, resolution)
        coarse = coarse_axis(known, resolution)
        self.maps = tuple(
            AxisMap(old, new, 0 if axis == coarse else interpolation)
            for axis, (old, new) in enumerate(zip(scan.shape, self.shape, strict=True))
        )
        coarse = coarse_axis(resolution, known)
        self.back = tuple(
            AxisMap(new, old, 0 if axis == coarse else 1)
            for axis, (old, new) in enumerate(zip(scan.shape, self.shape, strict=True))
        )
        self.channels = scan.channels
        self.channels_are_named = scan.channels_are_named
        self.channel_note = scan.channel_note
        self.dtype: np.dtype = np.dtype(np.float32)
        self.slow_axis = scan.slow_axis
        self.resolution: tuple[float, ...] | None = tuple(
            side * axis.source / axis.target for side, axis in zip(known, self.maps, strict=True)
        )

    def georeference(self) -> dict[str, Any]:
        """Return what is known of the scan, with the transform or affine of this grid."""
        about = self.scan.georeference()
        steps = [axis.source / axis.target for axis in self.maps]
        if about.get("transform") is not None:
            a, b, c, d, e, f = about["transform"]
            rows, cols = steps
            about["transform"] = [a * cols, b * rows, c, d * cols, e * rows, f]
        if about.get("affine") is not None:
            grid: Any = grid_of(self.scan)
            in_file = np.array([steps[axis] for axis in grid.order.canonical_axis])
            affine = np.array(about["affine"], np.float64)
            affine[:3, 3] += affine[:3, :3] @ ((in_file - 1) / 2)
            affine[:3, :3] *= in_file
            about["affine"] = affine.tolist()
        return about

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        check_window(window, self.shape)
        chosen = channel_indices(channels, len(self.channels))
        shape = (*window_shape(window), len(chosen))
        values, valid = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        if not values.size:
            self.scan.read((slice(0, 0),) * len(window), channels)  # refused when it is closed
            return Patch(values, valid)
        growth = math.prod(axis.source / axis.target for axis in self.maps) * len(chosen)
        for part in small_windows(window, READ_VALUES / growth):
            place = tuple(
                slice(side.start - whole.start, side.stop - whole.start)
                for side, whole in zip(part, window, strict=True)
            )
            values[place], valid[place] = self._read(part, chosen)
        return Patch(values, valid)

    def _read(
        self, window: Window, channels: Sequence[int]
    ) -> tuple[NDArray[np.float32], BoolArray]:
        reach = [_reach(axis, side) for axis, side in zip(self.maps, window, strict=True)]
        inside = tuple(
            slice(max(0, side.start), min(axis.source, side.stop))
            for axis, side in zip(self.maps, reach, strict=True)
        )
        patch = self.scan.read(inside, channels)
        valid = all_valid(patch.valid, self.maps, window, [side.start for side in inside])
        if not valid.any():
            return np.zeros(valid.shape, np.float32), valid
        values = np.where(patch.valid, patch.values, 0).astype(np.float64)
        cubic = [
            axis for axis, one in enumerate(self.maps) if one.order == 3 and not one.is_identity
        ]
        if cubic:
            if not patch.valid.all():
                values = _spread(values, patch.valid, cubic)
            beyond = [
                (within.start - side.start, side.stop - within.stop)
                for side, within in zip(reach, inside, strict=True)
            ]
            values = np.pad(values, [*beyond, (0, 0)], mode="edge")
            for axis in cubic:
                values = ndimage.spline_filter1d(values, 3, axis, mode="mirror")
        found = interpolate(values, self.maps, window, [side.start for side in reach])
        with np.errstate(over="ignore"):  # found as not finite in what the model returns
            return found.astype(np.float32), valid

    def close(self) -> None:
        """Close the scan. Closing twice is harmless."""
        self.scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _reach(axis: AxisMap, side: slice) -> slice:
    """Return the pixels to interpolate from, beyond the borders where a spline needs it."""
    if axis.order < 3 or axis.is_identity:
        return axis.support(side)
    index, _ = axis.taps(side)
    return slice(int(index[0, 0]) - MARGIN, int(index[-1, -1]) + 1 + MARGIN)


def _spread(
    values: NDArray[np.float64], valid: BoolArray, axes: Sequence[int]
) -> NDArray[np.float64]:
    """Give pixels that are not valid the mean of the neighbours that are, from near to far.

    Step by step, so that what stands at a pixel does not depend on what is far from it.

    Args:
        values: ``(*sides, channels)``, 0 where not valid.
        valid: Of the same shape.
        axes: Along which pixels are neighbours.
    """
    known = valid
    for _ in range(SPREAD):
        if known.all():
            break
        total, count = values, known.astype(np.float64)
        for axis in axes:
            total, count = _sum_of_three(total, axis), _sum_of_three(count, axis)
        fresh = ~known & (count > 0)
        values = np.where(fresh, total / np.maximum(count, 1), values)
        known = known | fresh
    return values


def _sum_of_three(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    total = values.copy()
    along, source = np.moveaxis(total, axis, 0), np.moveaxis(values, axis, 0)
    along[1:] += source[:-1]
    along[:-1] += source[1:]
    return total
