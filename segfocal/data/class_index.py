"""Where the classes of a split are: an index that is built by one pass and kept in a file.

Of each label a bounded number of pixels is kept, chosen evenly from all of them, so that the index
of a dataset of any size fits in memory. Only labelled pixels are in it. A label is a class, or of
regions that overlap a set of them: see :mod:`segfocal.data.classes`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.data.reading import BLOCK, RegionReader, blocks
from segfocal.data.reservoir import Reservoir
from segfocal.io.identity import files_of
from segfocal.types import window_shape

__all__ = ["ClassIndex", "build_index", "index_key", "keep_index", "kept_index"]

MOST_POSITIONS = 2**21
"""Pixels that are kept of all labels together: 32 MB for volumes."""

MOST_OF_A_LABEL = 10**5

RANDOM = 0x1D

FORMAT = 1


@dataclass(frozen=True)
class ClassIndex:
    """Pixels of each label.

    Attributes:
        positions: Per label index rows of (region, \\*position), int32.
        counts: Pixels per label index.
        pixels: Pixels of all regions, labelled or not.
    """

    positions: tuple[NDArray[np.int32], ...]
    counts: tuple[int, ...]
    pixels: int


def build_index(readers: Sequence[RegionReader], seed: int) -> ClassIndex:
    """Go through all regions, block by block, and note where the classes are.

    Args:
        readers: The regions.
        seed: Seed of the choice among the pixels of a frequent label.

    Raises:
        SpecError: A label value is neither a class nor ignored.
    """
    num_labels = len(readers[0].table.members)
    most = max(1, min(MOST_OF_A_LABEL, MOST_POSITIONS // num_labels))
    rng = np.random.default_rng([RANDOM, seed])  # not the stream of any sample
    ndim = len(readers[0].window)
    kept = [Reservoir(most, 1 + ndim, np.int32, rng) for _ in range(num_labels)]
    counts = np.zeros(num_labels, np.int64)
    for number, reader in enumerate(readers):
        for block in blocks(reader.window, BLOCK[ndim]):
            labels = reader.read(block)[2]
            found = np.bincount(labels[labels >= 0], minlength=num_labels)
            counts += found
            start = (number, *(side.start for side in block))
            for k in np.flatnonzero(found):
                kept[k].offer(int(found[k]), partial(_places, labels, int(k), start))
    pixels = sum(int(np.prod(window_shape(reader.window))) for reader in readers)
    positions = tuple(one.rows.astype(np.int32) for one in kept)
    return ClassIndex(positions, tuple(counts.tolist()), pixels)


def _places(
    labels: NDArray[np.int32], k: int, start: tuple[int, ...], wanted: NDArray[np.intp]
) -> NDArray[np.generic]:
    """Return rows (region, *position) of some of the pixels of a label, in scan order."""
    places = np.unravel_index(np.flatnonzero(labels == k)[wanted], labels.shape)
    where = np.stack(places, -1) + start[1:]
    return np.insert(where, 0, start[0], axis=1)


def index_key(readers: Sequence[RegionReader], seed: int) -> str:
    """Return what tells an index from that of other files, regions, classes or grids."""
    spec = readers[0].spec
    named = [name for reader in readers for name in spec.files(reader.case)]
    files = {name: _stamp(name) for name in files_of(named)}
    regions = [
        [reader.case.id, [[side.start, side.stop] for side in reader.window], reader.shape]
        for reader in readers
    ]
    about = [FORMAT, seed, spec.model_dump(mode="json"), files, regions, MOST_OF_A_LABEL]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _stamp(name: str) -> list[int] | None:
    try:
        about = os.stat(name)
    except OSError:  # not a local file
        return None
    return [about.st_size, about.st_mtime_ns]


def kept_index(path: Path, key: str) -> ClassIndex | None:
    """Return the index from a file, or None when there is none, or that of something else."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            if str(arrays["key"]) != key:
                return None
            counts = tuple(arrays["counts"].tolist())
            positions = tuple(arrays[f"positions_{k}"] for k in range(len(counts)))
            return ClassIndex(positions, counts, int(arrays["pixels"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def keep_index(path: Path, key: str, index: ClassIndex) -> None:
    """Write an index to a file; it is there complete or not at all. A full disk is no error."""
    arrays: dict[str, Any] = {f"positions_{k}": rows for k, rows in enumerate(index.positions)}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as out:
            np.savez(out, key=key, counts=index.counts, pixels=index.pixels, **arrays)
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
