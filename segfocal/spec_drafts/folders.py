"""A draft from a folder of images and labels: pairs, channels, class values, colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segfocal.data.patterns import group_names
from segfocal.data.reading import BLOCK, blocks
from segfocal.errors import ScanError
from segfocal.io import Scan, open_scan, read_labels
from segfocal.io.vectors import VECTOR_SUFFIXES, attribute_values
from segfocal.spec_drafts.draft import Draft, checked_name, class_rows
from segfocal.spec_drafts.guesses import Pair, found_pairs, general_rule
from segfocal.types import full_window

__all__ = ["from_folder"]

MOST_LABELS = 20
"""Label files that are looked into."""

MOST_VALUES = 256
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
CLASS_FIELDS = ("class", "classname", "class_name", "label", "type", "category", "landuse", "code")


def from_folder(folder: Path) -> Draft:
    """Return the draft of a folder of images and labels.

    Raises:
        SpecError: No pairs were found.
        ScanError: The first image or a label file cannot be read.
    """
    pairs, alone = found_pairs(folder)
    with open_scan(folder / pairs[0].image) as scan:
        ndim, shortest = len(scan.shape), min(scan.shape)
        channels, named = _channels(scan)
    document: dict[str, Any] = {
        "name": checked_name(folder.resolve().name),
        "description": "",
        "licence": "",
        "citation": "",
        "ndim": ndim,
        "channels": channels,
    }
    draft = Draft(
        folder,
        document,
        {
            "description": "Fill in: what the data is, whose it is and how it may be used.",
            "channels": "The names that the files give; remove what the network should not see."
            if named
            else "The files do not name their channels: give them names. To use fewer than the\n"
            "files have, name all of them under bands, in file order.",
        },
        [f"{len(alone)} images without labels, such as {alone[0]}"] if alone else [],
    )
    if ndim == 3:
        document["orientation"] = "RAS"
    _classes(draft, folder, pairs)
    _cases(draft, folder, pairs)
    _splits(draft, pairs, ndim, shortest)
    return draft


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


def _classes(draft: Draft, folder: Path, pairs: Sequence[Pair]) -> None:
    if pairs[0].labels.lower().endswith(VECTOR_SUFFIXES):
        _vector_classes(draft, folder, pairs)
        return
    step = max(1, len(pairs) // MOST_LABELS)
    files = list(dict.fromkeys(folder / pair.labels for pair in pairs[::step]))[:MOST_LABELS]
    with open_scan(files[0]) as scan:
        colored = len(scan.channels) == 3 and scan.dtype == np.uint8
    codes: Counter[int] = Counter()
    for file in files:
        with open_scan(file) as scan:
            codes += _codes(scan, colored)
    looked = f"{len(files)} of {len(pairs)} label files were looked into."
    if colored:
        _color_classes(draft, codes, looked)
    elif len(codes) > MOST_VALUES or _numbered(codes):
        draft.document["labels"] = "instances"
        draft.document["classes"] = class_rows([(0, "background"), (1, "object")])
        draft.comments["classes"] = f"Labels look like numbered objects. {looked}"
    else:
        draft.document["classes"] = _value_classes(codes)
        draft.comments["classes"] = (
            f"Fill in the names, and ignore: true for values without a meaning. {looked}"
        )


def _codes(scan: Scan, colored: bool) -> Counter[int]:
    codes: Counter[int] = Counter()
    for block in blocks(full_window(scan.shape), BLOCK[len(scan.shape)]):
        if colored:
            red, green, blue = np.moveaxis(scan.read(block).values.astype(np.int64), -1, 0)
            found = (red << 16 | green << 8 | blue).ravel()
        else:
            labels, valid = read_labels(scan, block)
            found = labels[valid].astype(np.int64)
        values, counts = np.unique(found, return_counts=True)
        codes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return codes


def _numbered(codes: Counter[int]) -> bool:
    """Return whether codes are counts of objects: nearly all numbers from 1 on, many of them."""
    above = [code for code in codes if code > 0]
    return len(above) > 64 and len(above) > 0.8 * max(above)


def _value_classes(codes: Counter[int]) -> list[dict[str, Any]]:
    values = sorted(codes)
    rows = []
    if len(values) == 2 and values[0] == 0 and values[1] > 1:
        background, foreground = class_rows([(0, "background"), (1, "foreground")])
        return [background, {**foreground, "from": [values[1]]}]
    if not values:
        raise ScanError("the label files that were looked into hold nodata only")
    named = [(value, "background" if value == 0 else f"class_{value}") for value in values]
    for row in class_rows([(max(0, value), name) for value, name in named if value >= 0]):
        rows.append(row)
    free = max([0, *values])
    for value in (value for value in values if value < 0):
        free += 1
        rows.append({"value": free, "name": f"no_data_{-value}", "from": [value], "ignore": True})
    if len(rows) - sum(row.get("ignore", False) for row in rows) < 2:  # a spec has two at least
        rows += class_rows([(free + 1, "fill_in")])
    return rows


def _color_classes(draft: Draft, codes: Counter[int], looked: str) -> None:
    # Colours that lossy compression made up are rare beside those that were drawn.
    total = sum(codes.values())
    kept = [code for code, count in codes.most_common(64) if count > total / 10_000]
    if len(kept) < len(codes):
        draft.document["labels"] = {"kind": "colors", "tolerance": 20}
        draft.notes.append(
            f"{len(codes)} colours in the labels; {len(kept)} are common enough for classes"
        )
    else:
        draft.document["labels"] = "colors"
    draft.document["classes"] = [
        {"value": k, "name": f"class_{k}", "color": [code >> 16, code >> 8 & 255, code & 255]}
        for k, code in enumerate(sorted(kept))
    ]
    draft.comments["classes"] = f"Labels are colours. Fill in the names. {looked}"


def _vector_classes(draft: Draft, folder: Path, pairs: Sequence[Pair]) -> None:
    fields: dict[str, set[str]] = {}
    for pair in pairs[:MOST_LABELS]:
        for name, texts in attribute_values(folder / pair.labels).items():
            fields.setdefault(name, set()).update(texts)
    fit = {name: texts for name, texts in fields.items() if 2 <= len(texts) <= 60}
    named = [name for name in fit if name.lower() in CLASS_FIELDS]
    draft.comments["labels"] = (
        f"Attributes with few values: {', '.join(fit) or 'none'}. class_field is the one that "
        "tells\nthe class; draw_order says which of overlapping polygons is on top: file, area, "
        "classes,\nor an attribute."
    )
    if not named:
        draft.document["labels"] = {"kind": "vector"}
        draft.document["classes"] = class_rows([(0, "background"), (1, "object")])
        draft.comments["classes"] = "Fill in the name of what the polygons are."
        return
    field = named[0]
    texts = sorted(fit[field])
    draft.document["labels"] = {"kind": "vector", "class_field": field}
    rows = class_rows([(0, "background"), *[(k, text or "?") for k, text in enumerate(texts, 1)]])
    for row, text in zip(rows[1:], texts, strict=True):
        row["from"] = [text]
    draft.document["classes"] = rows
    draft.comments["classes"] = f"from: values of {field}. What no polygon covers is background."
