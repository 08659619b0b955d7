"""Which encoder suits the scans and the device, and how large the tiles of inference are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.planning.device import Device
from segfocal.presets import PRESETS

__all__ = ["plan_preset", "plan_tile"]

WHOLE, MOST = 4, 2**20
"""How many times the pixels of a patch a tile may have to hold a volume whole, as inference keeps
no values for gradients; and how many at most."""


def plan_preset(scans: NDArray[np.float64], place: Device) -> tuple[str, str]:
    """Return the name of a preset, and why.

    Volumes that are small along all axes get an encoder that begins at half resolution: with the
    usual one they would be a position or two across at its end.

    Args:
        scans: Sides of the scans, not of regions in them, at the resolution, ``(scans, axes)``.
        place: The device.
    """
    ndim = scans.shape[1]
    if not place.is_gpu:
        name, why = "nano", f"{place.name}: the smallest, made for processors"
    elif ndim == 2:
        name, why = "tiny_srf", f"{place.name}: as published"
    else:
        name, why = "micro", f"{place.name}: volumes take more memory than scenes"
    stride = PRESETS[name].output_stride
    median = np.median(scans, 0)
    if ndim == 3 and median.max() < 2 * stride:
        sides = " x ".join(f"{side:.0f}" for side in median)
        why += f"; fine: volumes of {sides} pixels are less than {2 * stride} along all axes"
        name += "_fine"
    return name, why


def plan_tile(
    scans: NDArray[np.float64], patch: Sequence[int], stride: int
) -> tuple[tuple[int, ...], str]:
    """Return the sides of a tile of inference, and why.

    It is the patch in multiples of the stride, two of them at least, as tiles overlap. A tile that
    holds the largest volume whole is taken instead where it has at most four times the patch's
    pixels and 2**20, and no more pixels are computed for all scans together.

    Args:
        scans: Sides of the scans, not of regions in them, at the resolution, ``(scans, axes)``.
        patch: Sides of a patch.
        stride: Of the network's output.
    """
    tile = tuple(max(2 * stride, -(-side // stride) * stride) for side in patch)
    largest = scans.max(0)
    if scans.shape[1] == 3:
        whole = tuple(
            max(own, math.ceil(side / stride) * stride)
            for own, side in zip(tile, largest, strict=True)
        )
        if (
            whole != tile
            and math.prod(whole) <= min(MOST, WHOLE * math.prod(patch))
            and len(scans) * math.prod(whole) <= _computed(scans, tile, stride)
        ):
            sides = " x ".join(f"{side:.0f}" for side in largest)
            return whole, f"holds the largest scan, {sides} pixels, whole: no seams, no more work"
    if tile == tuple(patch):
        return tile, "the patch"
    return tile, f"the patch in multiples of {stride}, and two of them at least: tiles overlap"


def _computed(scans: NDArray[np.float64], tile: Sequence[int], stride: int) -> float:
    """Return how many pixels tiles have that overlap as `segfocal predict` lays them."""
    sides = np.asarray(tile, np.float64)
    overlap = np.minimum(stride * np.ceil(sides / (4 * stride)), sides - stride)
    counts = np.maximum(1, np.ceil((scans - overlap) / (sides - overlap)))
    return float(counts.prod(1).sum() * sides.prod())
