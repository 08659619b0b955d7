"""BIDS datasets: raw images with ``_dseg`` label maps among the derivatives."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from segfocal.data.patterns import find_files
from segfocal.errors import SpecError
from segfocal.spec_drafts.dataset_json import read_json
from segfocal.spec_drafts.draft import Draft, checked_name, class_rows

__all__ = ["from_bids"]

MODALITIES = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "T1map", "ct", "bold", "pet")


def from_bids(folder: Path) -> Draft:
    """Return the draft of a BIDS dataset.

    The pipeline with most label maps is taken. Its labels have the image's name with the
    suffix ``_dseg``, perhaps with ``space-`` or ``desc-``; with a ``space-`` the images are
    those of the pipeline in that space.

    Raises:
        SpecError: There are no ``_dseg`` files, or no images that fit them.
    """
    roots = [(f"derivatives/{name}/", name) for name in _folders(folder / "derivatives")] + [
        ("", folder.name)
    ]
    layouts = []
    for root, _ in roots:
        for session in ("", "ses-{session}/"):
            tail = "_ses-{session}" if session else ""
            labels = (
                f"{root}sub-{{subject}}/{session}anat/sub-{{subject}}{tail}{{more:.*}}_dseg.nii.gz"
            )
            found = find_files(labels, folder)
            for more, count in Counter(groups["more"] for _, groups in found).items():
                layouts.append((count, root, session, tail, more))
    if not layouts:
        raise SpecError(
            f"{folder}: no sub-*/anat/*_dseg.nii.gz below it or its derivatives; expected a BIDS "
            "dataset with label maps"
        )
    _, root, session, tail, more = max(layouts, key=lambda layout: (layout[0], layout[1]))
    place = f"sub-{{subject}}/{session}anat/sub-{{subject}}{tail}"
    space = next((f"_{part}" for part in more.split("_") if part.startswith("space-")), "")
    images = {
        name: f"{root if space else ''}{place}{space}_{name}.nii.gz"
        for name in MODALITIES
        if find_files(f"{root if space else ''}{place}{space}_{name}.nii.gz", folder)
    }
    if not images:
        raise SpecError(
            f"{folder}: no image such as {place}{space}_T1w.nii.gz for the labels of "
            f"{root or 'the dataset'}; expected one of {', '.join(MODALITIES)}"
        )
    pairing: dict[str, Any] = {"labels": f"{root}{place}{more}_dseg.nii.gz"}
    name, pattern = next(iter(images.items()))
    pairing = {"image": pattern, **pairing}
    about = folder / "dataset_description.json"
    known = read_json(about) if about.is_file() else {}
    document: dict[str, Any] = {
        "name": checked_name(str(known.get("Name") or folder.resolve().name)),
        "ndim": 3,
        "channels": [name],
        "orientation": "RAS",
        "normalization": "ct" if name == "ct" else "scan",
        "classes": class_rows(_class_names(folder, root)),
        "pairing": pairing,
        "split_by": {"folds": 5, "fold": 0, "seed": 0},
        "group_by": "subject",
    }
    for key, entry in (("licence", "License"), ("citation", "HowToAcknowledge")):
        if known.get(entry):
            document[key] = str(known[entry])
    notes = []
    if len(images) > 1:
        notes.append(
            f"images are {name}; there are {', '.join(list(images)[1:])} too: to use several, "
            "write images: {T1w: ..., T2w: ...} in pairing"
        )
    return Draft(folder, document, {"group_by": "All sessions of a subject in one split."}, notes)


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _class_names(folder: Path, root: str) -> list[tuple[int, str]]:
    """Return values and names from the ``dseg.tsv`` that stands beside the labels or above."""
    tables = [
        path
        for pattern in (f"{root}*dseg.tsv", f"{root}**/*dseg.tsv", "*dseg.tsv")
        for path, _ in find_files(pattern, folder)
    ]
    if not tables:
        raise SpecError(
            f"{folder}: no *_dseg.tsv with the names of label values below {root or '.'}; expected "
            "one with the columns index and name"
        )
    path = folder / tables[0]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = {int(row["index"]): str(row["name"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise SpecError(f"{path}: expected the columns index and name: {error!r}") from error
    names.setdefault(0, "background")
    return sorted(names.items())
