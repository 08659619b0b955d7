"""The fingerprint of a dataset: what is measured of it before anything is planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Channel
from segfocal.data.document import Entry
from segfocal.data.reading import BLOCK, RegionReader, blocks
from segfocal.data.reservoir import Reservoir
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.types import window_shape

__all__ = ["ChannelFacts", "Fingerprint", "Measurement", "measure"]

RANDOM = 0xF1
"""Seed of the choice of these pixels: one that data made by a seed of its own does not share."""

MOST_SAMPLES = 10**6
"""Pixels from which percentiles are taken."""


class ChannelFacts(Entry):
    """What a channel holds where a class other than the background is.

    Attributes:
        name: The channel.
        percentiles: 0.5, 50 and 99.5 percentile, in the scan's units; None: nothing is there.
        zeros: Share of all usable pixels that are exactly 0.
    """

    name: str
    percentiles: tuple[float, float, float] | None = None
    zeros: float


class Fingerprint(Entry):
    """Facts about the training split.

    Attributes:
        cases: Scans.
        regions: Regions of them.
        median_shape, smallest_shape: Sides of the regions in pixels, per axis.
        median_resolution, finest_resolution, coarsest_resolution: Size of a pixel per axis; None:
            a scan has none.
        labelled: Share of pixels that have a class, or of which it is known which regions
            hold them.
        class_shares: Share of each class among these, by class index; of regions that overlap
            the sum may be above 1.
        foreground: Intensities where a class other than the background is.
    """

    cases: int
    regions: int
    median_shape: tuple[float, ...]
    smallest_shape: tuple[int, ...]
    median_resolution: tuple[float, ...] | None = None
    finest_resolution: tuple[float, ...] | None = None
    coarsest_resolution: tuple[float, ...] | None = None
    labelled: float
    class_shares: tuple[float, ...]
    foreground: tuple[ChannelFacts, ...]


@dataclass(frozen=True)
class Measurement:
    """What one pass over the training split gives.

    Attributes:
        channels: Statistics of each channel over all usable pixels.
        class_pixels: Labelled pixels per class index.
        fingerprint: The rest.
    """

    channels: tuple[Channel, ...]
    class_pixels: NDArray[np.int64]
    fingerprint: Fingerprint


def measure(spec: DatasetSpec, readers: Sequence[RegionReader]) -> Measurement:
    """Go through all regions, block by block.

    Means and standard deviations are exact; percentiles are over an even sample of at most a
    million pixels.

    Raises:
        SpecError: No usable or no labelled pixels, or labels outside the class table.
        ScanError: A file cannot be read.
    """
    rng = np.random.default_rng(RANDOM)
    names = spec.channels
    moments = _Moments(len(names))
    members = spec.class_table.members
    labelled = 0
    class_pixels = np.zeros(spec.num_classes, np.int64)
    everywhere = Reservoir(MOST_SAMPLES, len(names), np.float32, rng)
    foreground = Reservoir(MOST_SAMPLES, len(names), np.float32, rng)
    background = [k for k, label in enumerate(spec.classes) if label.value == 0]
    of_foreground = np.delete(members, background, axis=1).sum(1) > 0
    zeros = np.zeros(len(names), np.int64)
    for reader in readers:
        for block in blocks(reader.window, BLOCK[spec.ndim]):
            values, valid, labels = reader.read(block)
            counts = np.bincount(labels[labels >= 0], minlength=len(members))
            labelled += int(counts.sum())
            class_pixels += counts @ (members & reader.annotated)
            usable = values[valid]
            if not len(usable):
                continue
            zeros += (usable == 0).sum(0)
            moments.add(usable.astype(np.float64))
            everywhere.offer(len(usable), usable.__getitem__)
            within = values[(labels >= 0) & of_foreground[labels]]
            foreground.offer(len(within), within.__getitem__)
    if not moments.count.all():
        missing = ", ".join(n for n, count in zip(names, moments.count, strict=True) if not count)
        raise SpecError(
            f"spec {spec.name!r}: split 'train' has no usable pixel in {missing}: all are nodata"
        )
    if not class_pixels.any():
        what = "labelled pixel" if spec.task == "classes" else "pixel in a region"
        raise SpecError(f"spec {spec.name!r}: split 'train' has no {what}")
    low, high = np.nanpercentile(everywhere.rows.astype(np.float64), [0.5, 99.5], axis=0)
    std = moments.std
    channels = tuple(
        Channel(
            name=name,
            mean=float(moments.mean[i]),
            # A constant channel carries nothing; any divisor does.
            std=float(std[i]) if std[i] > 0 else 1.0,
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, name in enumerate(names)
    )
    within = np.asarray(foreground.rows, np.float64)
    facts = tuple(
        ChannelFacts(
            name=name,
            percentiles=_percentiles(within[:, i]),
            zeros=float(zeros[i] / moments.count[i]),
        )
        for i, name in enumerate(names)
    )
    found = _fingerprint(readers, class_pixels, labelled, facts)
    return Measurement(channels, class_pixels, found)


def _percentiles(values: NDArray[np.floating]) -> tuple[float, float, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, middle, high = np.percentile(known, [0.5, 50, 99.5])
    return float(low), float(middle), float(high)


def _fingerprint(
    readers: Sequence[RegionReader],
    class_pixels: NDArray[np.int64],
    labelled: int,
    foreground: tuple[ChannelFacts, ...],
) -> Fingerprint:
    shapes = np.array([window_shape(reader.window) for reader in readers])
    by_case = {reader.case.id: reader.resolution for reader in readers}
    known = [sides for sides in by_case.values() if sides is not None]
    sides = np.array(known) if len(known) == len(by_case) else None
    pixels = int(shapes.prod(1, dtype=np.int64).sum())
    return Fingerprint(
        cases=len(by_case),
        regions=len(readers),
        median_shape=tuple(np.median(shapes, 0).tolist()),
        smallest_shape=tuple(shapes.min(0).tolist()),
        median_resolution=None if sides is None else tuple(np.median(sides, 0).tolist()),
        finest_resolution=None if sides is None else tuple(sides.min(0).tolist()),
        coarsest_resolution=None if sides is None else tuple(sides.max(0).tolist()),
        labelled=labelled / pixels,
        class_shares=tuple((class_pixels / labelled).tolist()),
        foreground=foreground,
    )


class _Moments:
    """Mean and standard deviation per channel, merged from parts."""

    def __init__(self, channels: int) -> None:
        self.count = np.zeros(channels, np.int64)
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, pixels: NDArray[np.float64]) -> None:
        """Add pixels ``(pixels, channels)``; NaN where a pixel lacks a channel."""
        # A usable pixel may lack a channel: each channel has a count of its own.
        added = (~np.isnan(pixels)).sum(0)
        part = np.nansum(pixels, 0) / np.maximum(added, 1)
        # Chan et al. 1979: merging moments of parts; sums of squares would cancel.
        delta = np.where(added > 0, part - self.mean, 0)
        total = self.count + added
        self._squares += np.nansum((pixels - part) ** 2, 0)
        self._squares += delta**2 * self.count * added / np.maximum(total, 1)
        self.mean += delta * added / np.maximum(total, 1)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        return np.sqrt(self._squares / self.count)
