"""One contract over every scan: what base.py promises, against arrays read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from segfocal.io import MemoryScan, Scan, crop, open_scan
from segfocal.io.described import DescribedScan
from segfocal.io.nearest import NearestScan
from segfocal.io.resampling import ResampledScan
from segfocal.types import full_window

CHANNELS = 3
FILES = ("tif", "tif-south-up", "vrt", "nii", "nii.gz", "nii-LPS")
SEEN_AS = ("memory-cropped", "tif-cropped", "nii-cropped", "memory-resampled")
DESCRIBED = ("described-tif", "nearest-tif", "nearest-nii")
KINDS = ("memory-2d", "memory-3d", *FILES, *SEEN_AS, *DESCRIBED)


def oracle(shape: tuple[int, ...]) -> np.ndarray:
    """Floats with an identity per pixel and some NaN."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    values[np.random.default_rng(1).random(shape) < 0.1] = np.nan
    return values


def seen_as(
    kind: str, write_tif: Callable[..., Path], write_nii: Callable[..., Path]
) -> tuple[Scan, np.ndarray]:
    """Scans that show another: a part of it, or one at twice the resolution."""
    if kind == "memory-resampled":
        # The nearest pixel along two axes that are as they are, and along one by halves.
        values = oracle((12, 13, 17, CHANNELS))
        scan = ResampledScan(MemoryScan(values, resolution=(8.0, 1.0, 1.0)), (4.0, 1.0, 1.0))
        return scan, values.repeat(2, 0)
    values = oracle((37, 53, CHANNELS) if kind.startswith("tif") else (11, 13, 17, CHANNELS))
    if kind.startswith("tif"):
        scene: Scan = open_scan(write_tif(np.moveaxis(values, -1, 0)))
    elif kind.startswith("nii"):
        scene = open_scan(write_nii(values))
    else:
        scene = MemoryScan(values, resolution=(2.0,) * 3)
    region = tuple(slice(1 + axis, length - 2) for axis, length in enumerate(scene.shape))
    return crop(scene, region), values[region]


@pytest.fixture(params=KINDS)
def case(
    request: pytest.FixtureRequest, write_tif: Callable[..., Path], write_nii: Callable[..., Path]
) -> Iterator[tuple[Scan, np.ndarray]]:
    kind = request.param
    if kind in SEEN_AS:
        yield seen_as(kind, write_tif, write_nii)
        return
    values = oracle((37, 53, CHANNELS) if "tif" in kind else (11, 13, 17, CHANNELS))
    if kind == "vrt":
        values = oracle((37, 53, CHANNELS))
    expected = values
    if kind.startswith("memory"):
        values = values[0] if kind == "memory-2d" else values
        scan: Scan = MemoryScan(values, resolution=(2.0,) * (values.ndim - 1))
        expected = values
    elif kind == "tif":
        scan = open_scan(write_tif(np.moveaxis(values, -1, 0)))
    elif kind == "described-tif":
        source = open_scan(write_tif(np.moveaxis((values - 3) / 2, -1, 0)))
        scan = DescribedScan(source, scale={"*": 2.0}, offset={"*": 3.0}, nodata={})
    elif kind == "nearest-tif":
        source = open_scan(write_tif(np.moveaxis(values, -1, 0)))
        scan = NearestScan(source, source)
    elif kind == "nearest-nii":
        source = open_scan(write_nii(values, "volume.nii"))
        scan = NearestScan(source, source)
    elif kind == "vrt":
        path = write_tif(np.moveaxis(values, -1, 0))
        rasterio.shutil.copy(path, path.with_suffix(".vrt"), driver="VRT")
        scan = open_scan(path.with_suffix(".vrt"))
    elif kind == "tif-south-up":
        south_up = rasterio.Affine(10, 0, 500000, 0, 10, 3990000)
        scan = open_scan(write_tif(np.moveaxis(values, -1, 0)[:, ::-1], transform=south_up))
    elif kind == "nii-LPS":
        scan = open_scan(write_nii(values[::-1, ::-1]), orientation="LPS")
    else:
        scan = open_scan(write_nii(values, f"volume.{kind}"))
    with scan:
        yield scan, expected


def test_is_a_scan_with_consistent_description(case: tuple[Scan, np.ndarray]) -> None:
    scan, expected = case
    assert isinstance(scan, Scan)
    assert scan.shape == expected.shape[:-1]
    assert scan.dtype == np.float32
    assert len(scan.channels) == len(set(scan.channels)) == CHANNELS
    assert not scan.channels_are_named
    assert 0 <= scan.slow_axis < len(scan.shape)
    assert scan.resolution is not None
    assert len(scan.resolution) == len(scan.shape)
    assert min(scan.resolution) > 0


def test_windows_equal_the_whole_array(case: tuple[Scan, np.ndarray]) -> None:
    scan, expected = case
    rng = np.random.default_rng(0)
    windows = [full_window(scan.shape)]
    for _ in range(25):
        ends = [sorted(rng.integers(0, length + 1, 2)) for length in scan.shape]
        windows.append(tuple(slice(int(a), int(b)) for a, b in ends))
    for window in windows:
        patch = scan.read(window)
        truth = expected[window]
        assert patch.values.dtype == np.float32
        assert patch.valid.dtype == np.bool_
        np.testing.assert_array_equal(patch.valid, ~np.isnan(truth))
        np.testing.assert_array_equal(patch.values[patch.valid], truth[patch.valid])


@pytest.mark.parametrize("channels", [[2], [2, 0], [1, 1], [0, 1, 2], []])
def test_channels_come_in_the_order_asked_for(
    case: tuple[Scan, np.ndarray], channels: list[int]
) -> None:
    scan, expected = case
    window = tuple(slice(1, length - 1) for length in scan.shape)
    patch = scan.read(window, channels)
    truth = expected[window][..., channels]
    np.testing.assert_array_equal(patch.valid, ~np.isnan(truth))
    np.testing.assert_array_equal(patch.values[patch.valid], truth[patch.valid])


@pytest.mark.parametrize("axis", [0, -1])
def test_an_empty_window_is_an_empty_patch(case: tuple[Scan, np.ndarray], axis: int) -> None:
    scan, _ = case
    window = [slice(0, 2)] * len(scan.shape)
    window[axis] = slice(3, 3)
    patch = scan.read(tuple(window))
    sides = [2] * len(scan.shape)
    sides[axis] = 0
    assert patch.values.shape == patch.valid.shape == (*sides, CHANNELS)


@pytest.mark.parametrize(
    "bad", [slice(-1, 2), slice(0, 10**6), slice(3, 2), slice(0, 4, 2), slice(None, 2)]
)
def test_a_window_outside_is_refused(case: tuple[Scan, np.ndarray], bad: slice) -> None:
    scan, _ = case
    window = (*(slice(0, 2) for _ in scan.shape[1:]), bad)
    with pytest.raises(ValueError, match="not inside a scan"):
        scan.read(window)
    with pytest.raises(ValueError, match="not inside a scan"):
        scan.read(window[:1])


@pytest.mark.parametrize("channel", [-1, CHANNELS])
def test_an_unknown_channel_is_refused(case: tuple[Scan, np.ndarray], channel: int) -> None:
    scan, _ = case
    with pytest.raises(ValueError, match=f"channel {channel} .* expected 0 to 2"):
        scan.read(full_window(scan.shape), [channel])


def test_a_closed_scan_refuses_to_read(case: tuple[Scan, np.ndarray]) -> None:
    scan, _ = case
    with scan as same:
        assert same is scan
    scan.close()
    with pytest.raises(ValueError, match="closed"):
        scan.read(full_window(scan.shape))


def test_threads_may_read_together(case: tuple[Scan, np.ndarray]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    scan, expected = case
    windows = [
        (slice(i % 5, i % 5 + 4), *(slice(0, length) for length in scan.shape[1:]))
        for i in range(40)
    ]
    with ThreadPoolExecutor(4) as pool:
        for window, patch in zip(windows, pool.map(scan.read, windows), strict=True):
            np.testing.assert_array_equal(patch.values[patch.valid], expected[window][patch.valid])


def test_what_a_read_returns_is_the_callers() -> None:
    array = np.zeros((4, 5, 2), dtype=np.uint8)
    valid = np.ones((4, 5), dtype=bool)
    scan = MemoryScan(array, valid=valid)
    patch = scan.read(full_window(scan.shape))
    patch.values[:] = 7
    patch.valid[:] = False
    assert not array.any()
    assert valid.all()
