"""Cleaning by connected pieces: the largest of a class, those of a minimum volume, holes.

Pieces of a class are joined by faces, edges and corners, holes by faces only: what is thin and
slanting is one piece and leaks nothing. The steps hold the whole label map in memory, with
scipy's numbering of its pieces, or refuse before the first tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segfocal.engine.label_map import LabelMap
from segfocal.types import full_window

__all__ = ["FillHoles", "KeepLarge", "KeepLargest"]

_SLAB_PIXELS = 2**22


@dataclass(frozen=True)
class _Pieces:
    """Which classes a step looks at, as label indices."""

    indices: tuple[int, ...]
    background: int

    def read(self, labels: LabelMap) -> NDArray[np.unsignedinteger]:
        return labels.read(full_window(labels.shape))

    def drop(
        self,
        whole: NDArray[np.unsignedinteger],
        unwanted: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    ) -> None:
        """Turn pieces into background.

        Args:
            whole: The label map, changed in place.
            unwanted: Which pieces, from their sizes.
        """
        for index in self.indices:
            box = _box_of(whole, index)
            if box is None:
                continue
            part = whole[box]
            numbers, count = _numbered(part == index, connectivity=part.ndim)
            gone = np.append(False, unwanted(_sizes(numbers, count)))
            if gone.any():
                for slab in _slabs(numbers.shape):
                    part[slab][gone[numbers[slab]]] = self.background


@dataclass(frozen=True)
class KeepLargest(_Pieces):
    """Of each class the largest piece stays, of equal ones the first; the rest is background."""

    name = "largest_component"

    @property
    def parameters(self) -> Any:
        """What the result follows from."""
        return {"classes": list(self.indices)}

    def __call__(self, labels: LabelMap) -> None:
        """Clean a label map in place; see :class:`~segfocal.engine.cleaning.Cleaning`."""
        whole = self.read(labels)
        self.drop(whole, lambda sizes: np.arange(len(sizes)) != np.argmax(sizes))
        labels.write(full_window(labels.shape), whole)


@dataclass(frozen=True)
class KeepLarge(_Pieces):
    """Pieces of fewer pixels become background.

    Attributes:
        min_pixels: The fewest pixels that stay.
    """

    min_pixels: int
    name = "min_volume"

    @property
    def parameters(self) -> Any:
        """What the result follows from."""
        return {"classes": list(self.indices), "min_pixels": self.min_pixels}

    def __call__(self, labels: LabelMap) -> None:
        """Clean a label map in place; see :class:`~segfocal.engine.cleaning.Cleaning`."""
        whole = self.read(labels)
        self.drop(whole, lambda sizes: sizes < self.min_pixels)
        labels.write(full_window(labels.shape), whole)


@dataclass(frozen=True)
class FillHoles(_Pieces):
    """Background that one class encloses becomes that class.

    It touches no other class, no pixel without data, and not the border of the scan.
    """

    name = "fill_holes"

    @property
    def parameters(self) -> Any:
        """What the result follows from."""
        return {"classes": list(self.indices)}

    def __call__(self, labels: LabelMap) -> None:
        """Clean a label map in place; see :class:`~segfocal.engine.cleaning.Cleaning`."""
        whole = self.read(labels)
        numbers, count = _numbered(whole == self.background, connectivity=1)
        # Which index each piece touches: none yet, or several.
        none, several = labels.nodata + 1, labels.nodata + 2
        beside = np.full(count + 1, none, np.int64)
        for pieces, indices in _neighbours(numbers, whole):
            for piece, index in np.unique(np.stack([pieces, indices]), axis=1).T:
                beside[piece] = index if beside[piece] in (none, index) else several
        for face in _faces(numbers):
            beside[np.unique(face)] = several
        beside[0] = several
        filled = np.isin(beside, self.indices)
        if filled.any():
            for slab in _slabs(numbers.shape):
                ids = numbers[slab]
                inside = filled[ids]
                whole[slab][inside] = beside[ids[inside]]
        labels.write(full_window(labels.shape), whole)


def _numbered(mask: NDArray[np.bool_], connectivity: int) -> tuple[NDArray[Any], int]:
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity)
    numbers, count = ndimage.label(mask, structure)
    return numbers, int(count)


def _box_of(whole: NDArray[np.unsignedinteger], index: int) -> tuple[slice, ...] | None:
    """Return the box around all pixels of an index."""
    mask = whole == index
    box = []
    for axis in range(whole.ndim):
        others = tuple(i for i in range(whole.ndim) if i != axis)
        there = np.flatnonzero(mask.any(others))
        if not len(there):
            return None
        box.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(box)


def _sizes(numbers: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the pixels of each piece, ``(count,)``."""
    sizes = np.zeros(count + 1, np.int64)
    for slab in _slabs(numbers.shape):
        found, pixels = np.unique(numbers[slab], return_counts=True)
        sizes[found] += pixels
    return sizes[1:]


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield parts of the first axis, so that what is made of them stays small."""
    step = max(1, _SLAB_PIXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _neighbours(
    numbers: NDArray[Any], whole: NDArray[np.unsignedinteger]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield pieces and the label index beyond a face of theirs."""
    for slab in _slabs(numbers.shape):
        # With the first plane of the next slab, whose face is shared.
        reach = slice(slab.start, min(slab.stop + 1, numbers.shape[0]))
        ids, indices = numbers[reach], whole[reach]
        for axis in range(numbers.ndim):
            low = tuple(slice(None, -1) if i == axis else slice(None) for i in range(ids.ndim))
            high = tuple(slice(1, None) if i == axis else slice(None) for i in range(ids.ndim))
            for here, there in ((low, high), (high, low)):
                border = (ids[here] > 0) & (ids[there] == 0)
                yield ids[here][border], indices[there][border]


def _faces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for axis in range(array.ndim):
        for place in (0, -1):
            yield array.take(place, axis)
