"""Drafts of specs: documents with comments, written so that they can be read and changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segfocal.card import spread_color
from segfocal.data.document import document_of, parse_document
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing

__all__ = ["Draft", "checked_name", "class_rows", "write_draft"]


@dataclass
class Draft:
    """A spec document in the making.

    Attributes:
        folder: Folder of the data.
        document: Keys and values; ``root`` is added when it is written.
        comments: What to fill in or to know, by key.
        notes: What to tell the user.
    """

    folder: Path
    document: dict[str, Any]
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_draft(draft: Draft, output: Path, *, overwrite: bool) -> list[str]:
    """Write a draft as YAML, complete or not at all, after reading it as a spec.

    Returns:
        Lines that tell the user what was found.

    Raises:
        SpecError: What was found makes no spec.
        OutputError: The file is there already or cannot be written.
    """
    document = dict(draft.document)
    document["root"] = _relative(draft.folder.resolve(), output.resolve().parent)
    notes = list(draft.notes)
    folds = document.get("split_by", {}).get("folds", 0)
    if folds:
        whole = {**document, "split_by": {"ratio": {"train": 1}}}
        number = _groups_to_divide(_located(_written(whole, {}), output), whole)
        if number < folds:
            document["split_by"], note = _small_rule(document["split_by"], number)
            notes.append(note)
    text = _written(document, draft.comments)
    spec = _located(text, output)
    with PendingOutput(output, overwrite=overwrite) as pending:
        with writing(output):
            pending.main.write_text(text, encoding="utf-8")
        pending.commit()
    counts = ", ".join(
        f"{split} {len({region.case for region in regions})}"
        for split, regions in spec.all_regions.items()
    )
    many = "case" if len(spec.cases) == 1 else "cases"
    return [f"{len(spec.cases)} {many} ({counts})", *notes, *spec.alone[:5]]


def _written(document: dict[str, Any], comments: Mapping[str, str]) -> str:
    ordered = {key: document[key] for key in _ORDER if key in document}
    return "".join(_section(key, value, comments) for key, value in ordered.items())


def _located(text: str, output: Path) -> DatasetSpec:
    return parse_document(text, output, DatasetSpec).located(output.resolve().parent)


def _groups_to_divide(spec: DatasetSpec, document: Mapping[str, Any]) -> int:
    """Return how many cases, or groups that stay together, a rule has to divide."""
    ids = {region.case for region in spec.all_regions["train"]}
    group = document.get("group_by")
    return len({case.groups[group] if group else case.id for case in spec.cases if case.id in ids})


def _small_rule(rule: Mapping[str, Any], number: int) -> tuple[dict[str, Any], str]:
    """Return a rule for fewer cases than folds, and what to tell of it."""
    if number < 2:
        return {"ratio": {"train": 1}}, (
            "one case to train on: hold out a part of it with rows, cols or planes in splits"
        )
    return {**rule, "folds": number}, (
        f"only {number} cases or groups: {number} folds in place of {rule['folds']}"
    )


_ORDER = (
    "name", "description", "licence", "citation", "source", "verified", "verified_by", "ndim",
    "root", "channels", "bands", "orientation", "normalization", "task", "classes", "labels",
    "ignore_values", "pairing", "cases", "splits", "split_by", "group_by",
)  # fmt: skip


def _section(key: str, value: Any, comments: Mapping[str, str]) -> str:
    comment = comments.get(key)
    lines = "" if comment is None else "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + _block(key, value, "")


def _block(key: str, value: Any, indent: str) -> str:
    """Return a key with its value as people write them: tables with a line for each item."""
    start = f"{indent}{_flow(key)}:"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{start}\n" + "".join(f"{indent}  - {_flow(item)}\n" for item in value)
    if isinstance(value, dict) and value:
        return f"{start}\n" + "".join(_block(k, v, indent + "  ") for k, v in value.items())
    return f"{start} {_flow(value)}\n"


def _flow(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return document_of([value], width=float("inf")).rstrip("\n")[1:-1]


def _relative(folder: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(folder, start)).as_posix()
    except ValueError:  # another drive
        return folder.as_posix()


def class_rows(names: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    """Return entries of a class table with colours for values and names."""
    first = 0 if names and names[0][0] == 0 else 1
    return [
        {"value": value, "name": name, "color": list(spread_color(i + first, len(names) + first))}
        for i, (value, name) in enumerate(names)
    ]


def checked_name(text: str) -> str:
    """Return a text as the name of a spec: letters, digits, dots, underscores."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in text)
    if not name.strip("_."):
        raise SpecError(f"{text!r}: no name can be made of it; expected letters or digits")
    return name
