"""A predictor that may run in any thread works on a batch while the one before is blended."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from segfocal.engine.sweep import sweep
from segfocal.errors import ModelError
from segfocal.io.memory import MemoryScan
from segfocal.tiling import TileGrid

CLASSES = 3


class Numbered:
    """Probabilities that follow from the values alone, so that order and place show."""

    card, ndim, output_stride, hash, engine = None, None, 1, None, "numpy"
    tile_by_tile = True

    def __init__(self, any_thread):
        self.any_thread = any_thread
        self.threads: list[str] = []
        self.started = [threading.Event() for _ in range(100)]

    def __call__(self, values, valid):
        self.started[len(self.threads)].set()
        self.threads.append(threading.current_thread().name)
        phase = values * np.arange(1, CLASSES + 1, dtype=np.float32)
        found = 1.5 + np.sin(phase)
        return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def swept(predictor, scan, **options):
    """Return everything that a sweep gives out, and the threads that were left over."""
    grid = TileGrid.cover(scan.shape, (16,) * len(scan.shape), overlap=5, halo=1)
    before = threading.active_count()
    rows = list(sweep(scan, predictor, grid, batch_size=3, **options))
    assert threading.active_count() == before
    return rows


@pytest.mark.parametrize("shape", [(5, 7), (16, 16), (61, 47), (200, 20), (20, 18, 33)])
def test_the_bits_are_those_of_one_thread(shape):
    rng = np.random.default_rng(0)
    valid = rng.random(shape) > 0.1
    valid[: shape[0] // 2, : shape[1] // 3] = False  # tiles that are not run
    scan = MemoryScan(rng.normal(size=(*shape, 1)), valid=valid)
    alone, beside = Numbered(False), Numbered(True)
    expected, found = swept(alone, scan), swept(beside, scan)
    assert [one.window for one in found] == [one.window for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.valid, other.valid)
    assert len(beside.threads) == len(alone.threads)
    assert {*alone.threads} == {threading.main_thread().name}
    assert threading.main_thread().name not in beside.threads


def test_the_next_batch_is_begun_before_the_rows_of_the_last_are_used():
    predictor = Numbered(True)
    scan = MemoryScan(np.zeros((120, 16, 1)))
    grid = TileGrid.cover(scan.shape, (16,) * len(scan.shape), overlap=0)
    rows = sweep(scan, predictor, grid, batch_size=1)
    next(rows)  # two tiles are blended: a row is known to be complete when the next begins
    assert predictor.started[2].wait(10), "the network waits while rows are written"
    rows.close()


@pytest.mark.parametrize("call", [0, 1, 4])
def test_an_error_of_the_predictor_reaches_the_caller(call):
    class Nonsense(Numbered):
        def __call__(self, values, valid):
            found = super().__call__(values, valid)
            return found * (np.nan if len(self.threads) > call else 1)

    before = threading.active_count()
    scan = MemoryScan(np.ones((90, 90, 1)))
    with pytest.raises(ModelError, match="NaN or infinite"):
        swept(Nonsense(True), scan)
    assert threading.active_count() == before


def test_a_batch_that_does_not_fit_is_halved():
    class Small(Numbered):
        def __call__(self, values, valid):
            if len(values) > 1:
                raise MemoryError
            return super().__call__(values, valid)

    scan = MemoryScan(np.random.default_rng(0).normal(size=(50, 50, 1)))
    found, expected = swept(Small(True), scan), swept(Numbered(False), scan)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_sweep_that_is_left_early_leaves_no_thread():
    before = threading.active_count()
    rows = sweep(
        MemoryScan(np.zeros((300, 40, 1))),
        Numbered(True),
        TileGrid.cover((300, 40), (16, 16), overlap=4),
        batch_size=2,
    )
    next(rows)
    assert threading.active_count() > before
    rows.close()
    assert threading.active_count() == before


def test_a_scan_without_any_valid_pixel_is_swept():
    scan = MemoryScan(np.zeros((40, 40, 1)), valid=np.zeros((40, 40), bool))
    rows = swept(Numbered(True), scan)
    assert sum(one.window[0].stop - one.window[0].start for one in rows) == 40
    assert not any(one.valid.any() for one in rows)


def test_left_early_while_the_network_works_no_further_batch_is_begun():
    go = threading.Event()

    class Slow(Numbered):
        def __call__(self, values, valid):
            found = super().__call__(values, valid)
            if len(self.threads) > 1:
                go.wait(10)
            return found

    class EnoughError(Exception):
        pass

    def stop(done, total):
        threading.Timer(0.2, go.set).start()
        raise EnoughError

    predictor = Slow(True)
    with pytest.raises(EnoughError):
        swept(predictor, MemoryScan(np.zeros((300, 40, 1))), progress=stop)
    assert len(predictor.threads) == 2


def test_classes_are_asked_for_when_the_network_is_free():
    """Of a first batch without a valid pixel, while the second is being run."""
    busy = threading.Lock()

    class OneAtATime(Numbered):
        def __call__(self, values, valid):
            assert busy.acquire(blocking=False), "two calls at once"
            try:
                time.sleep(0.05)
                return super().__call__(values, valid)
            finally:
                busy.release()

    valid = np.ones((70 * 16, 16), bool)
    valid[: 64 * 16] = False  # as many tiles as a batch holds at most
    scan = MemoryScan(np.ones((70 * 16, 16, 1)), valid=valid)
    grid = TileGrid.cover(scan.shape, (16, 16), overlap=0)
    rows = list(sweep(scan, OneAtATime(True), grid, batch_size=1))
    assert sum(one.valid.sum() for one in rows) == 6 * 16 * 16
