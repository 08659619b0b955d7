"""Strips and runs: the same bits as one sweep over everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import segfocal as sf
from segfocal.engine.predictors import CallablePredictor
from segfocal.engine.runs import plan_runs
from segfocal.engine.sweep import sweep
from segfocal.errors import ScanError
from segfocal.tiling import AxisGrid, TileGrid
from segfocal.types import full_window


def model(batch):
    """Depends on where in its tile a pixel lies, so that a sum in another order would tell."""
    ramp = np.linspace(0, 1, batch.shape[1], dtype=np.float32).reshape(-1, *[1] * (batch.ndim - 2))
    return np.concatenate([np.tanh(batch * (3 + ramp)), np.cos(batch * 7 - ramp)], axis=-1)


def run(scan, grid, **options):
    out = np.full((*grid.shape, 2), np.nan, np.float32)
    passes = []
    windows = []

    def counted(batch):
        passes.append(len(batch))
        return model(batch)

    for rows in sweep(scan, CallablePredictor(counted), grid, batch_size=1, **options):
        assert np.isnan(out[rows.window]).all(), "given out twice"
        out[rows.window] = rows.probabilities
        windows.append(rows.window)
    return out, sum(passes), windows


def strips_of(shape, axis, cuts):
    sides = [
        [slice(0, length)]
        if i == axis
        else [slice(a, b) for a, b in itertools.pairwise([0, *cuts[i], length])]
        for i, length in enumerate(shape)
    ]
    return list(itertools.product(*sides))


@pytest.mark.parametrize(
    ("shape", "axis", "cuts"),
    [
        ((30, 50), 0, {1: [12, 18, 42]}),
        ((30, 50), 0, {1: [1, 49]}),
        ((50, 30), 1, {0: [7, 20]}),
        ((13, 20, 17), 2, {0: [6], 1: [6, 12]}),
    ],
)
@pytest.mark.parametrize(("halo", "overlap"), [(0, 2), (1, 0), (0, 5)])
def test_strips_make_no_difference(shape, axis, cuts, halo, overlap):
    grid = TileGrid.cover(shape, (8,) * len(shape), halo=halo, overlap=overlap)
    scan = sf.MemoryScan(np.random.default_rng(0).random((*shape, 1)))
    scan.slow_axis = axis
    expected, _, _ = run(scan, grid)
    found, _, _ = run(scan, grid, strips=strips_of(shape, axis, cuts))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("overlap", [0, 3, 6])
@pytest.mark.parametrize("seed", range(6))
def test_any_part_can_be_computed_alone(overlap, seed):
    grid = TileGrid.cover((60, 20), (8, 8), overlap=overlap)
    scan = sf.MemoryScan(np.random.default_rng(1).random((60, 20, 1)))
    expected, all_passes, _ = run(scan, grid)
    rows = grid.counts[0]
    chosen = set(np.random.default_rng(seed).permutation(rows)[: rows // 2].tolist())
    starts = {grid.axes[0].final_slice(k).start for k in chosen}
    found, passes, windows = run(scan, grid, wanted=lambda window: window[0].start in starts)
    assert {window[0].start for window in windows} == starts
    there = ~np.isnan(found)
    np.testing.assert_array_equal(found[there], expected[there])
    if overlap == 0:
        assert passes == len(chosen) * grid.counts[1] < all_passes


def test_nothing_is_run_when_nothing_is_wanted():
    scan = sf.MemoryScan(np.ones((20, 20, 1)))
    grid = TileGrid.cover((20, 20), (8, 8))
    reports = []
    found, passes, _ = run(
        scan, grid, wanted=lambda window: False, progress=lambda *now: reports.append(now)
    )
    assert passes == 0
    assert reports == [(9, 9)]
    assert np.isnan(found).all()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 40])
@pytest.mark.parametrize(("halo", "overlap"), [(0, 0), (0, 2), (1, 3), (0, 6)])
def test_touching_tiles_are_those_that_contribute(size, halo, overlap):
    axis = AxisGrid(size, 8, halo, overlap)
    for start, stop in itertools.combinations(range(size + 1), 2):
        expected = [
            k
            for k in range(axis.count)
            if axis.kept_slice(k).start < stop and axis.kept_slice(k).stop > start
        ]
        assert list(axis.touching(slice(start, stop))) == expected


def test_a_seam_costs_one_column_of_tiles():
    grid = TileGrid.cover((40, 100), (8, 8), overlap=2)
    strips = strips_of((40, 100), 0, {1: [48]})
    assert sum(len(run) for run in plan_runs(grid, 0, strips)) == len(grid) + grid.counts[0]
    assert sum(len(run) for run in plan_runs(grid, 0, [full_window(grid.shape)])) == len(grid)


@pytest.mark.parametrize("overlap", [0, 3, 8])
def test_without_a_choice_each_strip_is_one_run(overlap):
    grid = TileGrid.cover((50, 30), (12, 12), overlap=overlap)
    strips = [
        (slice(top, bottom), slice(left, left + 15))
        for top, bottom in ((0, 50), (0, 1), (7, 8), (9, 41), (49, 50))
        for left in (0, 15)
    ]
    assert plan_runs(grid, 0, strips) == plan_runs(grid, 0, strips, lambda window: True)


def test_what_cannot_be_read_is_told_before_a_plan_of_what_it_claims():
    class Claims(sf.MemoryScan):
        def __init__(self):
            super().__init__(np.zeros((8, 8, 1), np.float32))
            self.shape = (2**31 - 1, 8)

        def read(self, window, channels=None):
            raise ScanError("truncated")

    asked = []
    grid = TileGrid.cover((2**31 - 1, 8), (12, 12), overlap=3)
    with pytest.raises(ScanError, match="truncated"):
        next(sweep(Claims(), CallablePredictor(model), grid, wanted=asked.append))
    assert asked == []
