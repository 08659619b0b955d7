"""BIDS datasets: raw images with ``_dseg`` label maps among the derivatives."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.data.patterns import find_files
from segfocal.errors import ScanError, SpecError
from segfocal.io import open_scan
from segfocal.io.grids import check_same_grid
from segfocal.spec_drafts.dataset_json import read_json
from segfocal.spec_drafts.draft import Draft, checked_name, class_rows
from segfocal.spec_drafts.guessed_classes import add_classes

__all__ = ["from_bids"]

MODALITIES = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "T1map", "ct", "bold", "pet")


DERIVED = ("space", "res", "den", "label", "desc", "hemi", "atlas", "seg", "scale")
"""Entities that a label map has of its own; it shares the others with its image."""

NATIVE = ("orig", "individual", "native", "scanner", "subject", *MODALITIES)
"""Values of ``space-`` that mean the image's own space."""

Entities = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Layout:
    """Label maps whose names have the same entities.

    Attributes:
        root: Folder of their pipeline, or nothing.
        session: Folder of the session, as a pattern, or nothing.
        entities: Names and values; a value that differs between files is a group.
    """

    root: str
    session: str
    entities: Entities

    @property
    def place(self) -> str:
        """Start of paths below a root."""
        tail = "_ses-{session}" if self.session else ""
        return f"sub-{{subject}}/{self.session}anat/sub-{{subject}}{tail}"

    @property
    def space(self) -> str | None:
        """Value of ``space-``."""
        return dict(self.entities).get("space")

    @property
    def labels(self) -> str:
        """Pattern of the label maps."""
        return f"{self.root}{self.place}{_text(self.entities)}_dseg.nii.gz"

    def images(self, name: str) -> list[str]:
        """Return patterns of images that may fit, the likeliest first."""
        shared = tuple(entry for entry in self.entities if entry[0] not in DERIVED)
        own = f"{self.place}{_text(shared)}"
        space = f"_space-{self.space}" if self.space else ""
        found = [f"{self.root}{own}{space}_{name}.nii.gz"] if space else []
        return list(
            dict.fromkeys([*found, f"{own}_{name}.nii.gz", f"{self.root}{own}_{name}.nii.gz"])
        )


def from_bids(folder: Path) -> Draft:
    """Return the draft of a BIDS dataset.

    The pipeline with most label maps is taken. Its labels have the image's name with the suffix
    ``_dseg``, and perhaps entities of their own, such as ``space-`` or ``desc-``; with a
    ``space-`` the images are those of the pipeline in that space, or the raw ones where it is
    theirs.

    Raises:
        SpecError: There are no ``_dseg`` files, or no images that fit them.
        ScanError: An image or a label map cannot be read.
    """
    layout, number, others = _most_labels(folder)
    images = {
        name: pattern
        for name in MODALITIES
        for pattern in [_image_pattern(folder, layout, name)]
        if pattern is not None
    }
    root = layout.root
    if not images:
        raise SpecError(
            f"{folder}: no image such as {layout.images('T1w')[0]} for the labels of "
            f"{root or 'the dataset'}; expected one of {', '.join(MODALITIES)}, on the grid of the "
            "labels"
        )
    name, pattern = next(iter(images.items()))
    pairing: dict[str, Any] = {"image": pattern, "labels": layout.labels}
    about = folder / "dataset_description.json"
    known = read_json(about) if about.is_file() else {}
    document: dict[str, Any] = {
        "name": checked_name(str(known.get("Name") or folder.resolve().name)),
        "ndim": 3,
        "channels": [name],
        "orientation": "RAS",
        "normalization": "ct" if name == "ct" else "scan",
        "pairing": pairing,
        "split_by": {"folds": 5, "fold": 0, "seed": 0},
        "group_by": "subject",
    }
    for key, entry in (("licence", "License"), ("citation", "HowToAcknowledge")):
        if known.get(entry):
            document[key] = str(known[entry])
    notes = []
    if others:
        notes.append(
            f"{others} label maps with other entities or of other pipelines are left out; the "
            f"{number} of {layout.labels} are taken"
        )
    if len(images) > 1:
        notes.append(
            f"images are {name}; there are {', '.join(list(images)[1:])} too: to use several, "
            "write images: {T1w: ..., T2w: ...} in pairing"
        )
    draft = Draft(folder, document, {"group_by": "All sessions of a subject in one split."}, notes)
    rows = _class_rows(folder, root)
    if rows is None:
        add_classes(draft, [path for path, _ in find_files(layout.labels, folder)])
        notes.append(
            f"no *_dseg.tsv with the names of label values below {root or '.'}: classes are the "
            "values of the labels; fill in their names"
        )
    else:
        document["classes"] = rows
    return draft


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _most_labels(folder: Path) -> tuple[_Layout, int, int]:
    """Return the layout of most label maps, how many they are, and how many others there are."""
    found: dict[tuple[str, str, Entities], list[Entities]] = {}
    roots = [f"derivatives/{name}/" for name in _folders(folder / "derivatives")]
    for root in (*roots, ""):
        for session in ("", "ses-{session}/"):
            start = _Layout(root, session, ()).place
            for _, groups in find_files(f"{root}{start}{{more:.*}}_dseg.nii.gz", folder):
                if not session and groups["more"].startswith("_ses-"):
                    continue
                own = _entities(groups["more"])
                kind = tuple((name, text if name in DERIVED else "") for name, text in own)
                found.setdefault((root, session, kind), []).append(own)
    if not found:
        raise SpecError(
            f"{folder}: no sub-*/anat/*_dseg.nii.gz below it or its derivatives; expected a BIDS "
            "dataset with label maps"
        )
    (root, session, _), most = max(found.items(), key=lambda item: (len(item[1]), item[0][:2]))
    entities = tuple(
        (entries[0][0], entries[0][1] if len(set(entries)) == 1 else _group(entries[0][0]))
        for entries in zip(*most, strict=True)
    )
    total = sum(len(files) for files in found.values())
    return _Layout(root, session, entities), len(most), total - len(most)


def _image_pattern(folder: Path, layout: _Layout, name: str) -> str | None:
    """Return the pattern of the images of a modality that lie where the labels do, or None."""
    patterns = layout.images(name)
    more = {
        groups["more"]
        for _, groups in find_files(f"{layout.place}{{more:.*}}_{name}.nii.gz", folder)
    }
    if len(more) == 1:  # images whose names say more than those of the labels, or less
        patterns.append(f"{layout.place}{more.pop()}_{name}.nii.gz")
    for pattern in patterns:
        found = find_files(pattern, folder)
        if not found:
            continue
        if layout.space is None or layout.space in NATIVE or "_space-" in pattern:
            return pattern
        if _same_place(folder, found, find_files(layout.labels, folder)):
            return pattern
    return None


def _same_place(
    folder: Path,
    images: list[tuple[str, dict[str, str]]],
    labels: list[tuple[str, dict[str, str]]],
) -> bool:
    partner = next(
        ((image, label) for label, groups in labels for image, own in images if own == groups), None
    )
    if partner is None:
        return False
    with open_scan(folder / partner[0]) as image, open_scan(folder / partner[1]) as label:
        try:
            check_same_grid(image, label)
        except ScanError:
            return False
    return True


def _entities(text: str) -> Entities:
    parts = (part.partition("-") for part in text.split("_") if part)
    return tuple((name, value) for name, _, value in parts)


def _group(name: str) -> str:
    return f"{{{name}:[A-Za-z0-9]+}}"


def _text(entities: Entities) -> str:
    return "".join(f"_{name}-{value}" if value else f"_{name}" for name, value in entities)


def _class_rows(folder: Path, root: str) -> list[dict[str, Any]] | None:
    """Return the class table of the ``dseg.tsv`` beside the labels or above, if there is one."""
    tables = [
        path
        for pattern in (f"{root}*dseg.tsv", f"{root}**/*dseg.tsv", "*dseg.tsv")
        for path, _ in find_files(pattern, folder)
    ]
    if not tables:
        return None
    path = folder / tables[0]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = {int(row["index"]): str(row["name"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise SpecError(f"{path}: expected the columns index and name: {error!r}") from error
    colors = {int(row["index"]): str(row.get("color") or "").strip() for row in rows}
    names.setdefault(0, "background")
    return [
        {**row, "color": list(bytes.fromhex(colors[row["value"]][1:]))}
        if re.fullmatch("#[0-9A-Fa-f]{6}", colors.get(row["value"], ""))
        else row
        for row in class_rows(sorted(names.items()))
    ]
