"""The class table: what the values, colours or attributes of label files mean.

Where classes exclude each other, a label file says of each pixel which class it has. Where they
are regions that overlap, it says which *set* of them holds the pixel. Label maps in memory hold
the **label index**: the place of that class, or of that set, in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from segfocal.card import IGNORE_INDEX, MAX_CLASS_VALUE, Color, LabelClass, spread_color
from segfocal.data.cases import Name
from segfocal.data.document import Entry

__all__ = [
    "ClassEntry",
    "ClassTable",
    "class_table",
    "label_classes",
    "packed_color",
    "vector_values",
]

DENSE = 1 << 16
"""Span of codes up to which each has a place in a table; beyond, they are searched for."""


def _meaning(value: Any) -> Any:
    """Check what a label file may hold for a class: a number, a text, or a colour."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, tuple):
        ok = len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    elif type(value) is int:
        ok = abs(value) < 2**31
    else:
        ok = type(value) is str and value != "" and not any(c < " " for c in value)
    if not ok:
        raise ValueError("expected a whole number, a text, or a colour of three numbers to 255")
    return value


Meaning = Annotated[Any, AfterValidator(_meaning)]


class ClassEntry(Entry):
    """A class, or a region that may overlap others.

    Attributes:
        value: Its value in label maps that segfocal writes.
        name: Its name.
        color: RGB, 0 to 255; left out, chosen.
        meanings: What stands for it in the label files (key ``from``): values, colours, or
            texts of the class field of polygons; several are merged. Left out: its value, its
            colour, or its name.
        ignore: Its pixels take no part in training and scores.
    """

    value: Annotated[int, Field(ge=0, le=MAX_CLASS_VALUE)]
    name: Name
    color: Color | None = None
    meanings: tuple[Meaning, ...] = Field(default=(), alias="from")
    ignore: bool = False


def label_classes(entries: Sequence[ClassEntry]) -> tuple[LabelClass, ...]:
    """Return the classes of a table that are not ignored, colours chosen where none is given."""
    kept = [entry for entry in entries if not entry.ignore]
    # The first colour of the circle is black, which only a background should have.
    first = 0 if kept and kept[0].value == 0 else 1
    return tuple(
        LabelClass(
            value=entry.value,
            name=entry.name,
            color=entry.color or spread_color(i + first, len(kept) + first),
        )
        for i, entry in enumerate(kept)
    )


def packed_color(color: Sequence[int]) -> int:
    """Return a colour as one number, as scans of colour labels hold it."""
    return color[0] << 16 | color[1] << 8 | color[2]


@dataclass(frozen=True)
class ClassTable:
    """Maps the codes of a label scan to classes.

    A code is what a label scan holds: the file's value, a packed colour, or for polygons a
    class value.

    Attributes:
        codes: Codes by class index; a code of overlapping regions may stand in several.
        ignored: Codes that take no part.
        colors: Whether codes are packed colours.
        overlapping: Whether classes are regions that may overlap; code 0 then lies in none,
            unless one names it.
    """

    codes: tuple[tuple[int, ...], ...]
    ignored: tuple[int, ...]
    colors: bool = False
    overlapping: bool = False

    @property
    def label_codes(self) -> tuple[tuple[int, ...], ...]:
        """Codes by label index: those of a class, or of overlapping regions one each."""
        if not self.overlapping:
            return self.codes
        known = {0}.union(*self.codes) - set(self.ignored)
        return tuple((code,) for code in sorted(known))

    @property
    def members(self) -> NDArray[np.bool_]:
        """Which classes each label stands for, shape ``(labels, classes)``."""
        if not self.overlapping:
            return np.eye(len(self.codes), dtype=np.bool_)
        return np.array([[code in group for group in self.codes] for (code,) in self.label_codes])

    def index(self, codes: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return label indices, and where codes are in neither a class nor ignored.

        A label index is the class index, or with overlapping regions a row of ``members``.
        Ignored and unknown codes are ``IGNORE_INDEX``.
        """
        known, of_known = self._known
        low, high = int(known[0]) - 1, int(known[-1]) + 1
        if high - low < DENSE:
            stray, index = self._dense
            # One below and one above stand for all that lie beyond, as far as the type goes.
            limits = np.iinfo(codes.dtype)
            kept = np.clip(codes, max(low, limits.min), min(high, limits.max))
            at = kept.astype(np.intp) - low
            return index[at], stray[at]
        at = np.clip(np.searchsorted(known, codes), 0, len(known) - 1)
        found = known[at] == codes
        return np.where(found, of_known[at], np.int32(IGNORE_INDEX)), ~found

    @cached_property
    def _known(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Every code that has a meaning, in ascending order, and its label index."""
        known = [code for group in self.label_codes for code in group]
        index = [label for label, group in enumerate(self.label_codes) for _ in group]
        known += self.ignored
        index += [IGNORE_INDEX] * len(self.ignored)
        order = np.argsort(known, kind="stable")
        return np.asarray(known, np.int64)[order], np.asarray(index, np.int32)[order]

    @cached_property
    def _dense(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Of every code from below the first to above the last: whether it is stray, its index."""
        known, of_known = self._known
        length = int(known[-1] - known[0]) + 3
        stray, index = np.ones(length, np.bool_), np.full(length, IGNORE_INDEX, np.int32)
        # From the last to the first: where a code stands twice, the first holds.
        at = (known - known[0] + 1)[::-1]
        stray[at], index[at] = False, of_known[::-1]
        return stray, index

    def text(self, code: int) -> str:
        """Return a code as its file shows it."""
        if not self.colors:
            return str(code)
        return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def class_table(
    entries: Sequence[ClassEntry],
    ignore_values: Sequence[int],
    kind: str,
    *,
    overlapping: bool = False,
) -> ClassTable:
    """Return the table of a label source.

    Args:
        entries: The classes.
        ignore_values: Further values that are ignored.
        kind: How label files are read; see :class:`~segfocal.data.labels.LabelRule`.
        overlapping: Whether classes are regions, and code 0 is what lies in none.

    Raises:
        ValueError: A meaning is not of the kind that the label files hold.
    """
    if kind in ("vector", "masks"):  # drawn with the class's own value
        groups: dict[str, tuple[int, ...]] = {entry.name: (entry.value,) for entry in entries}
    else:
        groups = {entry.name: _codes(entry, kind) for entry in entries}
    ignored = [code for entry in entries if entry.ignore for code in groups[entry.name]]
    if kind != "colors":
        ignored += ignore_values
    return ClassTable(
        codes=tuple(groups[entry.name] for entry in entries if not entry.ignore),
        ignored=tuple(ignored),
        colors=kind == "colors",
        overlapping=overlapping,
    )


def _codes(entry: ClassEntry, kind: str) -> tuple[int, ...]:
    if kind == "instances":
        return (entry.value,)
    if kind == "colors":
        if not entry.meanings and entry.color is None:
            raise ValueError(
                f"class {entry.name!r} has no colour; labels are told by their colours"
            )
        colors = entry.meanings or (entry.color,)
        wrong = [color for color in colors if not isinstance(color, tuple)]
        if wrong:
            raise ValueError(
                f"class {entry.name!r}: from {wrong[0]!r} is no colour of three numbers"
            )
        return tuple(packed_color(color) for color in colors)
    wrong = [value for value in entry.meanings if not isinstance(value, int)]
    if wrong:
        raise ValueError(f"class {entry.name!r}: from {wrong[0]!r} is no whole number")
    return entry.meanings or (entry.value,)


def vector_values(entries: Sequence[ClassEntry]) -> Mapping[str, int]:
    """Return the class value for each text that a class field may hold."""
    found: dict[str, int] = {}
    for entry in entries:
        for meaning in entry.meanings or (entry.name,):
            found[str(meaning)] = entry.value
    return found
