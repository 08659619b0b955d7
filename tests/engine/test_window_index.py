"""Windows are found by where they lie: compared with an array that holds a number for each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segfocal.engine import window_index
from segfocal.engine.window_index import WindowIndex


def cut(rng, side, pieces):
    ends = [0, *sorted(rng.choice(np.arange(1, side), pieces - 1, replace=False).tolist()), side]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_windows_are_found_as_in_an_array(ndim, seed):
    rng = np.random.default_rng(seed)
    # Far from square, so that cells are too; and of many sizes.
    shape = tuple(int(side) for side in rng.permutation([90, 24, 11])[:ndim])
    windows = list(itertools.product(*(cut(rng, side, rng.integers(1, 9)) for side in shape)))
    index: WindowIndex[int] = WindowIndex()
    numbers = np.full(shape, -1)
    for number in rng.permutation(len(windows)):
        if rng.random() < 0.7:
            index.add(windows[number], number)
            numbers[windows[number]] = number
    for number in np.unique(numbers)[1:3]:
        index.remove(windows[number], -5)  # another value: nothing happens
        index.remove(windows[number], next(v for _, v in index.overlapping(windows[number])))
        numbers[windows[number]] = -1
    whole = tuple(slice(0, side) for side in shape)
    asked = [whole, *windows[:20]]
    for _ in range(50):
        ends = [sorted(rng.choice(side + 1, 2, replace=False).tolist()) for side in shape]
        asked.append(tuple(slice(a, b) for a, b in ends))
    for window in asked:
        found = index.overlapping(window)
        assert all(place == windows[number] for place, number in found)
        assert sorted(n for _, n in found) == sorted({*numbers[window].ravel().tolist()} - {-1})
        assert index.covers(window) == bool((numbers[window] >= 0).all())


def test_what_lies_elsewhere_is_not_looked_at(monkeypatch):
    looked = []
    overlap = window_index._overlap
    monkeypatch.setattr(window_index, "_overlap", lambda *a: looked.append(a) or overlap(*a))
    index: WindowIndex[int] = WindowIndex()
    for row, column in itertools.product(range(100), range(20)):
        window = (slice(5 * row, 5 * row + 5), slice(900 * column, 900 * column + 900))
        assert index.overlapping(window) == []
        index.add(window, row)
    assert len(looked) < 20 * 2000
