"""What a check found, in words: faults, warnings and notices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segfocal.data.spec import DatasetSpec
from segfocal.planning.intensity import normalization_of
from segfocal.spec_check.finding import Finding
from segfocal.spec_check.headers import of_headers
from segfocal.spec_check.survey import CaseSurvey, ChannelSurvey

__all__ = ["Finding", "judged"]

BELONGS_TOGETHER = ("patient", "subject", "sub", "participant", "person", "scene", "city", "site")
"""Names of groups that usually may not be divided."""

TRAIN = "train"

OTHER_SCALE = 30
"""Ratio of the ranges of values of two cases above which they are hardly in the same unit."""


def judged(spec: DatasetSpec, surveys: Sequence[CaseSurvey]) -> list[Finding]:
    """Return what follows from the surveys of single cases."""
    found: list[Finding] = []
    found += [Finding("fault", s.error, (s.case.id,)) for s in surveys if s.error]
    read = [survey for survey in surveys if not survey.error]
    found += _pairs(spec)
    found += _splits(spec, surveys)
    found += of_headers(spec, read)
    found += _masks(spec, read)
    if any(survey.pixels for survey in read):
        found += _labels(spec, read)
        found += _classes(spec, read)
        found += _values(spec, read)
    return found


def _pairs(spec: DatasetSpec) -> Iterator[Finding]:
    alone = spec.alone
    for what in ("no labels", "no image"):
        lines = [line.rsplit(": ", 1)[0] for line in alone if line.endswith(what)]
        if lines:
            kind = "images have" if what == "no labels" else "label files have"
            yield Finding("warning", f"{len(lines)} {kind} {what}: {_some(lines)}")
    others = [line for line in alone if not line.endswith(("no labels", "no image"))]
    if others:
        yield Finding("warning", f"{len(others)} images lack a file: {_some(others)}")


def _splits(spec: DatasetSpec, surveys: Sequence[CaseSurvey]) -> Iterator[Finding]:
    used = {split: {r.case for r in regions} for split, regions in spec.all_regions.items()}
    if not used.get(TRAIN):
        names = ", ".join(used)
        yield Finding("fault", f"there is no split 'train' with cases; splits are {names}")
    for split, cases in used.items():
        if not cases and split != TRAIN:
            yield Finding("warning", f"split {split!r} is empty")
    if len([split for split, cases in used.items() if cases]) == 1:
        yield Finding("warning", "there is one split only: nothing is held out to test on")
    idle = [s.case.id for s in surveys if not any(s.case.id in cases for cases in used.values())]
    if idle:
        yield Finding("notice", "in no split", tuple(idle))
    blocks = spec.split_by is not None and spec.split_by.blocks is not None
    groups = dict.fromkeys(name for survey in surveys for name in survey.case.groups)
    for name in groups:
        splits_of: dict[str, set[str]] = {}
        for survey in surveys:
            text = survey.case.groups.get(name)
            if text is not None:
                own = {split for split, cases in used.items() if survey.case.id in cases}
                splits_of.setdefault(text, set()).update(own)
        torn = {text: splits for text, splits in splits_of.items() if len(splits) > 1}
        if not torn:
            continue
        shown = "; ".join(
            f"{text} in {' and '.join(sorted(splits))}" for text, splits in list(torn.items())[:4]
        )
        more = f"; {len(torn)} in all" if len(torn) > 4 else ""
        if name == spec.group_by:
            yield Finding("fault", f"group {name!r} crosses splits ({shown}{more}): leakage")
        elif name.lower() in BELONGS_TOGETHER:
            yield Finding(
                "warning",
                f"group {name!r} crosses splits ({shown}{more}); if its cases look alike, "
                + (f"set group_by: {name}" if not blocks else f"put group_by: {name} for blocks"),
            )


def _masks(spec: DatasetSpec, read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    for name in dict.fromkeys(name for survey in read for name in survey.unmasked):
        bare = tuple(survey.case.id for survey in read if name in survey.unmasked)
        yield Finding(
            "warning",
            f"class {name!r} has no mask file in {len(bare)} of {len(read)} cases, and is taken "
            "not to occur there; where it was not looked for, leave it out of annotated",
            bare,
        )


def _labels(spec: DatasetSpec, read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    table = spec.class_table
    codes: dict[int, tuple[int, list[str]]] = {}
    for survey in read:
        for code, count in survey.stray.items():
            pixels, cases = codes.get(code, (0, []))
            codes[code] = (pixels + count, [*cases, survey.case.id])
    ranked = sorted(codes.items(), key=lambda item: -item[1][0])
    if ranked:
        kind = "label colour" if table.colors else "label value"
        shown = ", ".join(f"{table.text(code)} ({pixels} px)" for code, (pixels, _) in ranked[:6])
        many = f"{len(ranked)} {kind}s are" if len(ranked) > 1 else f"a {kind} is"
        more = ", ..." if len(ranked) > 6 else ""
        hint = ""
        if len(ranked) > 50:
            hint = "; raise labels.tolerance?" if table.colors else "; are they instances?"
        strange = tuple(dict.fromkeys(case for _, (_, ids) in ranked for case in ids))
        yield Finding("fault", f"{many} neither a class nor ignored: {shown}{more}{hint}", strange)
    bare = [s.case.id for s in read if s.pixels and not s.labelled and not s.stray and s.windows]
    if bare:
        yield Finding("warning", "no labelled pixel", tuple(bare))


def _classes(spec: DatasetSpec, read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    zeros = np.zeros(spec.num_classes, np.int64)
    by_split = {
        split: sum((s.class_pixels[split] for s in read if split in s.class_pixels), zeros)
        for split in spec.split_names
    }
    train = by_split.get(TRAIN, zeros)
    if TRAIN in by_split and not train.any():
        yield Finding("fault", "split 'train' has no labelled pixel")
        return
    everywhere = sum(by_split.values(), zeros)
    for k, label in enumerate(spec.classes):
        if not everywhere[k]:
            yield Finding("warning", f"class {label.name!r} ({label.value}) occurs in no split")
        elif TRAIN in by_split and not train[k]:
            others = [split for split, counts in by_split.items() if counts[k]]
            yield Finding(
                "fault",
                f"class {label.name!r} ({label.value}) occurs in {', '.join(others)} but not in "
                "train: it cannot be learned",
            )
        else:
            for split, counts in by_split.items():
                if split != TRAIN and counts.any() and not counts[k]:
                    yield Finding(
                        "notice", f"class {label.name!r} does not occur in split {split!r}"
                    )
    present = train[train > 0]
    if len(present) > 1 and present.max() > 100 * present.min():
        rare, common = (
            spec.classes[int(np.flatnonzero(train == n)[0])].name
            for n in (present.min(), present.max())
        )
        yield Finding(
            "notice",
            f"classes are out of balance, {present.max() / present.min():.0f} to 1 in train: "
            f"{common} and {rare}",
        )


def _values(spec: DatasetSpec, read: Sequence[CaseSurvey]) -> Iterator[Finding]:
    for name in spec.channels:
        own = [(s.case.id, s.channels[name]) for s in read if name in s.channels]
        if own and not any(channel.valid for _, channel in own):
            yield Finding("fault", f"channel {name!r} has no valid pixel in any case")
            continue
        empty = [case for case, channel in own if not channel.valid]
        if empty:
            yield Finding("warning", f"channel {name!r} has no valid pixel", tuple(empty))
        flat = [case for case, channel in own if channel.valid and channel.low == channel.high]
        if flat:
            yield Finding("warning", f"channel {name!r} has one value everywhere", tuple(flat))
        found = _scales(spec, name, own)
        if found is not None:
            yield found
    holes: dict[str, list[str]] = {}
    for survey in read:
        if survey.pixels and survey.usable < 0.5 * survey.pixels:
            name, channel = min(survey.channels.items(), key=lambda item: item[1].valid)
            text = "less than half of the pixels have values"
            if len(spec.channels) > 1 and channel.valid < survey.pixels:
                text += f" in {spec.valid_when} channels; {name} has the fewest"
            holes.setdefault(text, []).append(survey.case.id)
    for text, ids in holes.items():
        yield Finding("notice", text, tuple(ids))


def _scales(
    spec: DatasetSpec, name: str, own: Sequence[tuple[str, ChannelSurvey]]
) -> Finding | None:
    """Return a warning where a channel's values have another scale from case to case."""
    if normalization_of(spec, name) == "scan":  # of each scan by itself: the scale does not matter
        return None
    spans = {
        case: channel.high - channel.low
        for case, channel in own
        if channel.low is not None and channel.high is not None and channel.high > channel.low
    }
    if len(spans) < 2:
        return None
    least, most = min(spans, key=spans.__getitem__), max(spans, key=spans.__getitem__)
    if spans[most] < OTHER_SCALE * spans[least]:
        return None
    return Finding(
        "warning",
        f"values of channel {name!r} span {spans[least]:.4g} in {least} and {spans[most]:.4g} in "
        f"{most}: are they in the same unit? normalization: {{{name}: scan}} scales each scan by "
        "itself",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
