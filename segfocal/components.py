"""Connected components of a label map that is seen strip by strip.

Pixels of equal value that share a side belong to one component (4-connectivity). Components
are numbered in each strip as they come; what continues over the border of two strips is
joined afterwards. 0 stands for pixels without data, which belong to none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["ComponentTable", "label_strip", "survey"]


def label_strip(values: NDArray[np.unsignedinteger], nodata: int) -> NDArray[np.int64]:
    """Number the components of a strip from 1 on, ``(rows, cols)``; 0 where there is no data."""
    from skimage.measure import label

    numbers = label(values.astype(np.int32), background=nodata, connectivity=1)
    return np.asarray(numbers, np.int64)


def _seam_pairs(
    above: NDArray[np.unsignedinteger],
    above_ids: NDArray[np.int64],
    below: NDArray[np.unsignedinteger],
    below_ids: NDArray[np.int64],
    nodata: int,
) -> NDArray[np.int64]:
    """Return the pairs of components that continue from one row into the next.

    Args:
        above, below: Values of the rows, ``(cols,)``.
        above_ids, below_ids: Numbers of their components.
        nodata: Value of pixels without data.

    Returns:
        ``(pairs, 2)``, each once.
    """
    same = (above == below) & (above != nodata)
    return np.unique(np.stack([above_ids[same], below_ids[same]], -1), axis=0)


def _joined(count: int, pairs: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Return how many components there are when pairs are one, and the new number of each.

    Args:
        count: Components before; they are numbered from 0 on.
        pairs: ``(pairs, 2)``.
    """
    ones = np.ones(len(pairs), np.bool_)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found, numbers = connected_components(graph, directed=False)
    return int(found), numbers.astype(np.int64)


@dataclass(frozen=True)
class ComponentTable:
    """The components of a whole label map, numbered from 1 on; number 0 is no data.

    Attributes:
        offsets: Per strip: what is added to its own numbers.
        root: Per number with offset, 0 included: the component. Shape ``(numbers + 1,)``.
        sizes: Pixels of each component, ``(components + 1,)``; 0 first.
        values: Value of each component, ``(components + 1,)``.
        last: Index of the strip in which each component ends, ``(components + 1,)``.
    """

    offsets: tuple[int, ...]
    root: NDArray[np.int64]
    sizes: NDArray[np.int64]
    values: NDArray[np.unsignedinteger]
    last: NDArray[np.int64]

    def of_strip(self, index: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the components of a strip, from its own numbers."""
        return self.root[np.where(ids > 0, ids + self.offsets[index], 0)]


def survey(
    strips: Iterable[NDArray[np.unsignedinteger]],
    nodata: int,
    check: Callable[[int], None] | None = None,
) -> ComponentTable:
    """Find the components of a label map.

    Args:
        strips: Its rows from the first to the last, ``(rows, cols)`` each.
        nodata: Value of pixels without data.
        check: Called after each strip with the pieces found so far; it may raise.
    """
    offsets, pairs = [], []
    sizes, values = [np.zeros(1, np.int64)], [np.array([nodata])]
    total = 0
    above: tuple[NDArray[np.unsignedinteger], NDArray[np.int64]] | None = None
    for strip in strips:
        ids = label_strip(strip, nodata)
        count = int(ids.max())
        offsets.append(total)
        sizes.append(np.bincount(ids.ravel(), minlength=count + 1)[1:])
        of = np.zeros(count + 1, strip.dtype)
        of[ids] = strip
        values.append(of[1:])
        first = np.where(ids[0] > 0, ids[0] + total, 0)
        if above is not None:
            pairs.append(_seam_pairs(*above, strip[0], first, nodata))
        above = strip[-1], np.where(ids[-1] > 0, ids[-1] + total, 0)
        total += count
        if check is not None:
            check(total)
    every = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    # Number 0 is no data and in no pair, so that it stays alone, and first.
    components, root = _joined(total + 1, every)
    size = np.bincount(root, np.concatenate(sizes), components).astype(np.int64)
    value = np.zeros(components, np.concatenate(values).dtype)
    value[root] = np.concatenate(values)
    last = np.zeros(components, np.int64)
    strip_of = np.repeat(np.arange(len(offsets)), np.diff([*offsets, total]))
    np.maximum.at(last, root[1:], strip_of)
    return ComponentTable(tuple(offsets), root, size, value, last)
