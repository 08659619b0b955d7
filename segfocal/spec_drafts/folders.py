"""A draft from a folder of images and labels: pairs, channels, class values, colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segfocal.data.patterns import group_names
from segfocal.errors import SpecError
from segfocal.io import Scan, open_scan
from segfocal.io.vectors import VECTOR_SUFFIXES
from segfocal.spec_drafts.by_place import PlacedCase, placed_cases
from segfocal.spec_drafts.draft import Draft, checked_name
from segfocal.spec_drafts.guessed_classes import add_classes
from segfocal.spec_drafts.guesses import Pair, found_files, found_pairs, general_rule

__all__ = ["from_folder"]

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def from_folder(folder: Path) -> Draft:
    """Return the draft of a folder of images and labels.

    They are paired by their names; where those do not tell, by what they hold and where they lie.

    Raises:
        SpecError: No pairs were found.
        ScanError: The first image or a label file cannot be read.
    """
    try:
        pairs, alone = found_pairs(folder)
    except SpecError:
        placed = placed_cases(folder, list(found_files(folder))) if folder.is_dir() else []
        if not placed:
            raise
        return _from_places(folder, placed)
    with open_scan(folder / pairs[0].image) as scan:
        ndim, shortest = len(scan.shape), min(scan.shape)
        channels, named = _channels(scan)
    draft = _started(folder, ndim, channels, named)
    if alone:
        draft.notes.append(f"{len(alone)} images without labels, such as {alone[0]}")
    add_classes(draft, [pair.labels for pair in pairs])
    _cases(draft, folder, pairs)
    _splits(draft, pairs, ndim, shortest)
    return draft


def _from_places(folder: Path, cases: list[PlacedCase]) -> Draft:
    """Return the draft of cases found by where their files lie; they are like the first."""
    first = cases[0]
    kept = [case for case in cases if _alike(case, first)]
    with open_scan(folder / next(iter(first.files.values()))) as scan:
        ndim, shortest = len(scan.shape), min(scan.shape)
        named = scan.channels_are_named or len(first.files) > 1
    channels = [name for own in first.channels.values() for name in own]
    draft = _started(folder, ndim, channels, named)
    if "*" not in first.files:
        draft.document["bands"] = first.channels
        draft.comments["bands"] = "The channels of each file, in file order."
    draft.document["cases"] = [
        {
            "id": case.id,
            **({"image": case.files["*"]} if "*" in case.files else {"images": case.files}),
            "labels": case.labels[0],
        }
        for case in kept
    ]
    others = [own for case in kept for own in case.labels[1:]]
    draft.comments["cases"] = "Found by what the files hold and where they lie." + (
        f"\nOther labels of the same place: {', '.join(others)}" if others else ""
    )
    if len(kept) < len(cases):
        left = next(case for case in cases if not _alike(case, first))
        draft.notes.append(
            f"{len(cases) - len(kept)} scans with other channels are left out, such as {left.id}"
        )
    draft.notes.append("names do not pair the files: check which scan has which labels")
    add_classes(draft, [case.labels[0] for case in kept])
    pairs = [Pair(next(iter(case.files.values())), case.labels[0]) for case in kept]
    _splits(draft, pairs, ndim, shortest)
    return draft


def _alike(case: PlacedCase, other: PlacedCase) -> bool:
    """Return whether two cases can be one dataset's: the same channels, labels of one kind."""
    kinds = {own.labels[0].lower().endswith(VECTOR_SUFFIXES) for own in (case, other)}
    return case.channels == other.channels and len(kinds) == 1


def _started(folder: Path, ndim: int, channels: list[str], named: bool) -> Draft:
    document: dict[str, Any] = {
        "name": checked_name(folder.resolve().name),
        "description": "",
        "licence": "",
        "citation": "",
        "ndim": ndim,
        "channels": channels,
    }
    if ndim == 3:
        document["orientation"] = "RAS"
    return Draft(
        folder,
        document,
        {
            "description": "Fill in: what the data is, whose it is and how it may be used.",
            "channels": "The names that the files give; remove what the network should not see."
            if named
            else "The files do not name their channels: give them names. To use fewer than the\n"
            "files have, name all of them under bands, in file order.",
        },
    )


def _channels(scan: Scan) -> tuple[list[str], bool]:
    if scan.channels_are_named:
        return list(scan.channels), True
    if len(scan.channels) == 3 and scan.dtype == np.uint8:
        return ["red", "green", "blue"], False
    return list(scan.channels), False


def _cases(draft: Draft, folder: Path, pairs: Sequence[Pair]) -> None:
    rule = general_rule(pairs, folder)
    if rule is not None:
        draft.document["pairing"] = rule
        draft.comments["pairing"] = (
            "Cases are files whose {groups} agree; a group that names the patient, scene or city\n"
            "can be given to group_by, so that it is never in two splits."
        )
        return
    stems = [pair.image.rsplit("/", 1)[-1].split(".")[0] for pair in pairs]
    unique = len(set(stems)) == len(stems)
    draft.document["cases"] = [
        {
            "id": stem if unique else pair.image.split(".")[0].replace("/", "_"),
            "image": pair.image,
            "labels": pair.labels,
        }
        for stem, pair in zip(stems, pairs, strict=True)
    ]


def _splits(draft: Draft, pairs: Sequence[Pair], ndim: int, shortest: int) -> None:
    rule = draft.document.get("pairing")
    parts = [pair.image.split("/")[:-1] for pair in pairs]
    if rule is not None:
        for place, pattern in enumerate(rule["image"].split("/")[:-1]):
            texts = sorted({own[place] for own in parts})
            if pattern.startswith("{") and {text.lower() for text in texts} <= SPLIT_NAMES:
                group = pattern.strip("{}")
                draft.document["splits"] = {
                    text.lower().replace("training", "train"): [{"where": {group: text}}]
                    for text in texts
                }
                draft.comments["splits"] = "As the folders say."
                return
    if ndim == 2 and len(pairs) < 6:
        size = max(8, min(256, shortest // 4))
        draft.document["split_by"] = {
            "ratio": {"train": 0.7, "test": 0.3},
            "blocks": {"size": size, "buffer": size // 8},
            "seed": 0,
        }
        draft.comments["split_by"] = (
            "Few scenes: they are divided into blocks of this many pixels, with a buffer between\n"
            "blocks of different splits. Whole scenes held out say more."
        )
    elif len(pairs) == 1:
        draft.document["splits"] = {"train": [draft.document["cases"][0]["id"]]}
        draft.comments["splits"] = "One volume: hold out a part with rows, cols or planes."
    else:
        group = _shared_folder(rule, parts)
        number = len(pairs) if group is None else len({tuple(own) for own in parts})
        ratio = {"train": 0.7, "val": 0.15, "test": 0.15}
        if number < 10:
            ratio = {"train": 0.7, "test": 0.3}
        draft.document["split_by"] = {"ratio": ratio, "seed": 0}
        if group is None:
            draft.comments["split_by"] = "Cases at random. Do some belong together? Set group_by."
        else:
            draft.document["group_by"] = group
            draft.comments["group_by"] = (
                "Cases of one folder are never in two splits. If they are channels of one scan, "
                "write\nimages: with a file for each in place of image:, under pairing."
            )


def _shared_folder(rule: dict[str, Any] | None, parts: Sequence[Sequence[str]]) -> str | None:
    """Return the group of the folders when several lie beside each other with several cases."""
    if rule is None or not 1 < len({tuple(own) for own in parts}) <= len(parts) / 2:
        return None
    return next(iter(group_names("/".join(rule["image"].split("/")[:-1]))), None)
