"""Planning: statistics of a dataset and the numbers of training that follow from them."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card, Channel
from segfocal.data.plan import Plan
from segfocal.data.sampling import BLOCK, RegionReader, blocks, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.presets import PRESETS
from segfocal.types import window_shape
from segfocal.version import __version__

__all__ = ["make_plan"]

PATCHES = {2: (256, 192, 128, 96, 64, 32), 3: (96, 64, 32)}
"""Patch sides to choose from, multiples of the network's output_stride."""

OUTPUT_STRIDE = 32
"""Total downsampling of a FocalUNet, of which a tile has to be a multiple."""

BATCH_PIXELS = 2**17 * 3
QUANTILE_SAMPLES_PER_BLOCK = 20_000


def make_plan(
    spec: DatasetSpec,
    *,
    preset: str = "nano",
    patch: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    steps: int = 1000,
    seed: int = 0,
) -> Plan:
    """Measure the training split, block by block, and derive a plan.

    Mean and standard deviation per channel are over all usable pixels of the split
    ``train``; the 0.5 and 99.5 percentiles are over a sample of them. A patch takes at most
    two thirds of the smallest region along each axis.

    Args:
        spec: The dataset.
        preset: Size of the encoder.
        patch: Side lengths of training patches; left out, chosen from the regions' sizes.
        batch_size: Patches per step; left out, as many as make about 400 000 pixels.
        steps: Optimizer steps.
        seed: Seed of weights, patches and augmentation.

    Raises:
        SpecError: No usable or no labelled pixels, labels outside the class table, or an
            argument that no plan can hold.
        ScanError, ChannelError: A file of the split cannot be used.
    """
    if preset not in PRESETS:
        raise SpecError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    if patch is not None and (len(patch) != spec.ndim or min(patch) < 1):
        raise SpecError(f"patch {patch}; expected {spec.ndim} sides of at least 1 pixel")
    if steps < 1 or seed < 0 or (batch_size is not None and batch_size < 1):
        raise SpecError(
            f"steps {steps}, batch size {batch_size}, seed {seed}; expected at least 1, 1 and 0"
        )
    with ExitStack() as stack:
        readers = open_regions(spec, "train", stack)
        channels, class_pixels = _measure(spec, readers)
        shapes = [window_shape(reader.window) for reader in readers]
        smallest = tuple(min(sides) for sides in zip(*shapes, strict=True))
        resolution = readers[0].resolution
    if patch is None:
        patch = tuple(_patch_side(length, spec.ndim) for length in smallest)
    pixels = int(np.prod(patch))
    # Two strides at least: tiles of one could not overlap.
    tile = tuple(
        max(2 * OUTPUT_STRIDE, -(-side // OUTPUT_STRIDE) * OUTPUT_STRIDE) for side in patch
    )
    return Plan(
        spec=spec.name,
        card=Card(
            segfocal=__version__,
            ndim=spec.ndim,
            channels=channels,
            named_channels=True,
            valid_when=spec.valid_when,
            classes=spec.classes,
            tile=tile,
            patch=None if tile == tuple(patch) else tuple(patch),
            resolution=resolution,
            orientation=(spec.orientation or "RAS") if spec.ndim == 3 else None,
        ),
        preset=preset,
        patch=patch,
        batch_size=batch_size or max(2, min(16, BATCH_PIXELS // pixels)),
        steps=steps,
        mirror_axes=tuple(range(spec.ndim)),
        class_pixels=tuple(int(count) for count in class_pixels),
        seed=seed,
    )


def _patch_side(length: int, ndim: int) -> int:
    choices = PATCHES[ndim]
    return next((side for side in choices if 3 * side <= 2 * length), choices[-1])


def _measure(
    spec: DatasetSpec, readers: list[RegionReader]
) -> tuple[tuple[Channel, ...], NDArray[np.int64]]:
    """Return channel statistics and labelled pixels per class, in one pass over the blocks."""
    rng = np.random.default_rng(0)
    count = np.zeros(len(spec.channels), np.int64)
    mean = np.zeros(len(spec.channels))
    squares = np.zeros(len(spec.channels))
    class_pixels = np.zeros(spec.num_classes, np.int64)
    samples = []
    for reader in readers:
        for block in blocks(reader.window, BLOCK[spec.ndim]):
            values, valid, labels = reader.read(block)
            class_pixels += np.bincount(labels[labels >= 0], minlength=spec.num_classes)
            usable = values[valid].astype(np.float64)
            if not len(usable):
                continue
            # A usable pixel may lack a channel: each channel has a count of its own.
            added = (~np.isnan(usable)).sum(0)
            divisor = np.maximum(added, 1)
            part = np.nansum(usable, 0) / divisor
            # Chan et al. 1979: merging moments of parts; sums of squares would cancel.
            delta = np.where(added > 0, part - mean, 0)
            total = count + added
            squares += np.nansum((usable - part) ** 2, 0)
            squares += delta**2 * count * added / np.maximum(total, 1)
            mean += delta * added / np.maximum(total, 1)
            count = total
            chosen = rng.choice(len(usable), min(len(usable), QUANTILE_SAMPLES_PER_BLOCK), False)
            samples.append(usable[chosen])
    if not count.all():
        missing = ", ".join(name for name, n in zip(spec.channels, count, strict=True) if not n)
        raise SpecError(
            f"spec {spec.name!r}: split 'train' has no usable pixel in {missing}: all are nodata"
        )
    if not class_pixels.any():
        raise SpecError(f"spec {spec.name!r}: split 'train' has no labelled pixel")
    std = np.sqrt(squares / count)
    low, high = np.nanpercentile(np.concatenate(samples), [0.5, 99.5], axis=0)
    statistics = tuple(
        Channel(
            name=name,
            mean=float(mean[i]),
            # A constant channel carries nothing; any divisor does.
            std=float(std[i]) if std[i] > 0 else 1.0,
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, name in enumerate(spec.channels)
    )
    return statistics, class_pixels
