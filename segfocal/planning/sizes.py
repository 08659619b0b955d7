"""Sizes of patches and batches: as much context as the scans have and the device allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.data.augmentation import ELONGATED
from segfocal.planning.device import Device
from segfocal.planning.memory import training_bytes
from segfocal.presets import Preset

__all__ = ["OUTPUT_STRIDE", "plan_batch", "plan_patch"]

OUTPUT_STRIDE = 32
"""Total downsampling of a FocalUNet, of which a tile has to be a multiple."""

CPU_PATCH_PIXELS = {2: 2**16, 3: 2**19}
CPU_BATCH_PIXELS = 2**17 * 3
"""A step on two cores then takes seconds and not minutes."""

GPU_PATCH_PIXELS = {2: 2**18, 3: 2**21}

SMALLEST_BATCH, LARGEST_BATCH = 2, 16

START = {2: 2048, 3: 256}
"""Sides that nnU-Net starts from, before spacing and scans."""


def plan_patch(
    shapes: NDArray[np.float64],
    resolution: Sequence[float] | None,
    network: Preset,
    channels: int,
    classes: int,
    place: Device,
) -> tuple[tuple[int, ...], str]:
    """Return the sides of a patch, multiples of the network's stride, and why.

    It starts with sides in proportion to 1 / spacing, no longer than the scans: of volumes,
    the median region; of scenes, two thirds of the smallest region, so that patches differ,
    and no side more than one and a half times the other, so that they may be turned.
    Then the longest axis (of volumes, that which is longest for them) loses a stride, until a
    batch of two fits into memory, and a patch has no more pixels than suit the device.

    Args:
        shapes: Sides of the regions at the resolution, ``(regions, axes)``.
        resolution: Size of a pixel along each axis.
        network: The encoder.
        channels, classes: Channels of the image and of the logits.
        place: The device.
    """
    ndim = shapes.shape[1]
    spacing = np.ones(ndim) if resolution is None else np.asarray(resolution, np.float64)
    limit = np.median(shapes, 0) if ndim == 3 else shapes.min(0) * 2 / 3
    if ndim == 2:
        limit = np.minimum(limit, ELONGATED * np.maximum(limit.min(), OUTPUT_STRIDE))
    start = START[ndim] / spacing * float(np.prod(spacing)) ** (1 / ndim)
    sides = _strides(np.minimum(start, limit), nearest=ndim == 3)
    most = (GPU_PATCH_PIXELS if place.is_gpu else CPU_PATCH_PIXELS)[ndim]
    bound = ""
    while sides.max() > OUTPUT_STRIDE:
        if math.prod(sides.tolist()) > most:
            bound = f"; at most {most} pixels on a {'GPU' if place.is_gpu else 'CPU'}"
        elif _bytes(sides, SMALLEST_BATCH, network, channels, classes) > place.bytes:
            bound = f"; as two of them fit into memory ({place.name})"
        else:
            break
        longest = np.where(sides > OUTPUT_STRIDE, sides / (limit if ndim == 3 else 1), 0)
        sides[int(np.argmax(longest))] -= OUTPUT_STRIDE
    which = "the median region" if ndim == 3 else "two thirds of the smallest region"
    text = " x ".join(f"{side:.0f}" for side in limit)
    why = f"{which} has {text} pixels; multiples of {OUTPUT_STRIDE}{bound}"
    return tuple(int(side) for side in sides), why


def plan_batch(
    patch: Sequence[int], network: Preset, channels: int, classes: int, place: Device
) -> tuple[int, str]:
    """Return the patches per step, 2 to 16, and why."""
    sides = np.asarray(patch)
    size = LARGEST_BATCH
    if not place.is_gpu:
        size = CPU_BATCH_PIXELS // math.prod(patch)
    while size > SMALLEST_BATCH and _bytes(sides, size, network, channels, classes) > place.bytes:
        size -= 1
    size = min(max(size, SMALLEST_BATCH), LARGEST_BATCH)
    taken = _bytes(sides, size, network, channels, classes)
    work = "" if place.is_gpu else f", about {CPU_BATCH_PIXELS} pixels a step"
    return size, (
        f"{SMALLEST_BATCH} to {LARGEST_BATCH}{work}; about {taken / 2**30:.2g} GiB in training, "
        f"by estimate ({place.name})"
    )


def _strides(sides: NDArray[np.float64], *, nearest: bool) -> NDArray[np.int64]:
    count = sides / OUTPUT_STRIDE
    count = np.ceil(count - 0.5) if nearest else np.floor(count)
    return (np.maximum(count, 1) * OUTPUT_STRIDE).astype(np.int64)


def _bytes(
    sides: NDArray[np.int64], batch: int, network: Preset, channels: int, classes: int
) -> int:
    return training_bytes(network, sides.tolist(), batch, channels=channels, classes=classes)
