"""Training samples: patches drawn from the regions of a split.

Which patch is drawn follows from the seed, the epoch and the sample's number in it alone, so that
any sample can be repeated without those before it, by any worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.data.augment import augment_patch
from segfocal.data.augmentation import light_augmentation
from segfocal.data.class_index import ClassIndex, build_index, index_key, keep_index, kept_index
from segfocal.data.normalize import ScanNormalization
from segfocal.data.plan import Plan, check_plan_of
from segfocal.data.reading import RegionReader, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.io.caching import BlockCache, decoded_bytes
from segfocal.tiling import mirror
from segfocal.types import window_shape

__all__ = ["Batch", "PatchSampler"]

Batch = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.integer]]
"""Values ``(batch, *patch, channels)``, valid ``(batch, *patch)`` and labels: class indices
``(batch, *patch)``, or what is known of each class ``(batch, *patch, num_classes)``."""


class PatchSampler:
    """Draws batches of augmented patches from a split.

    A share of the patches is centred near a pixel of a class drawn with the plan's chances from
    those present; the others lie anywhere in the split, or where something is labelled. Patches
    never leave their region: at its borders, and where it is smaller than a patch, pixels are
    mirrored.

    Labels are class indices. Where classes are regions that overlap, or a case of the split lists
    the classes that were looked for in it, they say of each class what is known of it: see
    :meth:`~segfocal.data.reading.RegionReader.known_classes`.

    One thread may use a sampler at a time; samplers of the same plan may share index and cache.

    Args:
        spec: The dataset.
        plan: Patch and batch size, statistics, seed.
        split: Name of the split.
        augment: Whether patches are changed at random.
        index: Where the classes are; left out, it is built.
        index_path: File that may hold it, from another time.
        measured: What scans are normalized with, by case; left out, it is measured.
        cache: Keeps decoded blocks of the scans: of volumes, and of scenes when they fit into
            it together.

    Attributes:
        index: Where the classes are.
        measured: What scans are normalized with, by case.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        plan: Plan,
        split: str = "train",
        *,
        augment: bool = True,
        index: ClassIndex | None = None,
        index_path: Path | None = None,
        measured: Mapping[str, ScanNormalization] | None = None,
        cache: BlockCache | None = None,
    ) -> None:
        check_plan_of(spec, plan)
        self._plan = plan
        self._settings = None
        if augment:
            self._settings = plan.augmentation or light_augmentation(spec.ndim)
        self._stack = ExitStack()
        self._mean = np.array([c.mean for c in plan.card.channels], np.float32)
        self._std = np.array([c.std for c in plan.card.channels], np.float32)
        try:
            self._regions = open_regions(
                spec,
                split,
                self._stack,
                resolution=plan.card.resolution if plan.resample else None,
                normalizations=plan.card.normalizations,
                measured=measured,
                cache=cache,
            )
            if cache is not None and not _worth_keeping(self._regions, cache):
                self._regions = [replace(reader, cache=None) for reader in self._regions]
            self.measured = {
                reader.case.id: reader.normalization
                for reader in self._regions
                if reader.normalization is not None
            }
            self._index_path = index_path
            self._key = index_key(self._regions, plan.seed)
            if index is None and index_path is not None:
                index = kept_index(index_path, self._key)
            self.index = index or build_index(self._regions, plan.seed)
            counts = np.array(self.index.counts, np.float64)
            members = spec.class_table.members
            of_class = counts @ members
            if not of_class.any():
                what = "labelled pixel" if spec.task == "classes" else "pixel in a region"
                raise SpecError(f"split {split!r} of {spec.name!r} has no {what} to train on")
        except BaseException:
            self._stack.close()
            raise
        sizes = [np.prod(window_shape(reader.window)) for reader in self._regions]
        self._by_size = np.cumsum(np.array(sizes, np.float64) / np.sum(sizes))
        self._class_indices = all(reader.fully_annotated for reader in self._regions)
        self._by_count = np.cumsum(counts / counts.sum())
        chances = np.array(plan.class_chances or (1.0,) * spec.num_classes) * (of_class > 0)
        if not chances.any():
            raise SpecError(
                f"the plan's class_chances {list(plan.class_chances)} are 0 for all classes that "
                f"split {split!r} of {spec.name!r} has: expected a chance above 0 for one of them"
            )
        # Once a class is drawn, its pixels have the same chance, whatever else they are.
        shares = members * counts[:, None] / np.maximum(of_class, 1)
        self._by_chance = np.cumsum(shares @ chances / chances.sum())

    def batch(self, number: int, epoch: int = 0) -> Batch:
        """Return a batch of an epoch.

        Args:
            number: Which batch of the epoch, from 0.
            epoch: Which epoch, from 0.
        """
        size = self._plan.batch_size
        samples = [self.sample(epoch, number * size + i) for i in range(size)]
        values, valid, labels = (_stacked(parts) for parts in zip(*samples, strict=True))
        return values, valid, labels

    def sample(self, epoch: int, index: int) -> Batch:
        """Return a sample of an epoch: values, valid and labels, without a batch axis.

        Args:
            epoch: Which epoch, from 0.
            index: Which sample of the epoch, from 0.
        """
        rng = np.random.default_rng([self._plan.seed, epoch, index])
        reader, starts = self._place(rng)
        values, valid, labels = _read_mirrored(reader, starts, self._plan.patch)
        # What a channel lacks is its mean: 0 after standardisation.
        lacking = np.isnan(values)
        if lacking.any():
            values = np.where(lacking, self._mean, values)
        if self._settings is not None:
            values, valid, labels = augment_patch(
                values,
                valid,
                labels,
                mean=self._mean,
                std=self._std,
                settings=self._settings,
                mirror_axes=self._plan.mirror_axes,
                rng=rng,
                spacing=reader.resolution if labels.ndim == 3 else None,
            )
        return values, valid, labels if self._class_indices else reader.known_classes(labels)

    def _place(self, rng: np.random.Generator) -> tuple[RegionReader, list[int]]:
        """Return a region and where in it a patch begins."""
        patch = self._plan.patch
        if rng.random() < self._plan.class_share:
            reader, centre = self._labelled_pixel(self._by_chance, rng)
            jitter = [rng.integers(-side // 4, side // 4 + 1) for side in patch]
            return reader, [
                int(c + j - side // 2) for c, j, side in zip(centre, jitter, patch, strict=True)
            ]
        if self._plan.other_patches == "labelled":
            # Anywhere in the patch: as patches are that lie anywhere, but none is without labels.
            reader, pixel = self._labelled_pixel(self._by_count, rng)
            return reader, [
                int(c - rng.integers(side)) for c, side in zip(pixel, patch, strict=True)
            ]
        reader = self._regions[_drawn(self._by_size, rng)]
        return reader, [
            int(rng.integers(axis.start, max(axis.start, axis.stop - side) + 1))
            for axis, side in zip(reader.window, patch, strict=True)
        ]

    def _labelled_pixel(
        self, chances: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[RegionReader, list[int]]:
        places = self.index.positions[_drawn(chances, rng)]
        number, *pixel = places[rng.integers(len(places))].tolist()
        return self._regions[number], pixel

    def keep_index(self) -> None:
        """Write the index to its file, whose folder has to be there."""
        if self._index_path is not None:
            keep_index(self._index_path, self._key, self.index)

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


def _stacked(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays along a new first axis, the last axis innermost in memory."""
    return np.stack(parts, out=np.empty((len(parts), *parts[0].shape), parts[0].dtype))


def _drawn(cumulated: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Return a place by chances that are added up."""
    place = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return min(place, len(cumulated) - 1)


def _worth_keeping(readers: list[RegionReader], cache: BlockCache) -> bool:
    """Return False for scenes that do not fit: a random window would seldom meet a kept block.

    Of a compressed volume a block that is not kept costs all that stands before it.
    """
    if len(readers[0].window) == 3:
        return True
    sizes = {}
    for reader in readers:
        image, labels = reader.scans.image(reader.case), reader.scans.labels(reader.case)
        size = decoded_bytes(image, len(reader.channels)) + decoded_bytes(labels, 1)
        sizes[reader.case.id] = size
    return sum(sizes.values()) <= cache.limit


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
