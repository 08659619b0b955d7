"""Sizes of patches and batches: as much context as the scans have and the device allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.data.augmentation import ELONGATED
from segfocal.planning.device import Device, bytes_text
from segfocal.planning.memory import training_bytes
from segfocal.presets import Preset

__all__ = ["memory_doubt", "plan_batch", "plan_patch"]

CPU_PATCH_PIXELS = {2: 2**16, 3: 2**19}
CPU_BATCH_PIXELS = 2**17 * 3
"""A step on two cores then takes seconds and not minutes."""

GPU_PATCH_PIXELS = {2: 2**18, 3: 2**21}

GPU_MARGIN = 0.2
"""Share of a GPU's memory that is left free: the estimate was measured on a CPU, with ``nano``."""

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
    batch of two fits into memory (a GPU's less a fifth), and a patch has no more pixels than
    suit the device.

    Args:
        shapes: Sides of the regions at the resolution, ``(regions, axes)``.
        resolution: Size of a pixel along each axis.
        network: The encoder.
        channels, classes: Channels of the image and of the logits.
        place: The device.
    """
    ndim, stride = shapes.shape[1], network.output_stride
    spacing = np.ones(ndim) if resolution is None else np.asarray(resolution, np.float64)
    regions = np.median(shapes, 0) if ndim == 3 else shapes.min(0)
    told = [f"regions have {'a median of' if ndim == 3 else 'at least'} {_text(regions)} pixels"]
    limit = regions
    if ndim == 2:
        limit = regions * 2 / 3
        told.append(f"two thirds are {_text(limit)}")
        square = np.minimum(limit, ELONGATED * np.maximum(limit.min(), stride))
        if (square < limit).any():
            told.append(f"at most {ELONGATED} : 1, so that patches may be turned: {_text(square)}")
        limit = square
    start = START[ndim] / spacing * float(np.prod(spacing)) ** (1 / ndim)
    if (start < limit).any():
        told.append(f"sides in proportion to 1 / spacing begin with {_text(start)}")
    sides = _strides(np.minimum(start, limit), stride, nearest=ndim == 3)
    told.append(f"multiples of {stride}")
    most = (GPU_PATCH_PIXELS if place.is_gpu else CPU_PATCH_PIXELS)[ndim]
    bound = []
    while True:
        if math.prod(sides.tolist()) > most:
            bound = [f"at most {most} pixels on a {'GPU' if place.is_gpu else 'CPU'}"]
        elif _bytes(sides, SMALLEST_BATCH, network, channels, classes) > _room(place):
            bound = [f"as {SMALLEST_BATCH} of them fit into memory ({_memory(place)})"]
        else:
            break
        if sides.max() == stride:
            bound = [f"the smallest, of which {SMALLEST_BATCH} do not fit ({_memory(place)})"]
            break
        longest = np.where(sides > stride, sides / (limit if ndim == 3 else 1), 0)
        sides[int(np.argmax(longest))] -= stride
    told += bound
    if (sides > regions).any():
        beyond = [
            f"{max(side - own, 0):.0f} of {side}" for side, own in zip(sides, regions, strict=True)
        ]
        told.append(f"mirrored are {', '.join(beyond)}")
    return tuple(int(side) for side in sides), "; ".join(told)


def plan_batch(
    patch: Sequence[int], network: Preset, channels: int, classes: int, place: Device
) -> tuple[int, str]:
    """Return the patches per step, 2 to 16, and why: which of the limits decided."""
    sides = np.asarray(patch)
    size, why = LARGEST_BATCH, f"at most {LARGEST_BATCH}"
    by_work = CPU_BATCH_PIXELS // math.prod(patch)
    if not place.is_gpu and by_work < size:
        size, why = by_work, f"about {CPU_BATCH_PIXELS} pixels a step on a CPU"
    if size < SMALLEST_BATCH:
        size, why = SMALLEST_BATCH, f"at least {SMALLEST_BATCH}"
    while _bytes(sides, size, network, channels, classes) > _room(place):
        if size == SMALLEST_BATCH:
            why = f"at least {SMALLEST_BATCH}, which do not fit into memory ({_memory(place)})"
            break
        size -= 1
        why = f"as many as fit into memory ({_memory(place)})"
    taken = _bytes(sides, size, network, channels, classes)
    why += f"; about {bytes_text(taken)} in training, by estimate"
    if place.is_gpu:
        why += ", which was measured with nano on a CPU"
    return size, why


def memory_doubt(
    patch: Sequence[int],
    batch_size: int,
    network: Preset,
    channels: int,
    classes: int,
    place: Device,
) -> str | None:
    """Return a warning where a step takes more than training may, by estimate; else None."""
    taken = _bytes(np.asarray(patch), batch_size, network, channels, classes)
    if taken <= place.bytes:
        return None
    return (
        f"a step on {batch_size} patches of {' x '.join(map(str, patch))} pixels takes about "
        f"{bytes_text(taken)} by estimate, and training may take {bytes_text(place.bytes)}: give "
        "it more memory, or ask for a smaller patch, batch size or preset"
    )


def _room(place: Device) -> float:
    return place.bytes * (1 - GPU_MARGIN) if place.is_gpu else place.bytes


def _memory(place: Device) -> str:
    return f"{place.name} less {GPU_MARGIN:.0%}" if place.is_gpu else place.name


def _text(sides: NDArray[np.float64]) -> str:
    return " x ".join(f"{side:.0f}" for side in sides)


def _strides(sides: NDArray[np.float64], stride: int, *, nearest: bool) -> NDArray[np.int64]:
    count = sides / stride
    count = np.ceil(count - 0.5) if nearest else np.floor(count)
    return (np.maximum(count, 1) * stride).astype(np.int64)


def _bytes(
    sides: NDArray[np.int64], batch: int, network: Preset, channels: int, classes: int
) -> int:
    return training_bytes(network, sides.tolist(), batch, channels=channels, classes=classes)
