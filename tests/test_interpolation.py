"""Interpolation between grids: against scikit-image on whole arrays, and window by window."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from skimage.transform import resize

from segfocal.interpolation import AxisMap, all_valid, interpolate, small_windows, support
from segfocal.types import full_window, window_shape

SIZES = [1, 2, 3, 5, 7, 16, 31]
PAIRS = list(itertools.product(SIZES, SIZES))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_one_axis_equals_whole_array_resizing(source, target, order):
    values = np.random.default_rng(source).random((source, 1, 1))
    axis = AxisMap(source, target, order)
    found = interpolate(values, (axis, AxisMap(1, 1)), full_window((target, 1)))
    if order == 1:
        expected = resize(values, (target, 1, 1), order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        return
    # scikit-image rounds ties either way, by its rounding errors: ours go up, exactly.
    for i in range(target):
        centre = Fraction(2 * i + 1, 2) * Fraction(source, target) - Fraction(1, 2)
        assert found[i, 0, 0] == values[int(centre + Fraction(1, 2)), 0, 0]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_is_needed_of_what_is_what_has_a_weight(source, target, order):
    """Support, dependents and so on against the derivative of each target by each source."""
    axis = AxisMap(source, target, order)
    eye = np.eye(source)[:, None, :]
    weights = interpolate(eye, (axis, AxisMap(1, 1)), full_window((target, 1)))[:, 0]
    needs = weights != 0  # (target, source)
    np.testing.assert_allclose(weights.sum(1), 1)
    for i in range(target):
        side = axis.support(slice(i, i + 1))
        assert (side.start, side.stop - 1) == (
            needs[i].argmax(),
            source - 1 - needs[i, ::-1].argmax(),
        )
    for start, stop in itertools.combinations(range(source + 1), 2):
        found = axis.dependents(slice(start, stop))
        expected = np.flatnonzero(needs[:, start:stop].any(1))
        assert list(range(found.start, found.stop)) == expected.tolist()
    for stop in range(source + 1):
        ready = ~needs[:, stop:].any(1)
        assert axis.finished(stop) == ready.sum() == (np.cumprod(ready)).sum()
        fresh = ~needs[:, :stop].any(1)
        assert axis.beginning(stop) == target - fresh.sum()


@pytest.mark.parametrize("seed", range(20))
def test_a_window_has_the_bits_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    ndim = 2 + seed % 2
    sizes = rng.integers(1, 20, (ndim, 2))
    maps = tuple(AxisMap(int(a), int(b), int(rng.integers(2))) for a, b in sizes)
    values = rng.random((*(axis.source for axis in maps), 3)).astype(np.float32)
    shape = tuple(axis.target for axis in maps)
    whole = interpolate(values, maps, full_window(shape))
    valid = rng.random(values.shape) > 0.2
    all_over = all_valid(valid, maps, full_window(shape), [0] * ndim)
    ones = interpolate(valid.astype(float), maps, full_window(shape))
    np.testing.assert_array_equal(all_over, ones > 1 - 1e-9)
    for part in small_windows(full_window(shape), int(rng.integers(1, 50))):
        source = support(maps, part)
        origin = [side.start for side in source]
        np.testing.assert_array_equal(interpolate(values[source], maps, part, origin), whole[part])
        np.testing.assert_array_equal(all_valid(valid[source], maps, part, origin), all_over[part])


@pytest.mark.parametrize(
    ("shape", "limit"), [((1, 1), 1), ((9, 31), 10), ((4, 5, 6), 7.5), ((3, 3), 0.1)]
)
def test_small_windows_partition(shape, limit):
    hits = np.zeros(shape, int)
    for part in small_windows(full_window(shape), limit):
        hits[part] += 1
        assert np.prod(window_shape(part)) <= max(1, limit)
    assert (hits == 1).all()
