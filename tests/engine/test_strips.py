"""Cutting a scan into strips: what it saves and what it costs."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest

import segfocal as sf
from segfocal.engine import job as job_module
from segfocal.engine import strips as strips_module
from segfocal.engine.runs import plan_runs
from segfocal.engine.strips import plan_strips, strip_bytes
from segfocal.errors import GeometryError
from segfocal.tiling import AxisGrid, TileGrid
from segfocal.types import full_window

MB = 10**6


def grid_of(shape, tile=512, overlap=128):
    return TileGrid.cover(shape, (tile,) * len(shape), overlap=overlap)


def passes(grid, axis, strips):
    return sum(len(run) for run in plan_runs(grid, axis, strips))


def check_partition(shape, strips):
    hits = np.zeros(shape, np.uint8)
    for strip in strips:
        hits[strip] += 1
    assert (hits == 1).all()


@pytest.mark.parametrize("width", [20_000, 40_000, 100_000, 300_000])
@pytest.mark.parametrize("num_classes", [2, 10, 30])
def test_without_a_limit_memory_is_bounded_and_seams_cost_little(width, num_classes):
    grid = grid_of((30_000, width))
    strips = plan_strips(grid, 0, num_classes)
    check_partition((1, width), [(slice(0, 1), strip[1]) for strip in strips])
    most = max(strip_bytes(grid, 0, strip, num_classes) for strip in strips)
    assert most <= 1.3 * 2**30
    if num_classes <= 10:
        assert passes(grid, 0, strips) <= 1.03 * len(grid)


def test_a_wider_scan_takes_no_wider_strips():
    sizes = []
    for width in (20_000, 40_000):
        grid = grid_of((width, width))
        sizes.append(max(strip_bytes(grid, 0, strip, 10) for strip in plan_strips(grid, 0, 10)))
    assert sizes[1] <= 1.05 * sizes[0]


def test_small_scans_are_not_cut():
    grid = grid_of((100_000, 2_000))
    assert plan_strips(grid, 0, 10) == [full_window(grid.shape)]


@pytest.mark.parametrize("limit", [60 * MB, 200 * MB, 1000 * MB])
@pytest.mark.parametrize(
    ("shape", "axis", "tile"), [((5_000, 40_000), 0, 512), ((9_000, 700), 1, 512),
                                ((900, 700, 800), 2, 96)],
)  # fmt: skip
def test_a_limit_is_kept_and_used(shape, axis, tile, limit):
    grid = grid_of(shape, tile, tile // 4)
    strips = plan_strips(grid, axis, 5, limit)
    assert max(strip_bytes(grid, axis, strip, 5) for strip in strips) <= limit
    assert all(strip[axis] == slice(0, shape[axis]) for strip in strips)
    across = [
        tuple(s if i != axis else slice(0, 1) for i, s in enumerate(strip)) for strip in strips
    ]
    check_partition(tuple(1 if i == axis else n for i, n in enumerate(shape)), across)
    more = plan_strips(grid, axis, 5, 2 * limit)
    assert passes(grid, axis, more) <= passes(grid, axis, strips)


def test_a_limit_too_low_for_one_column_is_told():
    with pytest.raises(GeometryError, match=r"leaves 1 MB .* one column of tiles takes \d+ MB"):
        plan_strips(grid_of((5_000, 40_000)), 0, 10, MB)


@pytest.mark.parametrize("limit", [None, "40 kB", "70KB", 10**9])
@pytest.mark.parametrize("overlap", [0, 4, 10])
def test_the_result_does_not_depend_on_the_limit(monkeypatch, limit, overlap):
    monkeypatch.setattr(job_module, "OTHER_BYTES", 0)
    monkeypatch.setattr(job_module, "peak_bytes", lambda call: (call(), 0))
    array = np.random.default_rng(0).random((60, 333, 2)).astype(np.float32)

    def model(batch):
        ramp = np.linspace(0, 1, batch.shape[2], dtype=np.float32)[:, None]
        return np.tanh(batch * (2 + ramp))

    def collect(**options):
        out = np.full((60, 333, 2), np.nan, np.float32)
        windows = []
        for window, probabilities in sf.stream(
            model, sf.MemoryScan(array), tile=16, overlap=overlap, batch_size=1, **options
        ):
            assert np.isnan(out[window]).all()
            out[window] = probabilities
            windows.append(window)
        return out, windows

    expected, whole = collect()
    found, windows = collect(max_memory=limit)
    np.testing.assert_array_equal(found, expected)
    assert (len(windows) > len(whole)) is (limit in ("40 kB", "70KB"))


def test_a_wide_scan_is_cut_by_itself(monkeypatch):
    monkeypatch.setattr(strips_module, "NEVER_CUT_BELOW", 0)
    monkeypatch.setattr(job_module, "NEVER_CUT_BELOW", 0)
    array = np.random.default_rng(0).random((40, 1000, 1)).astype(np.float32)
    calls = []

    def model(batch):
        calls.append(batch.any())
        return batch

    def run():
        calls.clear()
        scan = sf.MemoryScan(array)
        return list(sf.stream(model, scan, tile=16, overlap=4, batch_size=1)), sum(calls)

    parts, ran = run()
    monkeypatch.undo()
    whole, all_tiles = run()
    assert len(parts) > len(whole)
    assert all_tiles < ran <= 1.03 * all_tiles
    for window, probabilities in parts:
        (row,) = [rows for place, rows in whole if place[0] == window[0]]
        np.testing.assert_array_equal(probabilities, row[:, window[1]])


def sparse_or_claimed(shape):
    """Return a scan of which a VRT, or only a header, says that it is so large."""
    return pytest.param(shape, id="x".join(map(str, shape)))


@pytest.mark.parametrize(
    "shape",
    [
        sparse_or_claimed((500_000, 500_000)),
        sparse_or_claimed((8, 2**31 - 1)),
        sparse_or_claimed((2**31 - 1, 8)),
        sparse_or_claimed((2**31 - 1, 2**31 - 1)),
        sparse_or_claimed((30_000, 32_767, 32_767)),
    ],
)
@pytest.mark.parametrize("limit", [None, 4000 * MB])
def test_a_plan_takes_no_longer_for_what_a_header_claims(shape, limit):
    grid = grid_of(shape, 512 if len(shape) == 2 else 96, 128 if len(shape) == 2 else 24)
    begun = time.process_time()
    strips = plan_strips(grid, 0, 3, limit)
    assert time.process_time() - begun < 5  # the longest takes half a second
    covered = sum(math.prod(side.stop - side.start for side in strip[1:]) for strip in strips)
    assert covered == math.prod(shape[1:])


def test_ways_to_cut_are_not_kept():
    tracemalloc.start()
    plan_strips(grid_of((8, 2**31 - 1)), 0, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50 * MB


def test_more_strips_than_any_scan_has_are_refused():
    with pytest.raises(GeometryError, match="expected at most 1000000: check the size"):
        plan_strips(grid_of((2**40,) * 3, 96, 24), 0, 3)


def test_what_a_cut_costs_is_what_its_pieces_cost():
    rng = np.random.default_rng(0)
    cuts = 0
    for _ in range(400):
        kept, size = rng.integers(1, 40), rng.integers(1, 900)
        side = AxisGrid(int(size), int(kept), overlap=int(rng.integers(0, kept)))
        start = int(rng.integers(0, size))
        part = slice(start, int(rng.integers(start + 1, size + 1)))
        for cut in strips_module._even_cuts(side, part, 10_000):
            pieces = list(cut.pieces())
            assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
            assert (pieces[0].start, pieces[-1].stop) == (part.start, part.stop)
            assert cut.tiles() == sum(len(side.touching(piece)) for piece in pieces)
            assert cut.longest() == max(piece.stop - piece.start for piece in pieces)
            cuts += 1
    assert cuts > 2500


@pytest.mark.parametrize("most", [1, 2, 10, 100])
def test_of_many_cuts_some_are_compared(most):
    side = AxisGrid(2**31, 512, overlap=128)
    counts = [cut.count for cut in strips_module._even_cuts(side, slice(0, 2**31), most)]
    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert len(counts) <= 2 * most
    if most > 1:
        assert counts[-1] == side.count
