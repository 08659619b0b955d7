"""Classes of a draft, from what label files hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from segfocal.data.reading import BLOCK, blocks
from segfocal.errors import ScanError
from segfocal.io import Scan, open_scan, read_labels
from segfocal.io.vector_layers import attribute_values
from segfocal.io.vectors import VECTOR_SUFFIXES
from segfocal.spec_drafts.draft import Draft, class_rows
from segfocal.types import full_window

__all__ = ["add_classes"]

MOST_LABELS = 20
"""Label files that are looked into."""

MOST_VALUES = 256
CLASS_FIELDS = ("class", "classname", "class_name", "label", "type", "category", "landuse", "code")


def add_classes(draft: Draft, labels: Sequence[str]) -> None:
    """Add the classes found in label files to a draft, and how label files are read.

    Args:
        draft: The draft.
        labels: Label files, relative to its folder; some of them are looked into.

    Raises:
        ScanError: A label file cannot be read, or none of them holds anything.
    """
    if labels[0].lower().endswith(VECTOR_SUFFIXES):
        _vector_classes(draft, labels)
        return
    step = max(1, len(labels) // MOST_LABELS)
    files = list(dict.fromkeys(draft.folder / own for own in labels[::step]))[:MOST_LABELS]
    with open_scan(files[0]) as scan:
        colored = len(scan.channels) == 3 and scan.dtype == np.uint8
    codes: Counter[int] = Counter()
    for file in files:
        with open_scan(file) as scan:
            codes += _codes(scan, colored)
    looked = f"{len(files)} of {len(labels)} label files were looked into."
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


def _vector_classes(draft: Draft, labels: Sequence[str]) -> None:
    fields: dict[str, set[str]] = {}
    for own in labels[:MOST_LABELS]:
        for name, texts in attribute_values(draft.folder / own).items():
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
