"""Dataset specs: one YAML file says what a dataset is and where it lies.

See ``data_specs/`` for complete examples. Paths are relative to the spec file, or to ``root``;
``sample:NAME`` is a file of the samples that ship with segfocal.

A spec may list its cases and splits, or hold rules that find them. :func:`load_spec` applies
the rules: what it returns has explicit ``cases``, and regions for each split, and nobody else
needs to know how they came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from segfocal.card import LabelClass, Orientation
from segfocal.data.cases import CLASS_GROUP, Case, Name, Pairing, paired
from segfocal.data.classes import ClassEntry, ClassTable, class_table, label_classes
from segfocal.data.document import Entry, read_document
from segfocal.data.labels import LabelRule
from segfocal.data.regions import AXIS_NAMES, Region, refuse_shared_pixels
from segfocal.data.spelling import spelled_out
from segfocal.data.splits import SplitEntry, SplitRule, as_entries, listed_splits, ruled_splits
from segfocal.errors import SpecError
from segfocal.io import open_scan

__all__ = ["AXIS_NAMES", "Case", "DatasetSpec", "Region", "load_spec", "read_spec"]

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def _checked_nodata(value: Any) -> Any:
    if value == "none" or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError('expected a number, or "none"')


Nodata = Annotated[Any, AfterValidator(_checked_nodata)]
Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Normalization = Literal["dataset", "scan", "ct", "none"]


class DatasetSpec(Entry):
    """A described dataset.

    Attributes:
        name: Short name, used in file names.
        description, licence, citation, source: What the data is, and whose.
        checksums: ``md5:`` or ``sha256:`` sums of files, by path: archives of the source, or the
            scans themselves. :func:`segfocal.check_spec` compares those that are there.
        verified, verified_by: Whether the spec was tried on the data itself, and on what that
            rests.
        ndim: 2 for scenes, 3 for volumes.
        root: Folder of the data, relative to the spec file.
        channels: Channel names in the order in which the network gets them. Scans that name
            their channels are matched by name, others by position.
        bands: Names of a file's channels, in file order, by the key of the file in ``images``
            or ``"*"``; for files that do not name them, or name them otherwise.
        scale, offset, nodata: What the files do not say of their values, by channel or
            ``"*"``; scale and offset come after those of a file's own header, and nodata is a
            value as it is stored; see :class:`~segfocal.io.described.DescribedScan`.
        orientation: Axis codes for volumes, such as ``"RAS"``.
        resolution: Pixel size to train at, along each axis (CRS units or mm); left out, that
            of the scans.
        normalization: How channels are scaled, by channel or ``"*"``: with numbers of the
            dataset or of each scan, as CT values, or not at all; left out, the plan decides.
        task: ``"classes"``: each pixel has one class; ``"regions"``: classes are regions that may
            overlap, such as a tumour and its core; ``from`` lists the label values that make up
            each, and a label map that is predicted shows the last that holds a pixel.
        classes: Class values, names, colours and what stands for them in the label files. The
            class index is the position among those that are not ignored.
        labels: How label files are read.
        ignore_class: Name of the class that is ignored; the same as its ``ignore: true``.
        ignore_values: Label values that take no part in training and scores, besides the
            label file's own nodata.
        valid_when: ``"all"``: a pixel is used when all its channels are valid; ``"any"``.
        cases: The scans, or
        pairing: the rule by which they are found.
        splits: What belongs to each split (``train``, ``test``, ...).
        split_by: How cases that ``splits`` does not name are divided.
        group_by: Group whose cases belong together: never in two splits.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    licence: str = ""
    citation: str = ""
    source: str = ""
    checksums: dict[Name, Checksum] = Field(default_factory=dict)
    verified: bool = False
    verified_by: str = ""
    ndim: Literal[2, 3]
    root: Name | None = None
    channels: tuple[Name, ...] = Field(min_length=1)
    bands: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    scale: dict[Name, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    offset: dict[Name, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    nodata: dict[Name, Nodata] = Field(default_factory=dict)
    orientation: Orientation | None = None
    resolution: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    normalization: dict[Name, Normalization] = Field(default_factory=dict)
    task: Literal["classes", "regions"] = "classes"
    class_entries: tuple[ClassEntry, ...] = Field(min_length=1, alias="classes")
    labels: LabelRule = LabelRule()
    ignore_class: Name | None = None
    ignore_values: tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...] = ()
    valid_when: Literal["all", "any"] = "all"
    cases: tuple[Case, ...] = ()
    pairing: Pairing | None = None
    splits: dict[Name, tuple[SplitEntry, ...]] = Field(default_factory=dict)
    split_by: SplitRule | None = None
    group_by: Name | None = None
    _folder: Path = PrivateAttr(default=Path())
    _regions: tuple[Any, Any, dict[str, tuple[Region, ...]]] | None = PrivateAttr(default=None)
    _alone: tuple[str, ...] = PrivateAttr(default=())
    _divided: tuple[Any, SplitRule | None] = PrivateAttr(default=({}, None))

    @staticmethod
    def spelled_out(document: dict[str, Any]) -> dict[str, Any]:
        """Return a document without short forms; see :mod:`segfocal.data.spelling`."""
        return spelled_out(document)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        _refuse_twice("channel", self.channels)
        _refuse_twice("class value", [entry.value for entry in self.class_entries])
        _refuse_twice("class name", [entry.name for entry in self.class_entries])
        _refuse_twice("case id", [case.id for case in self.cases])
        names = {entry.name for entry in self.class_entries}
        if self.ignore_class is not None and self.ignore_class not in names:
            raise ValueError(
                f"ignore_class {self.ignore_class!r} is no class; expected one of "
                f"{', '.join(sorted(names))}"
            )
        self._check_labels()
        if self.orientation is not None and self.ndim == 2:
            raise ValueError("orientation is for volumes (ndim: 3); leave it out")
        if self.resolution is not None and len(self.resolution) != self.ndim:
            raise ValueError(
                f"resolution {list(self.resolution)} has {len(self.resolution)} numbers; "
                f"expected {self.ndim}"
            )
        if bool(self.cases) == (self.pairing is not None):
            raise ValueError("expected either cases or pairing: a list of scans, or their rule")
        if not self.splits and self.split_by is None:
            raise ValueError("expected splits or split_by: what trains and what tests")
        for key in ("scale", "offset", "nodata", "normalization"):
            strange = [name for name in getattr(self, key) if name not in (*self.channels, "*")]
            if strange:
                raise ValueError(
                    f"{key} names channel {strange[0]!r}; expected one of "
                    f"{', '.join(self.channels)}"
                )
        for name, annotated in self._annotations():
            if name not in names:
                raise ValueError(f"{annotated} names class {name!r}; expected a name of classes")
        for split, entries in self.splits.items():
            if self.ndim == 2 and any(entry.planes is not None for entry in entries):
                raise ValueError(f"split {split!r} gives planes for a scene (ndim: 2)")
        if self.ndim == 3 and self.split_by is not None and self.split_by.blocks is not None:
            raise ValueError("split_by.blocks is for scenes (ndim: 2); leave it out")
        if self.group_by and self.split_by is not None and self.split_by.blocks is not None:
            raise ValueError(
                f"group_by: {self.group_by} keeps scenes together, split_by.blocks divides each "
                "of them; leave one of the two out"
            )
        if self.verified and not self.verified_by:
            raise ValueError("verified: true without verified_by; expected what it rests on")
        return self

    def _check_labels(self) -> None:
        kept = [entry for entry in self._entries() if not entry.ignore]
        if len(kept) < (1 if self.task == "regions" else 2):
            raise ValueError(
                f"classes: {len(kept)} that are not ignored; expected at least "
                f"{1 if self.task == 'regions' else 2}"
                + ("" if self.task == "regions" else ", background included")
            )
        kind, values = self.labels.kind, {entry.value for entry in self.class_entries}
        if self.task == "regions" and any(entry.value == 0 for entry in kept):
            raise ValueError("a region has value 0, which stands for no region; expected 1 or more")
        if self.task == "regions" and kind not in ("values", "colors"):
            raise ValueError(
                f"task: regions with labels of kind {kind}; expected kind values or colors, where "
                "from lists what makes up each region"
            )
        if kind == "vector" and self.ndim == 3:
            raise ValueError("labels of kind vector are for scenes (ndim: 2)")
        if kind == "instances" and (len(values) != 2 or 0 not in values):
            raise ValueError(
                "labels of kind instances have two classes: one with value 0, and the objects'"
            )
        outside = self.labels.outside
        if outside not in (None, "ignore", *(entry.name for entry in self.class_entries)):
            raise ValueError(f"labels.outside {outside!r}: expected a class's name or ignore")
        if kind == "masks" and 0 not in values:
            raise ValueError("labels of kind masks need a class with value 0 for what is in none")
        if kind == "masks" and any(CLASS_GROUP not in path for path in self._label_paths()):
            raise ValueError("labels of kind masks have {class} in their paths, for its name")
        if kind == "vector" and self.labels.class_field is None and len(self._drawn()) != 1:
            raise ValueError(
                "labels of kind vector without class_field: expected one class besides that of "
                "outside, or the attribute that tells classes"
            )
        table = self.class_table
        codes = [code for group in table.codes for code in group]
        both = set(codes) & set(table.ignored)
        if both:
            raise ValueError(
                f"value {table.text(min(both))} is both a class and ignored; choose one"
            )
        if self.task == "classes":
            twice = [code for code in codes if codes.count(code) > 1]
            if twice:
                raise ValueError(
                    f"label value {table.text(twice[0])} stands for two classes; expected one, or "
                    "task: regions for regions that overlap"
                )

    def _entries(self) -> tuple[ClassEntry, ...]:
        if self.ignore_class is None:
            return self.class_entries
        return tuple(
            entry.model_copy(update={"ignore": True}) if entry.name == self.ignore_class else entry
            for entry in self.class_entries
        )

    def _drawn(self) -> list[ClassEntry]:
        """Return the classes that polygons may have: all but that of what is outside."""
        if self.labels.class_field is not None:
            return list(self.class_entries)
        outside = self.labels.outside
        return [
            entry
            for entry in self.class_entries
            if entry.name != outside and not (outside is None and entry.value == 0)
        ]

    def _label_paths(self) -> list[str]:
        return [
            *(case.labels for case in self.cases),
            *([] if self.pairing is None else [self.pairing.labels]),
        ]

    def _annotations(self) -> Iterator[tuple[str, str]]:
        for case in self.cases:
            yield from ((name, f"case {case.id!r}: annotated") for name in case.annotated or ())
        if self.pairing is not None and self.pairing.annotated is not None:
            for names in self.pairing.annotated.classes.values():
                yield from ((name, "pairing.annotated") for name in names)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes that are not ignored; the class index is the position."""
        return label_classes(self._entries())

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    @property
    def class_table(self) -> ClassTable:
        """What the codes of label scans mean."""
        return class_table(
            self._entries(),
            self.ignore_values,
            self.labels.kind,
            overlapping=self.task == "regions",
        )

    @property
    def drawn_classes(self) -> tuple[ClassEntry, ...]:
        """The classes that polygons may have."""
        return tuple(self._drawn())

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._found_regions())

    @property
    def all_regions(self) -> dict[str, tuple[Region, ...]]:
        """Regions by split; a split may be empty."""
        return dict(self._found_regions())

    @property
    def alone(self) -> tuple[str, ...]:
        """A line for each file that the pairing rule found without its partner."""
        return self._alone

    def located(self, folder: Path, root: Path | None = None) -> DatasetSpec:
        """Return a copy whose relative paths start at ``folder``, with its rules applied.

        Args:
            folder: Folder of the spec file.
            root: Folder of the data in place of the spec's.

        Raises:
            SpecError: No case was found, a split names something unknown, or two splits turn
                out to share pixels of one file.
            ScanError: A scene that is to be divided into blocks cannot be opened.
        """
        copy = self.model_copy()
        copy._folder = root or folder / Path(self.root or ".").expanduser()
        if self.pairing is not None:
            cases, copy._alone = paired(self.pairing, copy._folder)
            copy = copy.model_copy(update={"cases": cases, "pairing": None})
        regions = copy._resolved_splits()
        copy._divided = (self.splits, self.split_by)
        copy = copy.model_copy(update={"splits": as_entries(regions), "split_by": None})
        files = {case.id: copy.image_files(case) for case in copy.cases}
        try:
            refuse_shared_pixels(regions, copy.ndim, lambda name: files[name])
        except ValueError as error:
            raise SpecError(f"spec {self.name!r}: {error}") from error
        return copy

    def _resolved_splits(self) -> dict[str, tuple[Region, ...]]:
        found = listed_splits(
            self.splits, self.cases, self._folder, complete=self.split_by is not None
        )
        if self.split_by is not None:
            named = {region.case for regions in found.values() for region in regions}
            left = [case for case in self.cases if case.id not in named]
            if self.group_by is not None:  # a group that a split has is in that split alone
                taken = {
                    case.groups.get(self.group_by) for case in self.cases if case.id in named
                } - {None}
                left = [case for case in left if case.groups.get(self.group_by) not in taken]
            ruled = ruled_splits(self.split_by, left, self.group_by, self._shape)
            for split, regions in ruled.items():
                found[split] = (*found.get(split, ()), *regions)
        return found

    def _shape(self, case: Case) -> tuple[int, ...]:
        with open_scan(self.image_files(case)[0], orientation=self.orientation or "RAS") as scan:
            return scan.shape

    def _found_regions(self) -> dict[str, tuple[Region, ...]]:
        # A copy with other splits or cases must not answer with those of the original.
        known = self._regions
        if known is None or known[0] is not self.splits or known[1] is not self.cases:
            known = (self.splits, self.cases, self._resolved_splits())
            self._regions = known
        return known[2]

    @property
    def folds(self) -> int | None:
        """Number of folds of the spec's cross-validation, or None."""
        rule = self._divided[1]
        return None if rule is None else rule.folds

    def with_fold(self, fold: int) -> DatasetSpec:
        """Return the spec with another fold as its split ``val``, and the others as ``train``.

        Args:
            fold: From 0.

        Raises:
            SpecError: The spec has no folds, or fewer.
        """
        splits, rule = self._divided
        if rule is None or rule.folds is None:
            raise SpecError(
                f"spec {self.name!r} has no folds; expected split_by: {{folds: 5}}, or the like"
            )
        if not 0 <= fold < rule.folds:
            raise SpecError(f"fold {fold} of spec {self.name!r}; expected 0 to {rule.folds - 1}")
        rule = rule.model_copy(update={"fold": fold})
        again = self.model_copy(update={"splits": splits, "split_by": rule})
        return again.located(self._folder, self._folder)

    def case(self, identifier: str) -> Case:
        """Return the case of this id."""
        return next(case for case in self.cases if case.id == identifier)

    def path(self, entry: str) -> Path:
        """Return the file behind an ``image`` or ``labels`` entry."""
        if entry.startswith("sample:"):
            return SAMPLES / entry.removeprefix("sample:")
        return (self._folder / entry).resolve()

    def image_files(self, case: Case) -> tuple[str, ...]:
        """Return the files of a case's scan, in the order of its channels."""
        return tuple(str(self.path(entry)) for entry in case.files.values())

    def files(self, case: Case) -> tuple[str, ...]:
        """Return all files of a case: of its scan, labels and area."""
        more = [*self.label_files(case).values(), *([] if case.area is None else [case.area])]
        return (*self.image_files(case), *(str(self.path(entry)) for entry in more))

    def label_files(self, case: Case) -> dict[str, str]:
        """Return the label files of a case by class name; ``"*"`` is one for all classes."""
        if self.labels.kind != "masks":
            return {"*": case.labels}
        return {
            entry.name: case.labels.replace(CLASS_GROUP, str(text))
            for entry in self.class_entries
            if entry.value != 0
            for text in entry.meanings[:1] or (entry.name,)
        }

    def regions(self, split: str) -> tuple[Region, ...]:
        """Return the regions of a split.

        Raises:
            SpecError: There is no such split.
        """
        splits = self._found_regions()
        if not splits.get(split):
            filled = ", ".join(name for name, regions in splits.items() if regions)
            raise SpecError(
                f"spec {self.name!r} has no regions in split {split!r}; it has {filled}"
            )
        return splits[split]


def _refuse_twice(what: str, items: Any) -> None:
    seen = set()
    for item in items:
        if item in seen:
            raise ValueError(f"{what} {item!r} stands twice; expected each once")
        seen.add(item)


def read_spec(path: str | Path) -> DatasetSpec:
    """Read and validate a dataset spec without looking for the data.

    Raises:
        SpecError: The file is missing or wrong; one line names file, key and value.
    """
    return read_document(path, DatasetSpec)


def load_spec(path: str | Path, *, root: str | Path | None = None) -> DatasetSpec:
    """Read and validate a dataset spec, and apply its rules to the data.

    Args:
        path: The YAML file.
        root: Folder of the data in place of the spec's own ``root``.

    Raises:
        SpecError: The file is missing or wrong, or its rules do not fit the data; one line
            names file, key and value.
    """
    path = Path(path)
    spec = read_spec(path)
    try:
        return spec.located(path.resolve().parent, None if root is None else Path(root).resolve())
    except SpecError as error:
        text = " ".join(str(error).split())  # names of files may hold anything
        raise SpecError(f"{path}: {text}") from error
