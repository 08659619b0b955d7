"""The sweep over real scans with models whose result is known."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy import ndimage

import segfocal as sf
from segfocal.engine.predictors import CallablePredictor
from segfocal.engine.sweep import sweep
from segfocal.errors import GeometryError, ModelError
from segfocal.tiling import TileGrid

SHAPES = [(1, 1), (7, 8), (8, 8), (9, 8), (17, 23), (31, 5), (2, 3, 5), (9, 8, 17)]


def collect(model, array, valid=None, **options):
    with sf.MemoryScan(array, valid=valid) as scan:
        out, hits = None, np.zeros(scan.shape, int)
        for window, probabilities in sf.stream(model, scan, **options):
            if out is None:
                out = np.empty((*scan.shape, probabilities.shape[-1]), np.float32)
            out[window] = probabilities
            hits[window] += 1
    assert (hits == 1).all(), "windows do not partition the scan"
    return out


def one_hot(batch):
    return np.eye(5, dtype=np.float32)[batch[..., 0].astype(int)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blend", ["gaussian", "hann", "linear", "constant"])
def test_identity_in_identity_out(shape, blend):
    labels = np.random.default_rng(0).integers(0, 5, shape)
    found = collect(
        one_hot, labels[..., None], tile=8, overlap=3, halo=1, blend=blend, batch_size=3
    )
    np.testing.assert_array_equal(found.argmax(-1), labels)
    np.testing.assert_allclose(found, np.eye(5)[labels], atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_in_constant_out(shape):
    def constant(batch):
        return np.full((*batch.shape[:-1], 2), [0.25, 0.75], np.float32)

    found = collect(constant, np.zeros((*shape, 1)), tile=8, overlap=2, halo=1)
    np.testing.assert_allclose(found, np.broadcast_to([0.25, 0.75], found.shape), rtol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("overlap", [0, 2])
def test_a_box_sum_is_exact_at_the_halo_of_its_radius_and_wrong_below(ndim, radius, overlap):
    """Within ``radius`` of a tile's border the sum misses what lies outside the tile."""
    array = np.random.default_rng(0).random((29, 23, 12)[:ndim]).astype(np.float32)

    def box_sum(batch):
        size = (2 * radius + 1,) * ndim
        sums = np.stack(
            [
                ndimage.uniform_filter(tile[..., 0].astype(np.float64), size, mode="constant")
                for tile in batch
            ]
        )
        return sums[..., None].astype(np.float32)

    expected = ndimage.uniform_filter(array.astype(np.float64), 2 * radius + 1, mode="mirror")
    exact = collect(box_sum, array[..., None], tile=12, halo=radius, overlap=overlap)
    np.testing.assert_allclose(exact[..., 0], expected, atol=1e-6)
    short = collect(box_sum, array[..., None], tile=12, halo=radius - 1, overlap=overlap)
    assert np.abs(short[..., 0] - expected).max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_result_does_not_depend_on_the_batch_size(batch_size):
    array = np.random.default_rng(0).random((33, 41, 2)).astype(np.float32)

    def model(batch):
        return np.tanh(batch * [[1.5, -2]])

    expected = collect(model, array, tile=16, overlap=4, batch_size=3)
    found = collect(model, array, tile=16, overlap=4, batch_size=batch_size)
    np.testing.assert_array_equal(found, expected)


def test_every_call_sees_the_same_shape_and_no_tile_is_run_twice():
    shapes, tiles = [], []

    def model(batch):
        shapes.append(batch.shape)
        tiles.extend(tile.tobytes() for tile in batch if tile.any())
        return batch

    array = np.random.default_rng(0).random((50, 50, 1))
    collect(model, array, tile=16, overlap=0, batch_size=3)
    assert set(shapes) == {(3, 16, 16, 1)}
    assert len(tiles) == len(set(tiles)) == 16


def test_tiles_without_a_valid_pixel_are_not_run():
    valid = np.ones((64, 64), bool)
    valid[:, 16:] = False
    ran = []

    def model(batch):
        ran.append(batch.any((1, 2, 3)).sum())
        return np.ones((*batch.shape[:-1], 2), np.float32) / 2

    found = collect(model, np.ones((64, 64, 1)), valid, tile=16, overlap=0, batch_size=1)
    assert sum(ran) == 4
    assert np.isnan(found[:, 16:]).all()
    np.testing.assert_allclose(found[:, :16], 0.5)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_scan_without_any_valid_pixel_is_nan_all_over(batch_size):
    found = collect(
        one_hot, np.ones((300, 20, 1)), np.zeros((300, 20), bool), tile=8, batch_size=batch_size
    )
    assert found.shape == (300, 20, 5)
    assert np.isnan(found).all()


def test_invalid_pixels_are_given_as_zero_and_come_back_as_nan():
    array = np.random.default_rng(0).random((20, 20, 1)).astype(np.float32)
    array[3:6, 4:9] = np.nan
    seen = []

    def model(batch):
        seen.append(np.isfinite(batch).all())
        return batch

    found = collect(model, array, tile=8, overlap=2)
    assert all(seen)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(array))


def test_the_sweep_follows_the_files_slowest_axis():
    array = np.random.default_rng(0).integers(0, 5, (9, 10, 30))
    grid = TileGrid.cover(array.shape, (8, 8, 8), overlap=2)
    scan = sf.MemoryScan(array[..., None])
    scan.slow_axis = 2
    starts = []
    for rows in sweep(scan, CallablePredictor(one_hot), grid):
        assert rows.window[:2] == (slice(0, 9), slice(0, 10))
        starts.append(rows.window[2].start)
        np.testing.assert_array_equal(rows.probabilities.argmax(-1), array[rows.window])
    assert starts == sorted(starts)
    assert len(starts) == grid.counts[2]


def test_progress_counts_every_tile_once_and_can_cancel():
    reports = []
    array = np.zeros((40, 40, 1))
    collect(one_hot, array, tile=16, overlap=0, progress=lambda *now: reports.append(now))
    assert reports[-1] == (9, 9)
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})

    class EnoughError(Exception):
        pass

    def stop(done, total):
        raise EnoughError

    before = threading.active_count()
    with pytest.raises(EnoughError):
        collect(one_hot, array, tile=16, progress=stop)
    assert threading.active_count() == before


def test_an_error_while_reading_reaches_the_caller():
    class Broken(sf.MemoryScan):
        def read(self, window, channels=None):
            if window[0].start > 0:
                raise OSError("the disk is gone")
            return super().read(window, channels)

    scan = Broken(np.zeros((60, 60, 1)))
    with pytest.raises(OSError, match="the disk is gone"):
        list(sf.stream(one_hot, scan, tile=16))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda batch: batch[:, ::2], r"returned shape \(4, 4, 8, 1\) .* expected \(4, 8, 8"),
        (lambda batch: batch + np.inf, "NaN or infinite"),
    ],
)
def test_a_model_that_returns_nonsense_is_told(model, message):
    with pytest.raises(ModelError, match=message):
        collect(model, np.ones((8, 8, 1)), tile=8, overlap=0)


@pytest.mark.parametrize("thing", [3, None, object()])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(ModelError, match="is no model; expected a path, a FocalUNet or a function"):
        sf.stream(thing, sf.MemoryScan(np.zeros((8, 8, 1))))


def test_arguments_are_checked_before_the_first_stretch():
    scan = sf.MemoryScan(np.zeros((8, 8, 1)))
    with pytest.raises(GeometryError, match="batch_size 0"):
        sf.stream(one_hot, scan, batch_size=0)
    with pytest.raises(GeometryError, match="leaves a stride"):
        sf.stream(one_hot, scan, tile=16, overlap=16)
