"""Scenes divided into blocks for splits, with a buffer where blocks of two splits meet.

Neighbouring pixels look alike: a random split of pixels or patches lets a model be tested on
what it has seen. Blocks of different splits are therefore kept a buffer apart, corners
included.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.types import Window

__all__ = ["apportioned", "block_grid", "buffered"]


def block_grid(shape: tuple[int, ...], size: int) -> list[list[slice]]:
    """Return the spans of a grid of blocks along each axis.

    Blocks are as near to ``size`` pixels as makes them equal, give or take a pixel, so that
    none is a sliver.
    """
    spans = []
    for length in shape:
        count = max(1, round(length / size))
        edges = [length * i // count for i in range(count + 1)]
        spans.append([slice(a, b) for a, b in itertools.pairwise(edges)])
    return spans


def apportioned(
    sizes: Sequence[int], shares: Mapping[str, float], rng: np.random.Generator
) -> list[str]:
    """Give each item to a split so that the splits get their shares of the sum of sizes.

    Items are taken in random order, and each goes to the split that lacks most of its share;
    no split stays empty as long as there are enough items.

    Args:
        sizes: Size of each item: pixels, or number of cases.
        shares: Share of each split; they need not add up to 1.
        rng: Where the order comes from.

    Returns:
        The split of each item.
    """
    total = sum(shares.values())
    want = {split: sum(sizes) * share / total for split, share in shares.items() if share > 0}
    got = dict.fromkeys(want, 0)
    chosen = [""] * len(sizes)
    for left, item in zip(
        range(len(sizes), 0, -1), rng.permutation(len(sizes)).tolist(), strict=True
    ):
        empty = [split for split in want if not got[split]]
        open_splits = empty if len(empty) >= left else list(want)
        split = max(open_splits, key=lambda name: (want[name] - got[name]) / want[name])
        chosen[item] = split
        got[split] += max(1, sizes[item])
    return chosen


def buffered(
    spans: list[list[slice]], owner: NDArray[np.object_], buffer: int
) -> dict[str, list[Window]]:
    """Return the windows of each split, no two splits nearer than ``buffer`` pixels.

    A block gives up half of the buffer along a side where any of the blocks on the other side
    of it, diagonal ones included, is in another split.

    Args:
        spans: See :func:`block_grid`.
        owner: Split of each block, shape of the grid.
        buffer: Pixels between splits, along at least one axis.

    Returns:
        Windows by split; what a buffer uses up is left out.
    """
    before, after = buffer // 2, buffer - buffer // 2  # together the buffer
    windows: dict[str, list[Window]] = {}
    for place in np.ndindex(owner.shape):
        sides = []
        for axis, at in enumerate(place):
            span = spans[axis][at]
            low = before if _other_side(owner, place, axis, -1) else 0
            high = after if _other_side(owner, place, axis, +1) else 0
            sides.append(slice(span.start + low, span.stop - high))
        if all(side.start < side.stop for side in sides):
            windows.setdefault(str(owner[place]), []).append(tuple(sides))
    return windows


def _other_side(owner: NDArray[np.object_], place: tuple[int, ...], axis: int, step: int) -> bool:
    """Return whether a block across a side, straight or diagonally, is in another split."""
    at = place[axis] + step
    if not 0 <= at < owner.shape[axis]:
        return False
    near = tuple(
        slice(at, at + 1) if k == axis else slice(max(0, p - 1), p + 2) for k, p in enumerate(place)
    )
    return bool((owner[near] != owner[place]).any())
