from __future__ import annotations

import numpy as np
import pytest

from segfocal.layers.local_mean import local_mean


def slow(x, weight, window):
    """The mean over each position's box, one position at a time."""
    out = np.zeros_like(x, dtype=np.float64)
    for place in np.ndindex(*x.shape[1:-1]):
        box: list[slice] = [slice(None)]
        for at, side, length in zip(place, window, x.shape[1:-1], strict=True):
            start = max(0, min(at - side // 2, length - side))
            box.append(slice(start, min(start + side, length)))
        values, weights = x[tuple(box)], weight[tuple(box)]
        axes = tuple(range(1, len(window) + 1))
        count = weights.sum(axes)
        total = (values * weights).sum(axes)
        out[(slice(None), *place)] = np.where(count > 0, total / np.maximum(count, 1e-9), 0)
    return out


@pytest.mark.parametrize(
    ("space", "window"),
    [
        ((9, 7), (3, 3)),
        ((9, 7), (4, 2)),
        ((9, 7), (9, 8)),
        ((9, 7), (1, 1)),
        ((1, 1), (5, 5)),
        ((5, 6, 7), (2, 6, 9)),
    ],
)
def test_boxes_are_shifted_inward_and_weights_count(space, window):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 1, size=(2, *space, 3)).astype("float32")
    weight = (rng.random((2, *space, 1)) > 0.4).astype("float32")
    weight[1] = 0
    found = np.asarray(local_mean(x, weight, window))
    np.testing.assert_allclose(found, slow(x, weight, window), rtol=1e-4, atol=1e-4)
    assert (found[1] == 0).all()


def test_a_constant_stays_the_constant_in_a_long_axis():
    x = np.full((1, 2000, 1, 1), 7.25, "float32")
    found = np.asarray(local_mean(x, np.ones_like(x), (64, 64)))
    np.testing.assert_allclose(found, 7.25, rtol=1e-6)
