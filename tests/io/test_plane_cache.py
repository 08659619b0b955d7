"""Compressed volumes are inflated once however many tiles a row has."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import segfocal as sf
from segfocal.io.nifti import VolumeScan
from segfocal.io.plane_cache import PlaneCache
from segfocal.types import full_window

STATUS = Path("/proc/self/io")


def bytes_read() -> int:
    """Return what the process has read from files."""
    return int(STATUS.read_text().split("rchar:")[1].split()[0])


def two_classes(tiles: np.ndarray) -> np.ndarray:
    return np.concatenate([tiles > 500, tiles <= 500], -1).astype(np.float32)


def times_read(path: Path, **options: object) -> float:
    """Return how often the bytes of a file are read in a sweep."""
    sf.predict_array(two_classes, np.zeros((9, 9, 9), np.float32), tile=8)  # modules are read too
    with sf.open_scan(path) as scan:
        before = bytes_read()
        for _ in sf.stream(two_classes, scan, **options):
            pass
    return (bytes_read() - before) / path.stat().st_size


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc to count what is read")
@pytest.mark.parametrize(
    ("flips", "channels", "at_most"),
    [((1, 1, 1), 1, 1.05), ((-1, -1, 1), 1, 1.05), ((1, 1, -1), 1, 3.5), ((1, 1, 1), 2, 3.5)],
)
def test_a_sweep_reads_the_file_once(
    tmp_path: Path, flips: tuple[int, ...], channels: int, at_most: float
) -> None:
    rng = np.random.default_rng(0)
    shape = (160, 160, 400) if channels == 1 else (160, 160, 200, channels)
    voxels = rng.integers(0, 1000, shape).astype(np.int16)
    affine = np.diag([*flips, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    # 25 tiles to a row, which share planes with the next.
    found = times_read(tmp_path / "v.nii.gz", tile=(40, 40, 120), overlap=(4, 4, 20))
    assert 0.95 < found < at_most


def test_a_cache_keeps_what_the_largest_read_took() -> None:
    loaded: list[int] = []

    def load(channel: int, planes: range) -> np.ndarray:
        loaded.extend(planes)
        return np.broadcast_to(np.array(planes), (2, 2, len(planes)))

    cache = PlaneCache(10, load, limit=45)
    assert not cache.has_room(5)
    assert cache.has_room(3)
    for first in (0, 0, 2, 2, 1, 5):
        planes = range(first, first + 3)
        assert [int(plane[0, 0]) for plane in cache.get(0, planes)] == list(planes)
    assert loaded == [0, 1, 2, 3, 4, 1, 5, 6, 7]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("slope", [1, 0.3])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.mgz", "two.nii.gz", "back.nii.gz"])
def test_planes_that_are_kept_are_the_files(
    tmp_path: Path, name: str, slope: float, order: str
) -> None:
    two, back = name.startswith("two"), name.startswith("back")
    voxels = np.random.default_rng(0).integers(0, 99, (7, 9, 11, 2)).astype(np.int16)
    voxels = voxels if two else voxels[..., 0]
    affine = np.diag([1.0, -1, -1 if back else 1, 1])
    if name.endswith("mgz"):
        nib.save(nib.MGHImage(voxels, affine), tmp_path / name)
    else:
        image = nib.Nifti1Image(voxels, affine, nib.Nifti1Header(endianness=order))
        image.header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
        image.header.set_slope_inter(slope, 2)
        nib.save(image, tmp_path / name)
    with VolumeScan(tmp_path / name, "RAS") as plain:
        expected = plain.read(full_window(plain.shape)).values.copy()
    with VolumeScan(tmp_path / name, "RAS") as scan:
        scan.remember_planes()
        rng = np.random.default_rng(1)
        for _ in range(50):
            ends = [np.sort(rng.integers(0, side, 2)) for side in scan.shape]
            window = tuple(slice(int(a), int(b) + 1) for a, b in ends)
            chosen = [[0], [1], [1, 0]][rng.integers(3) if two else 0]
            patch = scan.read(window, chosen)
            np.testing.assert_array_equal(patch.values, expected[window][..., chosen])
        patch = scan.read(full_window(scan.shape))
        patch.values[:] = 0  # the caller's
        np.testing.assert_array_equal(scan.read(full_window(scan.shape)).values, expected)
