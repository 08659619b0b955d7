"""Dataset specs: one YAML file says what a dataset is and where it lies.

See ``data_specs/`` for complete examples. Paths are relative to the spec file;
``sample:NAME`` is a file of the samples that ship with segfocal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from segfocal.card import LabelClass, Orientation
from segfocal.data.document import read_document
from segfocal.errors import SpecError
from segfocal.types import Window

__all__ = ["AXIS_NAMES", "Case", "DatasetSpec", "Region", "load_spec"]

AXIS_NAMES = {2: ("rows", "cols"), 3: ("planes", "rows", "cols")}
"""Keys by which a region names the spatial axes, in axis order."""

SAMPLES = Path(__file__).resolve().parent.parent / "samples"

Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]]
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Strict):
    """One scan and its labels."""

    id: Annotated[str, Field(pattern=r"^[^/\\]+$")]  # becomes a file name
    image: Name
    labels: Name


class Region(_Strict):
    """A case, or a box of it, that belongs to a split.

    Spans are ``[start, stop]`` in pixels of the canonical orientation; an axis that is left
    out is taken whole. For volumes ``planes``, ``rows`` and ``cols`` are the first, second
    and third axis of the spec's orientation.
    """

    case: Name
    planes: Span | None = None
    rows: Span | None = None
    cols: Span | None = None

    def window(self, shape: tuple[int, ...]) -> Window:
        """Return the region as a window of a scan of spatial shape ``shape``.

        Raises:
            SpecError: The region reaches outside the scan.
        """
        sides = []
        for axis, length in zip(AXIS_NAMES[len(shape)], shape, strict=True):
            start, stop = getattr(self, axis) or (0, length)
            if not start < stop <= length:
                raise SpecError(
                    f"case {self.case!r}: {axis} [{start}, {stop}] is not inside the scan, "
                    f"which has {length} {axis}"
                )
            sides.append(slice(start, stop))
        return tuple(sides)


class DatasetSpec(_Strict):
    """A described dataset.

    Attributes:
        name: Short name, used in file names.
        description, licence, citation, source: What the data is, and whose.
        ndim: 2 for scenes, 3 for volumes.
        channels: Channel names in the order in which the network gets them. Scans that name
            their channels are matched by name, others by position.
        orientation: Axis codes for volumes, such as ``"RAS"``.
        classes: Class values, names and colours; the class index is the position.
        ignore_values: Label values that take no part in training and scores, besides the
            label file's own nodata.
        valid_when: ``"all"``: a pixel is used when all its channels are valid; ``"any"``.
        cases: The scans.
        splits: Regions per split name (``train``, ``test``, ...).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    licence: str = ""
    citation: str = ""
    source: str = ""
    ndim: Literal[2, 3]
    channels: tuple[Name, ...] = Field(min_length=1)
    orientation: Orientation | None = None
    classes: tuple[LabelClass, ...] = Field(min_length=2)
    ignore_values: tuple[int, ...] = ()
    valid_when: Literal["all", "any"] = "all"
    cases: tuple[Case, ...] = Field(min_length=1)
    splits: dict[str, tuple[Region, ...]]
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        named: tuple[tuple[str, list[Any]], ...] = (
            ("channel", list(self.channels)),
            ("class value", [label.value for label in self.classes]),
            ("class name", [label.name for label in self.classes]),
            ("case id", [case.id for case in self.cases]),
        )
        for what, items in named:
            twice = [item for item in items if items.count(item) > 1]
            if twice:
                raise ValueError(f"{what} {twice[0]!r} stands twice; expected each once")
        both = {label.value for label in self.classes} & set(self.ignore_values)
        if both:
            raise ValueError(f"value {min(both)} is both a class and ignored; choose one")
        if self.orientation is not None and self.ndim == 2:
            raise ValueError("orientation is for volumes (ndim: 3); leave it out")
        known = {case.id for case in self.cases}
        for split, regions in self.splits.items():
            for region in regions:
                if region.case not in known:
                    raise ValueError(
                        f"split {split!r} names case {region.case!r}; known cases are "
                        f"{', '.join(sorted(known))}"
                    )
                if self.ndim == 2 and region.planes is not None:
                    raise ValueError(f"split {split!r} gives planes for a scene (ndim: 2)")
        _refuse_overlaps(self)
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def located(self, folder: Path) -> DatasetSpec:
        """Return a copy whose relative paths start at ``folder``.

        Raises:
            SpecError: Two splits turn out to share pixels of one file.
        """
        copy = self.model_copy()
        copy._folder = folder
        try:
            _refuse_overlaps(copy)
        except ValueError as error:
            raise SpecError(f"spec {self.name!r}: {error}") from error
        return copy

    def case(self, identifier: str) -> Case:
        """Return the case of this id."""
        return next(case for case in self.cases if case.id == identifier)

    def path(self, entry: str) -> Path:
        """Return the file behind an ``image`` or ``labels`` entry."""
        if entry.startswith("sample:"):
            return SAMPLES / entry.removeprefix("sample:")
        return (self._folder / entry).resolve()

    def regions(self, split: str) -> tuple[Region, ...]:
        """Return the regions of a split.

        Raises:
            SpecError: There is no such split.
        """
        if not self.splits.get(split):
            filled = ", ".join(name for name, regions in self.splits.items() if regions)
            raise SpecError(
                f"spec {self.name!r} has no regions in split {split!r}; it has {filled}"
            )
        return self.splits[split]


def _refuse_overlaps(spec: DatasetSpec) -> None:
    """Refuse a pixel that would be in two splits: scores on it would be leakage."""
    axes = AXIS_NAMES[spec.ndim]
    images = {case.id: spec.path(case.image) for case in spec.cases}
    entries = [(split, region) for split, regions in spec.splits.items() for region in regions]
    for i, (split, region) in enumerate(entries):
        for other_split, other in entries[i + 1 :]:
            # By image, not by case: two cases may name the same file.
            if split == other_split or images[region.case] != images[other.case]:
                continue
            apart = any(
                a is not None and b is not None and (a[1] <= b[0] or b[1] <= a[0])
                for a, b in ((getattr(region, axis), getattr(other, axis)) for axis in axes)
            )
            if not apart:
                raise ValueError(
                    f"splits {split!r} and {other_split!r} share pixels of case "
                    f"{region.case!r}; give them disjoint {' or '.join(axes)}"
                )


def load_spec(path: str | Path) -> DatasetSpec:
    """Read and validate a dataset spec.

    Raises:
        SpecError: The file is missing or wrong; one line names file, key and value.
    """
    path = Path(path)
    return read_document(path, DatasetSpec).located(path.resolve().parent)
