"""The same data twice: equal images, and ground that is in two splits or borders on another."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from segfocal.data.spec import DatasetSpec
from segfocal.io.footprints import Footprint, shared_part
from segfocal.spec_check.findings import Finding
from segfocal.spec_check.survey import CaseSurvey

__all__ = ["checksum_faults", "equal_images", "shared_ground", "touching_splits"]

CHUNK = 2**20
TOUCHING = 1e-3
"""Part of a footprint that neighbours may share: rounded coordinates."""


def equal_images(surveys: Sequence[CaseSurvey]) -> Iterator[Finding]:
    """Yield cases whose images hold the same values, pixel by pixel, in whatever files."""
    same: dict[str, list[CaseSurvey]] = defaultdict(list)
    for survey in surveys:
        if any(channel.low != channel.high for channel in survey.channels.values()):
            same[survey.digest].append(survey)
    for group in same.values():
        # One file in two cases is the spec's will, and its splits were compared.
        if len({tuple(survey.case.files.values()) for survey in group}) < 2:
            continue
        crossing = sorted(set().union(*(survey.windows for survey in group)))
        ids = tuple(sorted(survey.case.id for survey in group))
        if len(crossing) > 1:
            yield Finding("fault", f"the same image in {' and '.join(crossing)}: leakage", ids)
        else:
            yield Finding("warning", "the same image twice", ids)


def _digest(file: str, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(file, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def shared_ground(surveys: Sequence[CaseSurvey]) -> Iterator[Finding]:
    """Yield pairs of cases whose regions lie on the same ground in different splits."""
    entries = [
        (survey.case.id, split, place)
        for survey in surveys
        for split, places in survey.footprints.items()
        for place in places
    ]
    worst: dict[tuple[bool, tuple[str, ...]], tuple[float, set[str]]] = {}
    same: dict[tuple[str, str], float] = {}
    for one, other in _touching(entries):
        (case, split, place), (other_case, other_split, other_place) = one, other
        if case == other_case:
            continue
        part = shared_part(place, other_place)
        if part <= TOUCHING:
            continue
        pair = (min(case, other_case), max(case, other_case))
        if split != other_split:
            key = (place.crs != "", tuple(sorted((split, other_split))))
            most, ids = worst.get(key, (0.0, set()))
            worst[key] = (max(most, part), ids | set(pair))
        elif place.crs:
            same[pair] = max(part, same.get(pair, 0.0))
    for (placed, splits), (part, ids) in worst.items():
        text = f"cases of {' and '.join(splits)} lie on the same ground (up to {part:.0%} of one)"
        if placed:
            yield Finding("fault", f"{text}: leakage", tuple(sorted(ids)))
        else:  # a made-up transform, of pixels say, is no place
            yield Finding(
                "warning",
                f"{text} by their transforms, and have no CRS: leakage, unless the transforms mean "
                "nothing",
                tuple(sorted(ids)),
            )
    equal = sorted({case for pair, part in same.items() if part > 0.99 for case in pair})
    if equal:
        yield Finding(
            "notice", "lie in the same place as another case of their split", tuple(equal)
        )


_Entry = tuple[str, str, Footprint]


def _touching(entries: list[_Entry]) -> Iterator[tuple[_Entry, _Entry]]:
    """Yield pairs that may overlap: a sweep from west to east, of each CRS without degrees too."""
    groups: dict[str | None, list[tuple[float, float, int]]] = defaultdict(list)
    for number, (_, _, place) in enumerate(entries):
        known = all(np.isfinite(place.degrees))
        west, _, east, _ = place.degrees if known else place.bounds
        groups[None if known else place.crs].append((west, east, number))
    for spans in groups.values():
        active: list[tuple[float, float, int]] = []
        for span in sorted(spans):
            active = [other for other in active if other[1] > span[0]]
            yield from ((entries[other[2]], entries[span[2]]) for other in active)
            active.append(span)


def touching_splits(surveys: Sequence[CaseSurvey]) -> Iterator[Finding]:
    """Yield scans in which the regions of two splits border on each other."""
    found: dict[tuple[str, ...], list[str]] = {}
    for survey in surveys:
        for one, other in combinations(sorted(survey.windows), 2):
            first, second = (
                np.array([[(side.start, side.stop) for side in window] for window in windows])
                for windows in (survey.windows[one], survey.windows[other])
            )
            # Pixels between two regions along an axis, 0 or less where they overlap along it.
            for region in first:
                gaps = np.maximum(second[..., 0] - region[:, 1], region[:, 0] - second[..., 1])
                if (gaps.max(-1) < 1).any():
                    found.setdefault((one, other), []).append(survey.case.id)
                    break
    for splits, cases in found.items():
        yield Finding(
            "warning",
            f"regions of {' and '.join(splits)} touch: pixels on both sides look alike, and scores "
            "come out too high; leave a gap between them (of blocks: buffer)",
            tuple(cases),
        )


def checksum_faults(spec: DatasetSpec, tell: Callable[[str, int, int], None]) -> Iterator[Finding]:
    """Yield files of the source that are not what the spec says.

    Args:
        spec: The dataset.
        tell: Called with what is done, how much of it, and how much there is.
    """
    missing = []
    for number, (entry, expected) in enumerate(spec.checksums.items(), 1):
        path = spec.path(entry)
        kind, digest = expected.split(":")
        if not path.is_file():
            missing.append(entry)
            continue
        try:
            found = _digest(str(path), kind)
        except OSError as error:
            yield Finding("fault", f"{entry}: cannot be read: {error.strerror or error}")
            continue
        tell("checksums", number, len(spec.checksums))
        if found != digest:
            yield Finding(
                "fault", f"{entry}: {kind} is {found}; the spec says {digest}: download it again"
            )
    if missing:
        yield Finding("notice", f"checksums not compared, no such file: {', '.join(missing[:3])}")
