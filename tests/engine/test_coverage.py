from __future__ import annotations

import numpy as np
import pytest

from segfocal.engine import coverage
from segfocal.engine.coverage import uncovered


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_disjoint_and_make_up_the_rest(ndim, seed):
    rng = np.random.default_rng(seed)

    def window():
        ends = np.sort(rng.integers(0, 9, (ndim, 2)), axis=1)
        return tuple(slice(int(a), int(b) + 1) for a, b in ends)

    whole, others = window(), [window() for _ in range(seed % 5)]
    expected = np.zeros((10,) * ndim, int)
    expected[whole] = 1
    for other in others:
        expected[other] = 0
    found = np.zeros_like(expected)
    for piece in uncovered(whole, others):
        assert found[piece].size > 0
        found[piece] += 1
    np.testing.assert_array_equal(found, expected)


def test_pieces_are_not_compared_with_what_lies_far_behind(monkeypatch):
    compared, without = [], coverage._without
    monkeypatch.setattr(coverage, "_without", lambda *a: compared.append(a) or without(*a))
    others = [
        (slice(4 * row, 4 * row + 4), slice(9 * column, 9 * column + 9))
        for column in range(10)
        for row in range(100)
        if (row + column) % 2
    ]
    assert len(uncovered((slice(0, 400), slice(0, 90)), others)) >= 500
    assert len(compared) < 10 * len(others)
