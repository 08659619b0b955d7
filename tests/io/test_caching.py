"""Blocks that are kept: the same pixels, decoded once, within a size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from segfocal.io import MemoryScan
from segfocal.io import caching as module
from segfocal.io.caching import BlockCache, CachedScan


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(module, "SCENE_SIDE", 16)
    monkeypatch.setattr(module, "VOLUME_PIXELS", 700)


def made(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 1000, shape).astype(np.int16), rng.random(shape) < 0.9


def windows(shape: tuple[int, ...], count: int) -> list[tuple[slice, ...]]:
    rng = np.random.default_rng(1)
    ends = [np.sort(rng.integers(0, side + 1, (count, 2)), axis=1) for side in shape]
    return [tuple(slice(int(axis[i, 0]), int(axis[i, 1])) for axis in ends) for i in range(count)]


class Counting:
    """A scan that counts how many pixels are read of it."""

    def __init__(self, scan):
        self.scan, self.pixels = scan, 0

    def __getattr__(self, name):
        return getattr(self.scan, name)

    def read(self, window, channels=None):
        patch = self.scan.read(window, channels)
        self.pixels += patch.values[..., 0].size
        return patch


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("limit", [1, 5000, 10**9])
@pytest.mark.parametrize("shape", [(50, 37, 3), (14, 15, 33, 2)])
def test_windows_are_those_of_the_scan(shape, limit, on_disk, tmp_path):
    values, valid = made(shape)
    scan = MemoryScan(values, valid=valid)
    cache = BlockCache(limit, tmp_path if on_disk else None)
    kept = CachedScan(MemoryScan(values, valid=valid), cache, "a")
    for number, window in enumerate(windows(shape[:-1], 30)):
        channels = [None, [1], [1, 0]][number % 3]
        expected, found = scan.read(window, channels), kept.read(window, channels)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.valid, expected.valid)
        assert found.values.dtype == np.int16
        assert cache.bytes <= limit
    cache.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_block_that_is_kept_is_read_once(on_disk, tmp_path):
    values, valid = made((50, 37, 3))
    scan = Counting(MemoryScan(values, valid=valid))
    cache = BlockCache(10**9, tmp_path if on_disk else None)
    kept = CachedScan(scan, cache, "a")
    for _ in range(3):
        kept.read((slice(0, 50), slice(0, 37)))
        kept.read((slice(3, 20), slice(30, 37)))
    assert scan.pixels == 50 * 37
    assert cache.bytes == values.nbytes + valid.nbytes
    cache.close()


def test_the_blocks_used_last_stay():
    values = made((64, 64, 1))[0]
    scan = Counting(MemoryScan(values))
    cache = BlockCache(4 * 16 * 16 * 2)  # four blocks
    kept = CachedScan(scan, cache, "a")

    def read(i):
        before = scan.pixels
        kept.read((slice(0, 16), slice(16 * i, 16 * i + 16)))
        return scan.pixels > before

    assert [read(i) for i in (0, 1, 2, 3, 0)] == [True, True, True, True, False]
    kept.read((slice(16, 32), slice(0, 16)))  # a fifth: block 1 goes
    assert [read(i) for i in (0, 2, 3, 1)] == [False, False, False, True]


def test_scans_do_not_mix_and_what_was_returned_may_be_changed():
    first, second = made((20, 20, 1))[0], made((20, 20, 1))[0] + 1
    cache = BlockCache(10**9)
    window = (slice(2, 18), slice(0, 20))
    scans = [CachedScan(MemoryScan(array), cache, key) for key, array in enumerate((first, second))]
    for _ in range(2):
        for scan, array in zip(scans, (first, second), strict=True):
            patch = scan.read(window)
            np.testing.assert_array_equal(patch.values, array[window])
            patch.values[:] = -1


def test_a_file_that_was_removed_is_read_again(tmp_path):
    values = made((20, 20, 1))[0]
    cache = BlockCache(10**9, tmp_path)
    scan = CachedScan(MemoryScan(values), cache, "a")
    window = (slice(0, 20), slice(0, 20))
    scan.read(window)
    (folder,) = tmp_path.iterdir()
    for file in folder.iterdir():
        file.unlink()
    np.testing.assert_array_equal(scan.read(window).values, values)
    cache.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_may_share_a_cache(on_disk, tmp_path):
    values, valid = made((50, 37, 3))
    cache = BlockCache(6000, tmp_path if on_disk else None)
    scan = CachedScan(MemoryScan(values, valid=valid), cache, "a")
    plain = MemoryScan(values, valid=valid)

    def same(window):
        found, expected = scan.read(window), plain.read(window)
        return np.array_equal(found.values, expected.values) and np.array_equal(
            found.valid, expected.valid
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(same, windows((50, 37), 150)))
    assert cache.bytes <= 6000
    cache.close()


def test_a_closed_scan_reads_no_more():
    scan = CachedScan(MemoryScan(made((8, 8, 1))[0]), BlockCache(10**6), "a")
    window = (slice(0, 8), slice(0, 8))
    scan.read(window)
    scan.close()
    with pytest.raises(ValueError, match="closed"):
        scan.read(window)
