"""Cases found by what files hold and where they lie, where their names do not pair them.

Labels are whole numbers that are alike over areas; a scan and its labels lie on the same grid, or
scenes on the same ground. Several scans on one grid are the channels of one case.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io import Scan, open_scan
from segfocal.io.footprints import Footprint, footprint_of, shared_part
from segfocal.io.grids import lie_on_the_same_grid
from segfocal.io.vector_layers import attribute_values
from segfocal.io.vectors import VECTOR_SUFFIXES
from segfocal.spec_drafts.guesses import file_words
from segfocal.types import full_window

__all__ = ["PlacedCase", "placed_cases"]

MOST_FILES = 100
"""Files beyond which contents are not looked into: names pair large datasets."""

SAMPLE = {2: 512, 3: 96}
"""Sides of the box in the middle of a file that is looked into, by its number of axes."""

ALIKE = 0.4
"""Share of neighbours of equal value, beside the commonest value, from which on files are labels;
of images of 8 bits it is below 0.1, of atlases of hundred regions above 0.7."""


@dataclass
class PlacedCase:
    """Scans on one grid, and label files for them.

    Attributes:
        id: What the case may be called.
        files: The scans' files by a word for each; one: ``{"*": file}``.
        channels: Names of the channels of each, by the same word.
        labels: Label files, relative to the folder, the fullest first.
    """

    id: str
    files: dict[str, str]
    channels: dict[str, list[str]]
    labels: list[str]


@dataclass
class _Found:
    """A file that was opened."""

    file: str
    scan: Scan
    labelled: float | None
    """Share of pixels with a label; None: the file holds an image."""
    place: Footprint | None = None
    members: list[_Found] = field(default_factory=list)


def placed_cases(folder: Path, files: Sequence[str]) -> list[PlacedCase]:
    """Return the cases of a folder, each with one label file at least; none when it is unclear.

    Args:
        folder: Folder of the data.
        files: Scans and vector files, relative to it. Those that cannot be read are left out.
    """
    if len(files) > MOST_FILES:
        return []
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", SegfocalWarning)
        vectors = [file for file in files if _is_vector(folder, file)]
        rasters = [file for file in files if not file.lower().endswith(VECTOR_SUFFIXES)]
        opened = [one for file in rasters if (one := _opened(stack, folder, file)) is not None]
        heads: list[_Found] = []
        for own in (one for one in opened if one.labelled is None):
            head = next((h for h in heads if lie_on_the_same_grid(h.scan, own.scan)), own)
            if head is own:
                heads.append(own)
            head.members.append(own)
        labels = [one for one in opened if one.labelled is not None]
        labels.sort(key=lambda one: -(one.labelled or 0))
        cases = [
            _case(head, [*_labels_of(head, labels), *(vectors if len(heads) == 1 else ())])
            for head in heads
        ]
    cases = [case for case in cases if case.labels]
    if len({case.id for case in cases}) < len(cases):
        for case in cases:
            case.id = _without_suffix(next(iter(case.files.values()))).replace("/", "_")
    return cases


def _is_vector(folder: Path, file: str) -> bool:
    if not file.lower().endswith(VECTOR_SUFFIXES):
        return False
    try:
        attribute_values(folder / file)
    except ScanError:  # points, lines, or not readable
        return False
    return True


def _opened(stack: ExitStack, folder: Path, file: str) -> _Found | None:
    try:
        scan = stack.enter_context(open_scan(folder / file))
        labelled = _labelled(scan)
        placed = footprint_of(scan)
    except ScanError:
        return None
    if placed is None and len(scan.shape) == 2:
        return None  # it lies nowhere: equal sides of plain images say nothing
    found = _Found(file, scan, labelled)
    found.place = None if placed is None else placed(full_window(scan.shape))
    return found


def _labelled(scan: Scan) -> float | None:
    """Return the share of labelled pixels in the middle of a file, or None for an image."""
    if len(scan.channels) != 1:
        return None
    side = SAMPLE[len(scan.shape)]
    starts = [max(0, (length - side) // 2) for length in scan.shape]
    window = tuple(
        slice(start, min(start + side, length))
        for start, length in zip(starts, scan.shape, strict=True)
    )
    patch = scan.read(window)
    values, valid = patch.values[..., 0], patch.valid[..., 0]
    known = np.asarray(values[valid], np.float64)
    if not known.size or (known != np.round(known)).any():
        return None
    kinds, counts = np.unique(known, return_counts=True)
    commonest = kinds[counts.argmax()]
    before, after = values[..., :-1], values[..., 1:]
    telling = valid[..., :-1] & valid[..., 1:] & ((before != commonest) | (after != commonest))
    if telling.any() and (before == after)[telling].mean() < ALIKE:
        return None
    return float((valid & (values != 0)).mean())


def _labels_of(head: _Found, labels: Sequence[_Found]) -> list[str]:
    same = [one.file for one in labels if lie_on_the_same_grid(head.scan, one.scan)]
    if same or head.place is None:
        return same
    return [
        one.file
        for one in labels
        if one.place is not None and shared_part(head.place, one.place) > 0
    ]


def _case(head: _Found, labels: list[str]) -> PlacedCase:
    members = head.members
    words = [file_words(one.file) for one in members]
    common = [word for word in words[0] if all(word in own for own in words)]
    if len(members) == 1:
        keys = ["*"]
    else:
        keys = ["_".join(word for word in own if word not in common) for own in words]
        if len(set(keys)) < len(keys) or "" in keys:
            keys = [f"file_{number}" for number in range(1, len(keys) + 1)]
    names = [list(one.scan.channels) for one in members]
    if len({name for own in names for name in own}) < sum(map(len, names)):
        names = [
            [key] if len(own) == 1 else [f"{key}_{name}" for name in own]
            for key, own in zip(keys, names, strict=True)
        ]
    return PlacedCase(
        id="_".join(common) or _without_suffix(head.file).rsplit("/", 1)[-1],
        files={key: one.file for key, one in zip(keys, members, strict=True)},
        channels=dict(zip(keys, names, strict=True)),
        labels=labels,
    )


def _without_suffix(file: str) -> str:
    return re.sub(r"\.[^/]*$", "", file)
