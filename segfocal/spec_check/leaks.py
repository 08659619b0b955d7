"""The same data twice: equal images, and footprints that cross splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from segfocal.data.spec import DatasetSpec
from segfocal.io.footprints import Footprint, shared_part
from segfocal.spec_check.findings import Finding
from segfocal.spec_check.survey import CaseSurvey

__all__ = ["checksum_faults", "equal_images", "shared_ground"]

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
        (place.degrees, survey.case.id, split, place)
        for survey in surveys
        for split, places in survey.footprints.items()
        for place in places
    ]
    worst: dict[tuple[str, ...], tuple[float, set[str]]] = {}
    same: dict[tuple[str, str], float] = {}
    for one, other in _touching(entries):
        (_, case, split, place), (_, other_case, other_split, other_place) = one, other
        if case == other_case:
            continue
        part = shared_part(place, other_place)
        if part <= TOUCHING:
            continue
        pair = (min(case, other_case), max(case, other_case))
        if split == other_split:
            same[pair] = max(part, same.get(pair, 0.0))
            continue
        key = tuple(sorted((split, other_split)))
        most, ids = worst.get(key, (0.0, set()))
        worst[key] = (max(most, part), ids | set(pair))
    for splits, (part, ids) in worst.items():
        yield Finding(
            "fault",
            f"cases of {' and '.join(splits)} lie on the same ground (up to {part:.0%} of one): "
            "leakage",
            tuple(sorted(ids)),
        )
    equal = sorted({case for pair, part in same.items() if part > 0.99 for case in pair})
    if equal:
        yield Finding(
            "notice", "lie in the same place as another case of their split", tuple(equal)
        )


_Entry = tuple[tuple[float, float, float, float], str, str, Footprint]


def _touching(entries: list[_Entry]) -> Iterator[tuple[_Entry, _Entry]]:
    """Yield pairs whose boxes overlap in degrees east, by a sweep from west to east."""
    ordered = sorted(
        (entry for entry in entries if entry[0][0] == entry[0][0]), key=lambda entry: entry[0][0]
    )
    active: list[_Entry] = []
    for entry in ordered:
        active = [other for other in active if other[0][2] > entry[0][0]]
        yield from ((other, entry) for other in active)
        active.append(entry)


def checksum_faults(spec: DatasetSpec) -> Iterator[Finding]:
    """Yield files of the source that are not what the spec says."""
    missing = []
    for entry, expected in spec.checksums.items():
        path = spec.path(entry)
        kind, digest = expected.split(":")
        if not path.is_file():
            missing.append(entry)
            continue
        found = _digest(str(path), kind)
        if found != digest:
            yield Finding(
                "fault", f"{entry}: {kind} is {found}; the spec says {digest}: download it again"
            )
    if missing:
        yield Finding("notice", f"checksums not compared, no such file: {', '.join(missing[:3])}")
