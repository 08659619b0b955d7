"""Guesses from file names: which are images, which are labels, and which belong together."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.data.cases import Pairing, paired
from segfocal.errors import SpecError
from segfocal.io.vectors import VECTOR_SUFFIXES

__all__ = ["Pair", "file_words", "found_files", "found_pairs", "general_rule"]

RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".bmp")
VOLUMES = (".nii.gz", ".nii", ".mgz", ".mgh")
ARRAYS = (".npz", ".npy", ".h5", ".hdf5", ".mat", ".zarr")
MOST_FILES = 200_000

LABEL_WORDS = {
    "annotation", "annotations", "dseg", "gt", "ground", "groundtruth", "label", "labels",
    "labelstr", "lbl", "mask", "masks", "msk", "seg", "segmentation", "segmentations", "truth",
    "labelhand", "labelled", "labeled",
}  # fmt: skip
IMAGE_WORDS = {
    "data", "features", "image", "images", "imagestr", "img", "imgs", "ortho", "rgb", "sat",
    "scan", "scans", "scene", "scenes",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """An image and its labels, paths relative to the folder."""

    image: str
    labels: str


def found_pairs(folder: Path) -> tuple[list[Pair], list[str]]:
    """Return images with labels below a folder, and images that have none.

    A file counts as labels when a word of its path says so (mask, labels, gt, ...), or when it
    is a vector file; the two belong together when the other words of their paths are the same.

    Raises:
        SpecError: There are no images, no labels, or none that belong together.
    """
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder; expected one with scans and labels")
    files = list(found_files(folder))
    labels: dict[tuple[str, ...], list[str]] = defaultdict(list)
    images: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        words = file_words(file)
        vector = file.lower().endswith(VECTOR_SUFFIXES)
        is_label = vector or any(word in LABEL_WORDS for word in words)
        key = tuple(word for word in words if word not in LABEL_WORDS | IMAGE_WORDS)
        (labels if is_label else images)[key].append(file)
    flat_images = [file for group in images.values() for file in group]
    flat_labels = [file for group in labels.values() for file in group]
    if not flat_images:
        raise SpecError(
            f"{folder}: no images found; expected files such as .tif, .png or .nii.gz that are not "
            f"called {', '.join(sorted(LABEL_WORDS)[:6])}, ...{_arrays(folder)}"
        )
    if not flat_labels:
        raise SpecError(
            f"{folder}: {len(flat_images)} images but no labels found; expected folders or names "
            "with mask, labels, gt or the like, or vector files"
        )
    pairs = [
        Pair(own[0], labels[key][0])
        for key, own in images.items()
        if len(own) == 1 and len(labels.get(key, ())) == 1
    ]
    if not pairs and len(flat_images) == len(flat_labels) == 1:
        pairs = [Pair(flat_images[0], flat_labels[0])]
    if not pairs:
        raise SpecError(
            f"{folder}: {len(flat_images)} images such as {flat_images[0]} and "
            f"{len(flat_labels)} label files such as {flat_labels[0]}, but no two have the same "
            "name apart from words such as image and mask; write the spec by hand"
        )
    pairs.sort(key=lambda pair: pair.image)
    used = {pair.image for pair in pairs}
    return pairs, [file for file in flat_images if file not in used]


def _arrays(folder: Path) -> str:
    """Return a hint for folders of arrays, which say neither where nor what they are."""
    for suffix in ARRAYS:
        path = next(folder.rglob(f"*{suffix}"), None)
        if path is not None:
            return f"; {path.name} is not read: write its arrays as GeoTIFF or NIfTI"
    return ""


def found_files(folder: Path) -> Iterator[str]:
    """Yield scans and vector files below a folder, relative to it."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(
                (*RASTERS, *VOLUMES, *VECTOR_SUFFIXES)
            ):
                continue
            if name.lower().endswith(".json"):  # mostly metadata; GeoJSON has a suffix
                continue
            count += 1
            if count > MOST_FILES:
                raise SpecError(
                    f"{folder}: more than {MOST_FILES} scans; expected a folder of one dataset"
                )
            yield Path(place, name).relative_to(folder).as_posix()


def file_words(file: str) -> list[str]:
    """Return the words of a path, without its suffix."""
    lower = file.lower()
    for suffix in (*VOLUMES, *RASTERS, *VECTOR_SUFFIXES):
        if lower.endswith(suffix):
            lower = lower[: -len(suffix)]
            break
    return [word for word in re.split(r"[^a-z0-9]+", lower) if word]


def general_rule(pairs: Sequence[Pair], folder: Path) -> dict[str, Any] | None:
    """Return a pairing rule that finds exactly these pairs, or None when there is no simple one."""
    if len(pairs) < 3:
        return None
    images = [pair.image.split("/") for pair in pairs]
    labels = [pair.labels.split("/") for pair in pairs]
    if len({len(parts) for parts in images}) > 1 or len({len(parts) for parts in labels}) > 1:
        return None
    groups: dict[str, list[str]] = {}
    image = "/".join(_general(column, groups) for column in zip(*images, strict=True))
    if "id" not in groups:
        return None
    target = "/".join(_general(column, groups) for column in zip(*labels, strict=True))
    if any(_is_brace(pair.image + pair.labels) for pair in pairs):
        return None
    rule = {"image": image, "labels": target}
    try:
        found, _ = paired(Pairing.model_validate(rule), folder)
    except (SpecError, ValueError):
        return None
    again = {(case.image, case.labels) for case in found}
    return rule if again == {(pair.image, pair.labels) for pair in pairs} else None


def _is_brace(text: str) -> bool:
    return any(c in text for c in "{}*")


def _general(column: Sequence[str], groups: dict[str, list[str]]) -> str:
    """Return a pattern for one part of the paths, with a group where they differ."""
    if len(set(column)) == 1:
        return column[0]
    # Up to a separator: a digit that all ids happen to share is part of them.
    start = re.sub(r"[A-Za-z0-9]*$", "", _shared_start(column))
    end = _shared_start([part[len(start) :][::-1] for part in column])[::-1]
    end = re.sub(r"^[A-Za-z0-9]*", "", end)
    middle = [part[len(start) : len(part) - len(end)] for part in column]
    for name, texts in groups.items():
        if texts == middle:
            return f"{start}{{{name}}}{end}"
        # Labels may share more of their ends than images do.
        wider = _widened(column, texts)
        if wider is not None:
            return wider.replace("\0", f"{{{name}}}")
    is_file = any("." in part for part in column)
    name = "id" if is_file else f"part{len(groups) + 1}" if groups else "part"
    if name in groups:
        name = f"{name}_{len(groups)}"
    groups[name] = middle
    return f"{start}{{{name}}}{end}"


def _shared_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    length = next((i for i, c in enumerate(low) if high[i] != c), len(low))
    return low[:length]


def _widened(column: Sequence[str], texts: Sequence[str]) -> str | None:
    """Return the common frame around the group's texts in the parts, or None."""
    if any(text not in part or not text for part, text in zip(column, texts, strict=True)):
        return None
    frames = {part.replace(text, "\0", 1) for part, text in zip(column, texts, strict=True)}
    return frames.pop() if len(frames) == 1 else None
