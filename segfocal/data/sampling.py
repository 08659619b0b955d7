"""Training samples: patches drawn from the regions of a split.

Which patch is drawn at which step follows from the seed and the step alone, so that any
step can be repeated without those before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX, index_of_values
from segfocal.data.augment import augment_patch
from segfocal.data.channels import match_channels, usable_pixels
from segfocal.data.open_scans import OpenScans
from segfocal.data.plan import Plan, check_plan_of
from segfocal.data.spec import DatasetSpec, Region
from segfocal.errors import SpecError
from segfocal.io import check_same_grid, read_labels
from segfocal.tiling import mirror
from segfocal.types import Window, window_shape

__all__ = ["PatchSampler", "RegionReader", "blocks", "open_regions"]

BLOCK = {2: 1024, 3: 96}
POSITIONS_PER_BLOCK = 2000


def blocks(window: Window, side: int) -> Iterator[Window]:
    """Yield the boxes of at most ``side`` pixels a side that partition a window."""
    spans = [
        [slice(a, min(a + side, axis.stop)) for a in range(axis.start, axis.stop, side)]
        for axis in window
    ]
    yield from itertools.product(*spans)


@dataclass(frozen=True)
class RegionReader:
    """One region of a split, checked: reads the network's channels and class indices.

    Attributes:
        spec: The dataset.
        region: The region's entry in the spec.
        window: The region in the scan.
        shape: Spatial shape of the whole scan.
        resolution: Pixel size of the scan, or None.
        channels: The network's channels in the scan.
        image, labels: The files.
        scans: Where they are opened.
    """

    spec: DatasetSpec
    region: Region
    window: Window
    shape: tuple[int, ...]
    resolution: tuple[float, ...] | None
    channels: tuple[int, ...]
    image: Path
    labels: Path
    scans: OpenScans

    def read(
        self, window: Window
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
        """Return values ``(*space, channels)``, valid and class indices of a window.

        Values are NaN where a channel is not valid, even at a pixel that is (``valid_when:
        any``).
        Class indices are ``IGNORE_INDEX`` where the scan is not usable, where the label file
        holds nodata, and where it holds one of the spec's ignored values.

        Raises:
            SpecError: A label value is neither a class nor ignored.
        """
        patch = self.scans.get(self.image).read(window, self.channels)
        valid = usable_pixels(patch, self.spec.valid_when)
        labels, labelled = read_labels(self.scans.get(self.labels), window)
        index = index_of_values(labels, [label.value for label in self.spec.classes])
        stray = labelled & (index == IGNORE_INDEX) & ~np.isin(labels, self.spec.ignore_values)
        if stray.any():
            known = ", ".join(str(label.value) for label in self.spec.classes)
            raise SpecError(
                f"{self.labels}: holds label value {labels[stray][0]}; expected a class "
                f"({known}) or one of ignore_values: add it to the spec {self.spec.name!r}"
            )
        index[~(labelled & valid)] = IGNORE_INDEX
        values = patch.values.astype(np.float32)
        values[~patch.valid] = np.nan
        return values, valid, index


def open_regions(spec: DatasetSpec, split: str, stack: ExitStack) -> list[RegionReader]:
    """Check the files of every region of a split; they are closed with the stack.

    Raises:
        SpecError: The split is missing, a region lies outside its scan, or a scan has another
            number of axes.
        ScanError: A file is missing or unreadable, or labels lie on another grid.
        ChannelError: A scan lacks one of the spec's channels.
    """
    scans = OpenScans(spec.orientation or "RAS")
    stack.callback(scans.close)
    readers = []
    for region in spec.regions(split):
        case = spec.case(region.case)
        image, labels = spec.path(case.image), spec.path(case.labels)
        scan = scans.get(image)
        if len(scan.shape) != spec.ndim:
            raise SpecError(
                f"{scan.name}: has {len(scan.shape)} spatial axes; spec {spec.name!r} says "
                f"ndim: {spec.ndim}"
            )
        check_same_grid(scan, scans.get(labels))
        readers.append(
            RegionReader(
                spec=spec,
                region=region,
                window=region.window(scan.shape),
                shape=scan.shape,
                resolution=scan.resolution,
                channels=match_channels(scan, spec.channels, by_name=True),
                image=image,
                labels=labels,
                scans=scans,
            )
        )
    return readers


class PatchSampler:
    """Draws batches of augmented patches from a split.

    A share of the patches is centred near a pixel of a class drawn with equal chances from
    those present; the others lie anywhere in the split. Patches never leave their region: at
    its borders, and where it is smaller than a patch, pixels are mirrored.

    Args:
        spec: The dataset.
        plan: Patch and batch size, statistics, seed.
        split: Name of the split.
        augment: Whether patches are changed at random.
    """

    def __init__(
        self, spec: DatasetSpec, plan: Plan, split: str = "train", *, augment: bool = True
    ) -> None:
        check_plan_of(spec, plan)
        self._plan = plan
        self._augment = augment
        self._stack = ExitStack()
        self._mean = np.array([c.mean for c in plan.card.channels], np.float32)
        self._std = np.array([c.std for c in plan.card.channels], np.float32)
        try:
            self._regions = open_regions(spec, split, self._stack)
            sizes = [np.prod(window_shape(reader.window)) for reader in self._regions]
            self._chances = np.array(sizes, np.float64) / np.sum(sizes)
            self._positions = self._find_classes(spec.num_classes)
            self._present = [k for k, places in enumerate(self._positions) if len(places)]
            if not self._present:
                raise SpecError(
                    f"split {split!r} of {spec.name!r} has no labelled pixel to train on"
                )
        except BaseException:
            self._stack.close()
            raise

    def _find_classes(self, num_classes: int) -> list[NDArray[np.int64]]:
        """Return per class rows of (region, *position): a bounded choice from each block."""
        rng = np.random.default_rng(self._plan.seed)
        found: list[list[NDArray[np.int64]]] = [[] for _ in range(num_classes)]
        for number, reader in enumerate(self._regions):
            for block in blocks(reader.window, BLOCK[len(reader.window)]):
                labels = reader.read(block)[2]
                origin = np.array([side.start for side in block])
                for k in range(num_classes):
                    places = np.flatnonzero(labels == k)
                    if len(places) > POSITIONS_PER_BLOCK:
                        places = rng.choice(places, POSITIONS_PER_BLOCK, replace=False)
                    where = np.stack(np.unravel_index(places, labels.shape), -1) + origin
                    found[k].append(np.insert(where, 0, number, axis=1))
        return [np.concatenate(parts) for parts in found]

    def batch(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
        """Return batch number ``step``.

        Returns:
            Values ``(batch, *patch, channels)``, valid ``(batch, *patch)`` and class indices
            ``(batch, *patch)``.
        """
        rng = np.random.default_rng([self._plan.seed, step])
        samples = [self._sample(rng) for _ in range(self._plan.batch_size)]
        values, valid, labels = (np.stack(parts) for parts in zip(*samples, strict=True))
        return values, valid, labels

    def _sample(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
        if rng.random() < self._plan.class_share:
            places = self._positions[self._present[rng.integers(len(self._present))]]
            number, *centre = places[rng.integers(len(places))]
            reader = self._regions[number]
            jitter = [rng.integers(-side // 4, side // 4 + 1) for side in self._plan.patch]
            starts = [
                int(c + j - side // 2)
                for c, j, side in zip(centre, jitter, self._plan.patch, strict=True)
            ]
        else:
            reader = self._regions[rng.choice(len(self._regions), p=self._chances)]
            starts = [
                int(rng.integers(axis.start, max(axis.start, axis.stop - side) + 1))
                for axis, side in zip(reader.window, self._plan.patch, strict=True)
            ]
        values, valid, labels = _read_mirrored(reader, starts, self._plan.patch)
        # What a channel lacks is its mean: 0 after standardisation.
        values = np.where(np.isnan(values), self._mean, values)
        if not self._augment:
            return values, valid, labels
        return augment_patch(
            values,
            valid,
            labels,
            mean=self._mean,
            std=self._std,
            mirror_axes=self._plan.mirror_axes,
            rng=rng,
        )

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _read_mirrored(
    reader: RegionReader, starts: list[int], patch: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
    """Read a patch kept inside the region where it fits, mirrored where it does not."""
    window, picks = [], []
    for start, side, axis in zip(starts, patch, reader.window, strict=True):
        length = axis.stop - axis.start
        first = min(max(start, axis.start), max(axis.stop - side, axis.start))
        window.append(slice(first, min(first + side, axis.stop)))
        picks.append(mirror(np.arange(side), length) if side > length else np.arange(side))
    values, valid, labels = reader.read(tuple(window))
    if window_shape(tuple(window)) != patch:
        pick = np.ix_(*picks)
        values, valid, labels = values[pick], valid[pick], labels[pick]
    return values, valid, labels
