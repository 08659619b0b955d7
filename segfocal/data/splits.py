"""Splits: which regions train a model and which test it, listed or made by a rule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from segfocal.data.cases import Case, Name, Pattern
from segfocal.data.document import Entry
from segfocal.data.patterns import match_text
from segfocal.data.regions import Region, Spans
from segfocal.data.spatial_blocks import apportioned, block_grid, buffered
from segfocal.errors import SpecError

__all__ = ["SplitEntry", "SplitRule", "as_entries", "listed_splits", "ruled_splits"]

Share = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Shapes = Callable[[Case], tuple[int, ...]]


class SplitEntry(Spans):
    """What belongs to a split: a case, or all cases that something is true of.

    Attributes:
        case: Id of a case.
        where: Values of groups; a case belongs when it has one of them in every group named.
        list: Text file with a case on each line: its id, or what ``match`` makes of it. Lines
            may name cases that are not there, as lists of a larger dataset do; not so where a
            rule (``split_by``) would give a case that is misspelt to another split.
        match: Pattern of the lines (their first column): a case belongs when it has the same
            text in the pattern's groups. A first line that it does not fit is a header.
    """

    case: Name | None = None
    where: dict[Name, tuple[str, ...]] = Field(default_factory=dict)
    list: Name | None = None
    match: Pattern | None = None

    @model_validator(mode="after")
    def _one_way(self) -> SplitEntry:
        if (self.case is not None) + bool(self.where) + (self.list is not None) != 1:
            raise ValueError("expected one of case, where and list")
        if self.match is not None and self.list is None:
            raise ValueError("match is for lines of a list; add list")
        return self


class Blocks(Entry):
    """Spatial blocks.

    Attributes:
        size: Side of a block in pixels: a few patches.
        buffer: Pixels left out between blocks of different splits.
    """

    size: Annotated[int, Field(gt=0, lt=2**31)]
    buffer: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _room(self) -> Blocks:
        if self.buffer >= self.size:
            raise ValueError(
                f"buffer {self.buffer} leaves nothing of blocks of {self.size}; expected less"
            )
        return self


class SplitRule(Entry):
    """How the cases that ``splits`` does not name are divided.

    Attributes:
        ratio: Share of each split.
        folds: Number of folds of a cross-validation: ``val`` is one of them, ``train`` the
            others.
        fold: Which fold is ``val``.
        blocks: Divide each scene into blocks by ``ratio`` instead of dividing the cases.
        seed: Seed of the order.
    """

    ratio: dict[Name, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    folds: Annotated[int, Field(ge=2, le=10_000)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    blocks: Blocks | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SplitRule:
        if bool(self.ratio) == (self.folds is not None):
            raise ValueError("expected either ratio or folds")
        if self.ratio and not sum(self.ratio.values()) > 0:
            raise ValueError("ratio: all shares are 0; expected one above")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}; expected 0 to {self.folds - 1}")
        if self.blocks is not None and self.folds is not None:
            raise ValueError("blocks are divided by ratio; leave folds out")
        return self


def as_entries(splits: Mapping[str, Sequence[Region]]) -> dict[str, tuple[SplitEntry, ...]]:
    """Return regions as the entries of a spec that lists them."""
    return {
        split: tuple(SplitEntry(**region.model_dump()) for region in regions)
        for split, regions in splits.items()
    }


def listed_splits(
    splits: Mapping[str, Sequence[SplitEntry]],
    cases: Sequence[Case],
    root: Path,
    *,
    complete: bool = False,
) -> dict[str, tuple[Region, ...]]:
    """Return the regions of the splits that a spec lists.

    Args:
        splits: Entries by split.
        cases: The cases.
        root: Folder of the lists.
        complete: Refuse lists with lines that name no case.

    Raises:
        SpecError: An entry names a case, group or file that is not there.
    """
    found = {}
    ids = {case.id for case in cases}
    for split, entries in splits.items():
        regions: dict[Region, None] = {}
        for entry in entries:
            for name in _named(split, entry, cases, ids, root, complete):
                region = Region(case=name, planes=entry.planes, rows=entry.rows, cols=entry.cols)
                regions[region] = None
        found[split] = tuple(regions)
    return found


def _named(
    split: str,
    entry: SplitEntry,
    cases: Sequence[Case],
    ids: set[str],
    root: Path,
    complete: bool,
) -> list[str]:
    if entry.case is not None:
        if entry.case not in ids:
            raise SpecError(
                f"split {split!r} names case {entry.case!r}; known cases are {_some(sorted(ids))}"
            )
        return [entry.case]
    if entry.list is not None:
        return _from_list(split, entry, cases, root / entry.list, complete)
    for group, texts in entry.where.items():
        known = {case.groups[group] for case in cases if group in case.groups}
        strange = [text for text in texts if text not in known]
        if strange:
            expected = f"one of {_some(sorted(known))}" if known else "a group that cases have"
            raise SpecError(
                f"split {split!r} names {group} {strange[0]!r}, which no case has; expected "
                f"{expected}"
            )
    return [
        case.id
        for case in cases
        if all(case.groups.get(group) in texts for group, texts in entry.where.items())
    ]


def _from_list(
    split: str, entry: SplitEntry, cases: Sequence[Case], path: Path, complete: bool
) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SpecError(f"split {split!r}: list {path} cannot be read: {error}") from error
    firsts = [line.split(",")[0].strip() for line in lines if line.strip()]
    names: list[str] = []
    strange = []
    by: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for number, line in enumerate(firsts):
        # Without match the line is the id: a pattern of one group.
        groups = {"": line} if entry.match is None else match_text(entry.match, line)
        if groups is None:
            if number:
                strange.append(line)
            continue
        if not by:
            for case in cases:
                known = {"": case.id} if entry.match is None else case.groups
                own = tuple((key, known.get(key, "")) for key in groups)
                by.setdefault(own, []).append(case.id)
        found = by.get(tuple(groups.items()), [])
        names += found
        if not found:
            strange.append(line)
    if not names:
        raise SpecError(
            f"split {split!r}: none of the {len(firsts)} lines of {path} names a case; expected "
            f"ids such as {_some([case.id for case in cases])}, or a fitting match"
        )
    if strange and complete:
        verb = "names" if len(strange) == 1 else "name"
        raise SpecError(
            f"split {split!r}: {len(strange)} of {len(firsts)} lines of {path} {verb} no case: "
            f"{_some(strange)}; expected ids such as {_some([case.id for case in cases])}: "
            "split_by would put a case that is misspelt into another split"
        )
    return names


def ruled_splits(
    rule: SplitRule, cases: Sequence[Case], group_by: str | None, shape_of: Shapes
) -> dict[str, tuple[Region, ...]]:
    """Return the regions of the splits that a rule makes.

    Cases that share the group ``group_by`` go to one split together.

    Args:
        rule: The rule.
        cases: The cases to divide.
        group_by: Name of a group, or None.
        shape_of: Spatial shape of a case, asked for when scenes are divided into blocks.

    Raises:
        SpecError: There are fewer groups or blocks than splits, or a case lacks the group.
    """
    rng = np.random.default_rng(rule.seed)
    if rule.blocks is not None:
        return _by_blocks(rule, rule.blocks, cases, shape_of, rng)
    groups: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        if group_by is not None and group_by not in case.groups:
            raise SpecError(f"case {case.id!r} has no group {group_by!r}; {_groups(case)}")
        key = case.id if group_by is None else case.groups[group_by]
        groups.setdefault(key, []).append(case.id)
    members = [groups[key] for key in sorted(groups)]
    sizes = [len(ids) for ids in members]
    if rule.folds is not None:
        names = {str(fold): 1.0 for fold in range(rule.folds)}
    else:
        names = {split: share for split, share in rule.ratio.items() if share > 0}
    if len(members) < len(names):
        what = "cases" if group_by is None else f"values of group {group_by!r}"
        raise SpecError(
            f"{len(members)} {what} for {len(names)} splits or folds; expected at least as many"
        )
    chosen = apportioned(sizes, names, rng)
    if rule.folds is not None:
        chosen = ["val" if fold == str(rule.fold) else "train" for fold in chosen]
    found: dict[str, list[str]] = {}
    for split in ("train", "val") if rule.folds is not None else names:
        found[split] = []
    for split, ids in zip(chosen, members, strict=True):
        found[split] += ids
    return {split: tuple(Region(case=name) for name in sorted(ids)) for split, ids in found.items()}


def _by_blocks(
    rule: SplitRule,
    blocks: Blocks,
    cases: Sequence[Case],
    shape_of: Shapes,
    rng: np.random.Generator,
) -> dict[str, tuple[Region, ...]]:
    grids = {case.id: block_grid(shape_of(case), blocks.size) for case in cases}
    sizes = [
        int(np.prod([span.stop - span.start for span in place]))
        for grid in grids.values()
        for place in itertools.product(*grid)
    ]
    names = {split: share for split, share in rule.ratio.items() if share > 0}
    if len(sizes) < len(names):
        raise SpecError(
            f"{len(sizes)} blocks of {blocks.size} pixels for {len(names)} splits; expected at "
            "least as many: choose a smaller size"
        )
    chosen = apportioned(sizes, names, rng)
    found: dict[str, list[Region]] = {split: [] for split in names}
    start = 0
    for name, grid in grids.items():
        counts = tuple(len(spans) for spans in grid)
        stop = start + int(np.prod(counts))
        owner = np.array(chosen[start:stop], object).reshape(counts)
        start = stop
        for split, windows in buffered(grid, owner, blocks.buffer).items():
            found[split] += [
                Region(
                    case=name,
                    rows=(window[-2].start, window[-2].stop),
                    cols=(window[-1].start, window[-1].stop),
                )
                for window in windows
            ]
    return {split: tuple(regions) for split, regions in found.items()}


def _groups(case: Case) -> str:
    if not case.groups:
        return "no case has groups: name them in the pattern, or give groups to the cases"
    return f"expected one of {', '.join(case.groups)}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown
