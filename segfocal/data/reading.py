"""Regions of a split, opened and checked: the network's channels and labels by windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.annotated import labelled_as, possible_classes
from segfocal.card import IGNORE_INDEX, Normalization
from segfocal.data.cases import Case
from segfocal.data.channels import match_channels, usable_pixels
from segfocal.data.classes import ClassTable
from segfocal.data.normalize import ScanNormalization, measure_normalization
from segfocal.data.open_scans import OpenScans
from segfocal.data.regions import Region
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.interpolation import AxisMap
from segfocal.io import Scan, read_labels
from segfocal.io.caching import BlockCache, CachedScan
from segfocal.io.resampling import ResampledScan, resampled_shape
from segfocal.types import Window

__all__ = ["BLOCK", "SAME_SPACING", "RegionReader", "blocks", "open_regions"]

BLOCK = {2: 1024, 3: 96}
"""Sides of the boxes in which a region is gone through, by its number of axes."""

SAME_SPACING = 1.01
"""Ratio up to which spacings count as the same, as in prediction."""


def blocks(window: Window, side: int) -> Iterator[Window]:
    """Yield the boxes of at most ``side`` pixels a side that partition a window."""
    spans = [
        [slice(a, min(a + side, axis.stop)) for a in range(axis.start, axis.stop, side)]
        for axis in window
    ]
    yield from itertools.product(*spans)


@dataclass(frozen=True)
class RegionReader:
    """One region of a split, checked: reads the network's channels and label indices.

    Attributes:
        spec: The dataset.
        region: The region's entry in the spec.
        case: The region's case.
        window: The region in the grid that is read.
        shape: Spatial shape of the whole grid.
        resolution: Pixel size of the grid, or None.
        channels: The network's channels in the scan.
        table: What the codes of the labels mean.
        annotated: Which classes were looked for in the case, by class index.
        scans: Where files are opened.
        target: Resolution that the scan is resampled to; None: its own grid is read.
        normalization: What values are normalized with; None: they are in the scan's units.
        cache: Keeps what was decoded; None: every read goes to the files.
    """

    spec: DatasetSpec
    region: Region
    case: Case
    window: Window
    shape: tuple[int, ...]
    resolution: tuple[float, ...] | None
    channels: tuple[int, ...]
    table: ClassTable
    annotated: tuple[bool, ...]
    scans: OpenScans
    target: tuple[float, ...] | None = None
    normalization: ScanNormalization | None = None
    cache: BlockCache | None = None

    def read(
        self, window: Window
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]:
        """Return values ``(*space, channels)``, valid and label indices of a window.

        Values are NaN where a channel is not valid, even at a pixel that is (``valid_when:
        any``). They are interpolated linearly on a resampled grid.
        A label index is the class index; of regions that overlap it stands for those that hold
        the pixel, see :attr:`~segfocal.data.classes.ClassTable.members`. It is
        ``IGNORE_INDEX`` where the scan is not usable, where the label file holds nodata or one of
        the spec's ignored values, outside the case's labelled area, and where it holds a class
        that was not looked for in this case. On a resampled grid it is that of the nearest pixel.

        Raises:
            SpecError: A label value is neither a class nor ignored.
        """
        scan = self._kept(self.scans.image(self.case), "image")
        if self.target is not None:
            scan = ResampledScan(scan, self.target)
        patch = scan.read(window, self.channels)
        valid = usable_pixels(patch, self.spec.valid_when)
        index = self.read_labels(window)
        index[~valid] = IGNORE_INDEX
        values = patch.values.astype(np.float32)
        if self.normalization is not None:
            values = self.normalization(values)
        values[~patch.valid] = np.nan
        return values, valid, index

    def read_labels(self, window: Window) -> NDArray[np.int32]:
        """Return label indices of a window as ``read`` does, whatever the scan holds there."""
        labels = self._kept(self.scans.labels(self.case), "labels")
        pick = None
        if self.target is not None:
            nearest = [
                AxisMap(old, new, 0).taps(side)[0][:, 0]
                for old, new, side in zip(labels.shape, self.shape, window, strict=True)
            ]
            window = tuple(slice(int(at[0]), int(at[-1]) + 1) for at in nearest)
            pick = np.ix_(*(at - at[0] for at in nearest))
        codes, labelled = read_labels(labels, window)
        if pick is not None:
            codes, labelled = codes[pick], labelled[pick]
        index, stray = self.table.index(codes)
        stray &= labelled
        if stray.any():
            known = ", ".join(
                self.table.text(code) for group in self.table.label_codes for code in group
            )
            raise SpecError(
                f"{self.spec.path(self.case.labels)}: holds label value "
                f"{self.table.text(int(codes[stray][0]))}; expected a class ({known}) or one of "
                f"ignore_values: add it to the spec {self.spec.name!r}"
            )
        if not all(self.annotated) and not self.table.overlapping:
            index[~np.array([*self.annotated, False])[index]] = IGNORE_INDEX
        index[~labelled] = IGNORE_INDEX
        return index

    @property
    def fully_annotated(self) -> bool:
        """Whether a class index says all that is known of a pixel, in this case."""
        return all(self.annotated) and not self.table.overlapping

    @property
    def labelled_as(self) -> NDArray[np.int64]:
        """What labels of the case show each class as, see :func:`segfocal.annotated.labelled_as`.

        Of exclusive classes.
        """
        return labelled_as(self._looked_for, len(self.annotated), rest=self._rest)

    def known_classes(self, labels: NDArray[np.int32]) -> NDArray[np.int8]:
        """Return what label indices say of each class, as the losses take it.

        Args:
            labels: Label indices ``(*space)``, as ``read`` gives them.

        Returns:
            ``(*space, num_classes)``. Of exclusive classes 1 for each that a pixel may have, see
            :func:`segfocal.annotated.possible_classes`; of regions 1 inside, 0 outside and
            ``IGNORE_INDEX`` where it is unknown or the region was not looked for in this case.
        """
        looked_for = self._looked_for
        if self.table.overlapping:
            said = self.table.members.astype(np.int8)
            said[:, [k for k in range(len(self.annotated)) if k not in looked_for]] = IGNORE_INDEX
            nothing = np.full((1, len(self.annotated)), IGNORE_INDEX, np.int8)
            said = np.concatenate([said, nothing])
        else:
            every = np.array([*range(len(self.annotated)), IGNORE_INDEX])
            possible = possible_classes(every, looked_for, len(self.annotated), rest=self._rest)
            said = possible.astype(np.int8)
        # The last row is that of IGNORE_INDEX.
        return said[labels]

    @property
    def _looked_for(self) -> list[int]:
        return [k for k, known in enumerate(self.annotated) if known]

    @property
    def _rest(self) -> int | None:
        return next((k for k, one in enumerate(self.spec.classes) if one.value == 0), None)

    def _kept(self, scan: Scan, what: str) -> Scan:
        return scan if self.cache is None else CachedScan(scan, self.cache, (what, self.case.id))


def open_regions(
    spec: DatasetSpec,
    split: str,
    stack: ExitStack,
    *,
    resolution: Sequence[float] | None = None,
    normalizations: Sequence[Normalization | None] = (),
    measured: Mapping[str, ScanNormalization] | None = None,
    cache: BlockCache | None = None,
) -> list[RegionReader]:
    """Check the files of every region of a split; they are closed with the stack.

    Args:
        spec: The dataset.
        split: Name of the split.
        stack: What closes the files.
        resolution: Pixel size along each axis that scans of another one are resampled to;
            left out, each is read on its own grid.
        normalizations: Per channel how it is normalized with a scan's own numbers.
        measured: What scans are normalized with, by case; measured now where it is missing.
        cache: Keeps what was decoded.

    Raises:
        SpecError: The split is missing, a region lies outside its scan or is thinner than a
            pixel of the resolution, a scan has another number of axes, or no resolution where
            one is needed.
        ScanError: A file is missing or unreadable, or labels lie elsewhere.
        ChannelError: A scan lacks one of the spec's channels.
    """
    scans = OpenScans(spec)
    stack.callback(scans.close)
    table = spec.class_table
    cases = {case.id: case for case in spec.cases}
    known = dict(measured or {})
    readers = []
    for region in spec.regions(split):
        case = cases[region.case]
        scan = scans.image(case)
        if len(scan.shape) != spec.ndim:
            raise SpecError(
                f"{scan.name}: has {len(scan.shape)} spatial axes; spec {spec.name!r} says "
                f"ndim: {spec.ndim}"
            )
        scans.labels(case)
        channels = match_channels(scan, spec.channels, by_name=True)
        if any(normalizations) and case.id not in known:
            known[case.id] = measure_normalization(scan, normalizations, channels)
        target, window, shape, sides = _grid(region, scan, resolution)
        readers.append(
            RegionReader(
                spec=spec,
                region=region,
                case=case,
                window=window,
                shape=shape,
                resolution=sides,
                channels=channels,
                table=table,
                annotated=tuple(
                    case.annotated is None or label.name in case.annotated for label in spec.classes
                ),
                scans=scans,
                target=target,
                normalization=known.get(case.id),
                cache=cache,
            )
        )
    return readers


def _grid(
    region: Region, scan: Scan, resolution: Sequence[float] | None
) -> tuple[tuple[float, ...] | None, Window, tuple[int, ...], tuple[float, ...] | None]:
    """Return the resolution to resample to, if any, and region, shape and pixel size there."""
    window, sides = region.window(scan.shape), scan.resolution
    if resolution is None:
        return None, window, scan.shape, sides
    if sides is None:
        raise SpecError(
            f"{scan.name}: has no resolution; expected one, as patches are resampled to "
            f"{' x '.join(f'{side:g}' for side in resolution)}: say resample: false in the plan"
        )
    if all(max(a, b) <= SAME_SPACING * min(a, b) for a, b in zip(sides, resolution, strict=True)):
        return None, window, scan.shape, sides
    shape = resampled_shape(scan.shape, sides, resolution)
    if shape == scan.shape:
        return None, window, scan.shape, sides
    maps = [AxisMap(old, new) for old, new in zip(scan.shape, shape, strict=True)]
    # Only what needs no pixel from outside the region: that may be in another split.
    inside = tuple(
        slice(axis.beginning(side.start), axis.finished(side.stop))
        for axis, side in zip(maps, window, strict=True)
    )
    if any(side.stop <= side.start for side in inside):
        raise SpecError(
            f"case {region.case!r}: a region of {' x '.join(map(str, _lengths(window)))} pixels "
            f"holds none of {' x '.join(f'{side:g}' for side in resolution)}; expected more than "
            "one along each axis: choose a finer resolution, or a larger region"
        )
    exact = tuple(side * axis.source / axis.target for side, axis in zip(sides, maps, strict=True))
    return tuple(resolution), inside, shape, exact


def _lengths(window: Window) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in window)
