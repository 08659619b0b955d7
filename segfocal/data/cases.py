"""Cases: the scans of a dataset and their labels, listed or found by a rule."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from segfocal.data.document import Entry
from segfocal.data.patterns import (
    fill_in,
    find_files,
    group_names,
    match_text,
    parse_pattern,
    with_expressions,
)
from segfocal.errors import SpecError

__all__ = ["CLASS_GROUP", "Case", "Name", "Pairing", "Pattern", "paired"]


def _printable(text: str) -> str:
    # A file name with them is a slip, or breaks system calls, messages and lists of names.
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("expected text without line breaks and other control characters")
    return text


Name = Annotated[str, Field(min_length=1), AfterValidator(_printable)]

CLASS_GROUP = "{class}"
"""Stands in paths of masks for the name of a class."""


def _checked(pattern: str) -> str:
    parse_pattern(_printable(pattern))
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_checked)]
"""See :mod:`segfocal.data.patterns`."""


class Case(Entry):
    """One scan and its labels.

    Attributes:
        id: What the case is called; outputs are named after it.
        image: The scan, when it is one file.
        images: The files that hold its channels, in order; the keys are channel names, or
            those of ``bands``.
        labels: The label file; with ``{class}`` in it, one for each class.
        area: File with the part of the scan that was labelled: polygons, or a raster that is
            above 0 there. Everything outside is ignored.
        groups: What the case belongs to: patient, city, ... .
        annotated: Names of the classes that were looked for; None: all. Pixels of other
            classes are ignored.
    """

    id: Annotated[Name, Field(pattern=r"^[^/\\]+$")]  # becomes a file name
    image: Name | None = None
    images: dict[Name, Name] = Field(default_factory=dict)
    labels: Name
    area: Name | None = None
    groups: dict[str, str] = Field(default_factory=dict)
    annotated: tuple[Name, ...] | None = None

    @model_validator(mode="after")
    def _one_kind_of_image(self) -> Case:
        if (self.image is None) == (not self.images):
            raise ValueError(f"case {self.id!r}: expected either image or images")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The scan's files by key; the key of a single one is ``"*"``."""
        return self.images if self.image is None else {"*": self.image}


class AnnotatedBy(Entry):
    """Classes that were looked for, by the text of a group."""

    group: Name
    classes: dict[str, tuple[Name, ...]]


class Pairing(Entry):
    """The rule by which cases are found.

    Without ``csv``, ``image`` (or each of ``images``) and ``labels`` are patterns of files
    that exist, and files whose groups have the same text make up a case. With ``csv``, each
    line is a case, the columns are its groups, and the patterns are filled in.

    Attributes:
        image, images, labels, area: Patterns; see :class:`Case`. Labels without a group are
            one file for all cases; the group ``class`` stays open.
        id: Pattern of the case's id. Left out: its groups, joined by ``_``.
        exclude: Patterns of images that are left out.
        csv: Table of the cases.
        columns: Names of the table's columns when it has no header line.
        delimiter: What stands between columns; left out, a comma, or a tab in ``.tsv``.
        annotated: See :class:`AnnotatedBy`.
    """

    image: Pattern | None = None
    images: dict[Name, Pattern] = Field(default_factory=dict)
    labels: Pattern
    area: Pattern | None = None
    id: Pattern | None = None
    exclude: tuple[Pattern, ...] = ()
    csv: Name | None = None
    columns: tuple[Name, ...] = ()
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    annotated: AnnotatedBy | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Pairing:
        if (self.image is None) == (not self.images):
            raise ValueError("expected either image or images")
        first = next(iter(self.files.values()))
        if self.csv is None and not group_names(first):
            raise ValueError(
                f"pattern {first!r} has no group; expected one that tells cases apart, such as "
                "{id}"
            )
        return self

    @property
    def files(self) -> dict[str, str]:
        """Patterns of the scan's files by key, as in :attr:`Case.files`."""
        return self.images if self.image is None else {"*": self.image}


def paired(rule: Pairing, root: Path) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Find the cases of a rule.

    Args:
        rule: The rule.
        root: Folder below which to look.

    Returns:
        Cases in the order of their ids, and a line for each image without labels and each
        label file without an image.

    Raises:
        SpecError: Nothing was found, two files fit one case, or the table cannot be used.
    """
    if rule.csv is None:
        found, alone = _from_files(rule, root)
    else:
        found, alone = [_filled(rule, groups) for groups in read_table(rule, root)], []
    cases = [_case(rule, groups, files, labels, area) for groups, files, labels, area in found]
    twice = _first_twice([case.id for case in cases])
    if twice is not None:
        raise SpecError(
            f"two cases have the id {twice!r}; give pairing.id a pattern with groups that tell "
            "them apart"
        )
    return tuple(sorted(cases, key=lambda case: case.id)), tuple(alone)


_Found = tuple[dict[str, str], dict[str, str], str, str | None]
"""Groups, files by key, labels and area of a case."""


def _from_files(rule: Pairing, root: Path) -> tuple[list[_Found], list[str]]:
    if not root.is_dir():
        raise SpecError(f"{root}: no such folder; expected the one with the dataset's files")
    keys = list(rule.files)
    # What tells a group in one pattern tells it in the others: {city}{tile} alone is ambiguous.
    given = [*rule.files.values(), rule.labels, *([] if rule.area is None else [rule.area])]
    patterns = {key: with_expressions(pattern, given) for key, pattern in rule.files.items()}
    found = {key: find_files(pattern, root) for key, pattern in patterns.items()}
    first = [
        (path, groups)
        for path, groups in found[keys[0]]
        if not any(match_text(pattern, path) is not None for pattern in rule.exclude)
    ]
    others = {key: _Index(rule.files[key], found[key], keys[0]) for key in keys[1:]}
    masks = CLASS_GROUP in rule.labels
    target = with_expressions(rule.labels, given)
    labels = _Index(rule.labels, [] if masks else find_files(target, root), "image")
    area = None
    if rule.area is not None:
        area = _Index(rule.area, find_files(with_expressions(rule.area, given), root), "image")
    cases: list[_Found] = []
    alone = []
    for path, groups in first:
        files = {keys[0]: path}
        missing = []
        for key, index in others.items():
            match = index.find(groups, path)
            if match is None:
                missing.append(key)
            else:
                files[key], groups = match[0], {**groups, **match[1]}
        match = _masks(rule.labels, groups, root) if masks else labels.find(groups, path)
        if match is None or missing:
            alone.append(f"{path}: no {', '.join([*missing, *([] if match else ['labels'])])}")
            continue
        place = None if area is None else area.find(groups, path)
        cases.append(({**groups, **match[1]}, files, match[0], place and place[0]))
    alone += [f"{path}: no image" for path in labels.unused()]
    if not cases:
        counts = ", ".join(f"{len(found[key])} files match {rule.files[key]!r}" for key in keys)
        raise SpecError(
            f"{root}: no case was found: {counts}, and {len(labels)} match {rule.labels!r}; "
            "expected images and labels whose groups have the same text"
        )
    return cases, alone


def _masks(pattern: str, groups: dict[str, str], root: Path) -> tuple[str, dict[str, str]] | None:
    """Return the path of a case's masks, the class still open, or None: there are none."""
    filled = fill_in(pattern, {**groups, "class": CLASS_GROUP})
    if filled is None or not find_files(filled, root):
        return None
    return filled, {}


class _Index:
    """Files that a pattern found, by the groups that they share with images."""

    def __init__(self, pattern: str, found: list[tuple[str, dict[str, str]]], other: str) -> None:
        self._pattern, self._other = pattern, other
        self._names = group_names(pattern)
        self._all = dict.fromkeys(path for path, _ in found)
        self._used: set[str] = set()
        self._found = found
        self._by: dict[tuple[str, ...], dict[tuple[str, ...], list[tuple[str, dict[str, str]]]]]
        self._by = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, groups: Mapping[str, str], path: str) -> tuple[str, dict[str, str]] | None:
        shared = tuple(name for name in self._names if name in groups)
        if shared not in self._by:
            by = defaultdict(list)
            for file in self._found:
                by[tuple(file[1][name] for name in shared)].append(file)
            self._by[shared] = by
        matches = self._by[shared].get(tuple(groups[name] for name in shared), [])
        if len(matches) > 1:
            raise SpecError(
                f"{path}: both {matches[0][0]} and {matches[1][0]} fit {self._pattern!r}; expected "
                "one file: add a group that tells them apart"
            )
        if not matches:
            return None
        self._used.add(matches[0][0])
        return matches[0]

    def unused(self) -> Iterator[str]:
        yield from (path for path in self._all if path not in self._used)


def read_table(rule: Pairing, root: Path) -> list[dict[str, str]]:
    """Return the lines of a rule's table, by column.

    Raises:
        SpecError: The table is missing, is no text, or its lines differ in length.
    """
    assert rule.csv is not None
    path = root / rule.csv
    delimiter = rule.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, delimiter=delimiter) if line]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise SpecError(f"{path}: cannot be read as a table: {error}") from error
    header = list(rule.columns) or (lines.pop(0) if lines else [])
    rows = []
    for number, line in enumerate(lines, 1 if rule.columns else 2):
        if len(line) != len(header):
            raise SpecError(
                f"{path}: line {number} has {len(line)} columns; expected {len(header)} "
                f"({', '.join(header)})"
            )
        rows.append(dict(zip(header, (text.strip() for text in line), strict=True)))
    if not rows:
        raise SpecError(f"{path}: holds no line; expected one for each case")
    return rows


def _filled(rule: Pairing, groups: dict[str, str]) -> _Found:
    def filled(pattern: str) -> str:
        text = fill_in(pattern, groups)
        if not text:
            raise SpecError(
                f"{rule.csv}: cannot fill in {pattern!r}; expected columns of these names, and has "
                f"{', '.join(groups)}"
            )
        return text

    files = {key: filled(pattern) for key, pattern in rule.files.items()}
    return groups, files, filled(rule.labels), None if rule.area is None else filled(rule.area)


def _case(
    rule: Pairing, groups: dict[str, str], files: dict[str, str], labels: str, area: str | None
) -> Case:
    if rule.id is not None:
        identifier = fill_in(rule.id, groups)
    elif rule.csv is not None and "id" in groups:
        identifier = groups["id"]
    else:
        names = dict.fromkeys(
            name for pattern in rule.files.values() for name in group_names(pattern)
        )
        identifier = "_".join(groups[name] for name in names if name in groups)
        if rule.csv is not None:  # columns hold whole paths
            identifier = Path(next(iter(files.values()))).name.split(".")[0]
    if identifier is None:
        raise SpecError(f"pairing.id {rule.id!r}: not a group; expected {', '.join(groups)}")
    more: dict[str, Any] = {"images": files} if rule.images else {"image": files["*"]}
    annotated = rule.annotated
    if annotated is not None:
        text = groups.get(annotated.group)
        if text is None:
            raise SpecError(
                f"pairing.annotated.group {annotated.group!r}: expected one of {', '.join(groups)}"
            )
        more["annotated"] = annotated.classes.get(text)
    # A column may be empty: it then says nothing of the case.
    said = {name: text for name, text in groups.items() if text}
    safe = identifier.replace("/", "_").replace("\\", "_")
    if not safe:
        raise SpecError(f"{labels}: the id of its case is empty; expected a name")
    try:
        return Case(id=safe, labels=labels, area=area, groups=said, **more)
    except ValidationError as error:  # names of files and texts of tables may hold anything
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        origin = "pairing" if rule.csv is None else rule.csv
        raise SpecError(
            f"{origin}: {where} of a case: {message}; found {first['input']!r}"
        ) from error


def _first_twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
