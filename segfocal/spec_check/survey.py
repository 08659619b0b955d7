"""What is in the files of a case: headers first, then one streamed pass over the pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segfocal.card import IGNORE_INDEX
from segfocal.data.cases import Case
from segfocal.data.channels import match_channels, usable_pixels
from segfocal.data.open_scans import open_image, open_labels
from segfocal.data.reading import BLOCK, blocks
from segfocal.data.regions import Region
from segfocal.data.spec import DatasetSpec
from segfocal.errors import ChannelError, ScanError, SegfocalError, SpecError
from segfocal.io import read_labels
from segfocal.io.footprints import Footprint, footprint_of
from segfocal.io.ground import unit_of_pixels
from segfocal.types import Window, full_window, window_shape

__all__ = ["CaseSurvey", "ChannelSurvey", "count_blocks", "survey_headers", "survey_pixels"]


@dataclass
class ChannelSurvey:
    """Values of a channel.

    Attributes:
        valid: Pixels with a value.
        low, high: Smallest and largest value; None before there is one.
        nan: Pixels whose value is NaN or infinite.
    """

    valid: int = 0
    nan: int = 0
    low: float | None = None
    high: float | None = None


@dataclass
class CaseSurvey:
    """What was found of a case.

    Attributes:
        case: The case.
        error: What keeps it from being read, or "".
        shape, resolution, dtype, georeference, file_channels: Of the scan.
        unit: Unit of the resolution, or None.
        unmasked: Classes that were looked for and have no mask file.
        twice_scaled: Channels that both header and spec scale.
        windows: Windows of its regions by split.
        footprints: Boxes of its regions on the ground, by split.
        pixels: Pixels that were looked at; 0: the pass over pixels was not made.
        usable: Pixels that the scan has values for.
        labelled: Usable pixels with a class.
        values: Pixels by code, of the label file, where it has a label.
        stray: Pixels by code that is neither a class nor ignored.
        class_pixels: Usable pixels by split and class index.
        split_labelled: Usable pixels with a class by split.
        channels: By channel name.
        digest: Hash of shape and values, the same for images with the same values, of
            whatever type.
    """

    case: Case
    error: str = ""
    shape: tuple[int, ...] = ()
    resolution: tuple[float, ...] | None = None
    unit: str | None = None
    dtype: str = ""
    georeference: dict[str, Any] = field(default_factory=dict)
    file_channels: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()
    twice_scaled: tuple[str, ...] = ()
    windows: dict[str, list[Window]] = field(default_factory=dict)
    footprints: dict[str, list[Footprint]] = field(default_factory=dict)
    footprint: Footprint | None = None
    pixels: int = 0
    usable: int = 0
    labelled: int = 0
    values: Counter[int] = field(default_factory=Counter)
    stray: Counter[int] = field(default_factory=Counter)
    class_pixels: dict[str, np.ndarray] = field(default_factory=dict)
    split_labelled: Counter[str] = field(default_factory=Counter)
    channels: dict[str, ChannelSurvey] = field(default_factory=dict)
    digest: str = ""


def survey_headers(
    spec: DatasetSpec, case: Case, regions: Mapping[str, Sequence[Region]]
) -> CaseSurvey:
    """Open all files of a case and compare what their headers say.

    Args:
        spec: The dataset.
        case: The case.
        regions: Its regions by split.
    """
    found = CaseSurvey(case)
    try:
        with open_image(spec, case) as scan:
            found.shape, found.resolution = scan.shape, scan.resolution
            found.unit = unit_of_pixels(scan)
            found.dtype, found.georeference = str(scan.dtype), scan.georeference()
            found.file_channels = scan.channels
            found.twice_scaled = getattr(scan, "twice_scaled", ())
            if len(scan.shape) != spec.ndim:
                raise SpecError(
                    f"{scan.name}: has {len(scan.shape)} spatial axes; the spec says ndim: "
                    f"{spec.ndim}"
                )
            match_channels(scan, spec.channels, by_name=True)
            placed = footprint_of(scan)
            found.footprint = None if placed is None else placed(full_window(scan.shape))
            for split, own in regions.items():
                windows = [region.window(scan.shape) for region in own]
                found.windows[split] = windows
                found.footprints[split] = [] if placed is None else list(map(placed, windows))
            open_labels(spec, case, scan).close()
        found.unmasked = tuple(
            name
            for name, entry in spec.label_files(case).items()
            if (case.annotated is None or name in case.annotated) and not spec.path(entry).is_file()
        )
    except (ScanError, ChannelError, SpecError) as error:
        found.error = " ".join(str(error).split())
    return found


def count_blocks(spec: DatasetSpec, survey: CaseSurvey) -> int:
    """Return the number of blocks of the pass over a case's pixels."""
    if survey.error:
        return 0
    return int(np.prod([-(-side // BLOCK[spec.ndim]) for side in survey.shape]))


def survey_pixels(spec: DatasetSpec, survey: CaseSurvey, advance: Callable[[], None]) -> None:
    """Count labels and look at values of a case, block by block.

    Args:
        spec: The dataset.
        survey: The case's headers; gets the counts.
        advance: Called after each block.
    """
    if survey.error:
        return
    case, table = survey.case, spec.class_table
    members = table.members
    survey.channels = {name: ChannelSurvey() for name in spec.channels}
    survey.class_pixels = {split: np.zeros(spec.num_classes, np.int64) for split in survey.windows}
    try:
        with open_image(spec, case) as scan, open_labels(spec, case, scan) as labels:
            chosen = match_channels(scan, spec.channels, by_name=True)
            digest = hashlib.sha256(repr(scan.shape).encode())
            for block in blocks(full_window(scan.shape), BLOCK[spec.ndim]):
                patch = scan.read(block, chosen)
                usable = usable_pixels(patch, spec.valid_when)
                digest.update(_of_one_type(np.where(patch.valid, patch.values, 0)).tobytes())
                for place, name in enumerate(spec.channels):
                    _add(survey.channels[name], patch.values[..., place], patch.valid[..., place])
                codes, labelled = read_labels(labels, block)
                index, stray = table.index(codes)
                index[~(usable & labelled)] = IGNORE_INDEX
                survey.pixels += usable.size
                survey.usable += int(usable.sum())
                _count(survey.values, codes[labelled])
                _count(survey.stray, codes[stray & labelled])
                survey.labelled += int((index >= 0).sum())
                for split, windows in survey.windows.items():
                    for window in windows:
                        part = _within(window, block)
                        if part is None:
                            continue
                        own = index[part]
                        counts = np.bincount(own[own >= 0], minlength=len(members))
                        survey.class_pixels[split] += counts @ members
                        survey.split_labelled[split] += int(counts.sum())
                advance()
            survey.digest = digest.hexdigest()
    except SegfocalError as error:
        survey.error = " ".join(str(error).split())


def _of_one_type(values: Any) -> Any:
    """Return equal values as equal bytes: float32 where that is exact, else float64."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    exact = single if (single == values).all() else values.astype(np.float64)
    return exact + 0  # -0 is 0


def _add(survey: ChannelSurvey, values: Any, valid: Any) -> None:
    own = values[valid]
    survey.valid += own.size
    if values.dtype.kind == "f":
        survey.nan += int(values.size - np.isfinite(values).sum())
    if own.size:
        low, high = float(own.min()), float(own.max())
        survey.low = low if survey.low is None else min(low, survey.low)
        survey.high = high if survey.high is None else max(high, survey.high)


def _count(counter: Counter[int], codes: Any) -> None:
    values, counts = np.unique(codes, return_counts=True)
    counter.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _within(window: Window, block: Window) -> Window | None:
    """Return the part of a block that lies in a window, counted from the block's start."""
    sides = []
    for side, frame in zip(window, block, strict=True):
        start, stop = max(side.start, frame.start), min(side.stop, frame.stop)
        if start >= stop:
            return None
        sides.append(slice(start - frame.start, stop - frame.start))
    assert all(window_shape(tuple(sides)))
    return tuple(sides)
