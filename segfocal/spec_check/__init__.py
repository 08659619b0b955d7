"""Checks of a dataset before it is trained on: every file, every pair, every label."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segfocal.data.regions import Region
from segfocal.data.spec import DatasetSpec, load_spec
from segfocal.errors import SegfocalWarning
from segfocal.spec_check.findings import Finding, judged
from segfocal.spec_check.leaks import (
    checksum_faults,
    equal_images,
    shared_ground,
    touching_splits,
)
from segfocal.spec_check.survey import (
    CaseSurvey,
    count_blocks,
    survey_headers,
    survey_pixels,
)

__all__ = ["SpecCheck", "check_spec"]

Progress = Callable[[str, int, int], None]

LEVELS = ("fault", "warning", "notice")


@dataclass(frozen=True)
class SpecCheck:
    """What a check found.

    Attributes:
        spec: The dataset.
        surveys: What is in the files, by case.
        findings: What to know, faults first.
    """

    spec: DatasetSpec
    surveys: tuple[CaseSurvey, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """False when something would spoil training or scores."""
        return not any(finding.level == "fault" for finding in self.findings)

    def class_pixels(self, split: str) -> list[int]:
        """Return usable labelled pixels of a split by class index."""
        zeros = np.zeros(self.spec.num_classes, np.int64)
        parts = [s.class_pixels[split] for s in self.surveys if split in s.class_pixels]
        return [int(count) for count in sum(parts, zeros)]

    def as_json(self) -> dict[str, Any]:
        """Return everything as a JSON value."""
        spec = self.spec
        return {
            "spec": spec.name,
            "ok": self.ok,
            "findings": [
                {"level": f.level, "text": f.text, "cases": list(f.cases)} for f in self.findings
            ],
            "classes": [
                {
                    "value": label.value,
                    "name": label.name,
                    "color": list(label.color),
                    "pixels": {split: self.class_pixels(split)[k] for split in spec.split_names},
                }
                for k, label in enumerate(spec.classes)
            ],
            "cases": [_case_json(survey, spec) for survey in self.surveys],
        }


def _case_json(survey: CaseSurvey, spec: DatasetSpec) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": survey.case.id,
        "splits": sorted(survey.windows),
        "shape": list(survey.shape),
        "resolution": None if survey.resolution is None else list(survey.resolution),
        "dtype": survey.dtype,
        "georeference": survey.georeference,
        "error": survey.error or None,
    }
    if survey.pixels:
        text = spec.class_table.text
        found |= {
            "pixels": survey.pixels,
            "usable": survey.usable,
            "labelled": survey.labelled,
            "label_values": {text(code): n for code, n in sorted(survey.values.items())},
            "channels": {
                name: {
                    "low": channel.low,
                    "high": channel.high,
                    "nodata": 1 - channel.valid / survey.pixels,
                    "nan": channel.nan / survey.pixels,
                }
                for name, channel in survey.channels.items()
            },
        }
    return found


def check_spec(
    spec: DatasetSpec | str | Path,
    *,
    root: str | Path | None = None,
    pixels: bool = True,
    progress: Progress | None = None,
) -> SpecCheck:
    """Check a dataset: open every file, match pairs, compare grids, count labels, find leaks.

    Args:
        spec: The dataset, or the path of its YAML file.
        root: Folder of the data in place of the spec's own.
        pixels: Look at the pixels too, in one streamed pass, and compare the checksums that the
            spec gives with those of the files that are there; otherwise look at headers only.
        progress: Called with what is being done, how much of it, and how much there is.

    Raises:
        SpecError: The spec is wrong, or its rules find no cases.
    """
    if not isinstance(spec, DatasetSpec):
        spec = load_spec(spec, root=root)
    tell = progress or (lambda what, done, total: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surveys = _headers(spec, tell)
        if pixels:
            _pixels(spec, surveys, tell)
    found = [
        *judged(spec, surveys),
        *equal_images(surveys),
        *shared_ground(surveys),
        *touching_splits(surveys),
        *(checksum_faults(spec, tell) if pixels else ()),
        *_told(spec, surveys, [str(w.message) for w in caught if _ours(w.category)]),
    ]
    found.sort(key=lambda finding: LEVELS.index(finding.level))
    return SpecCheck(spec, tuple(surveys), tuple(found))


def _workers() -> int:
    return min(8, (os.cpu_count() or 1) + 2)


def _headers(spec: DatasetSpec, tell: Progress) -> list[CaseSurvey]:
    regions: dict[str, dict[str, list[Region]]] = {case.id: {} for case in spec.cases}
    for split, found in spec.all_regions.items():
        for region in found:
            regions[region.case].setdefault(split, []).append(region)
    surveys = []
    with ThreadPoolExecutor(_workers()) as pool:
        for survey in pool.map(
            lambda case: survey_headers(spec, case, regions[case.id]), spec.cases
        ):
            surveys.append(survey)
            tell("headers", len(surveys), len(spec.cases))
    return surveys


def _pixels(spec: DatasetSpec, surveys: Sequence[CaseSurvey], tell: Progress) -> None:
    total = sum(count_blocks(spec, survey) for survey in surveys)
    done, lock = 0, threading.Lock()

    def advance() -> None:
        nonlocal done
        with lock:
            done += 1
            tell("pixels", done, total)

    with ThreadPoolExecutor(min(4, _workers())) as pool:
        list(pool.map(lambda survey: survey_pixels(spec, survey, advance), surveys))


def _ours(category: type[Warning]) -> bool:
    return issubclass(category, SegfocalWarning)


def _told(
    spec: DatasetSpec, surveys: Sequence[CaseSurvey], messages: Sequence[str]
) -> list[Finding]:
    """Return warnings from the reading of files, those of one kind together."""
    kinds = (
        (
            "is resampled to the grid",
            "notice",
            "files of other channels lie on another grid and are resampled to that of the first",
        ),
        (
            "has no georeference, and the shape of",
            "notice",
            "scan or labels have no georeference, and they are of one shape: taken to lie pixel on "
            "pixel",
        ),
        (
            "of its voxels fall on it",
            "warning",
            "labels have the scan's shape, and less than half of their voxels fall on it: is their "
            "affine right?",
        ),
        ("lies on another grid", "notice", "labels lie on another grid and are read nearest"),
        (
            "different CRS tags",
            "warning",
            "labels have the scan's transform but another CRS tag: taken to coincide",
        ),
    )
    found: dict[tuple[str, str], list[str]] = {}
    for message in dict.fromkeys(messages):
        owner = [
            s.case.id for s in surveys if any(message.startswith(f) for f in spec.files(s.case))
        ]
        level, text = next(
            ((level, text) for part, level, text in kinds if part in message),
            ("warning", message),
        )
        ids = found.setdefault((level, text), [])
        ids += [case for case in owner if case not in ids]
    place = {survey.case.id: number for number, survey in enumerate(surveys)}
    return [
        Finding(level, text, tuple(sorted(ids, key=place.__getitem__)))  # type: ignore[arg-type]
        for (level, text), ids in found.items()
    ]
