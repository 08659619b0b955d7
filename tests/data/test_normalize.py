"""Normalization by a scan's own numbers, against numpy on the whole array."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import segfocal as sf
from segfocal.card import Normalization
from segfocal.data import normalize
from segfocal.data.normalize import measure_normalization
from segfocal.types import full_window

ZSCORE = Normalization(method="zscore")
PERCENTILE = Normalization(method="percentile", low=2, high=90)
WINDOW = Normalization(method="window", low=-160, high=240)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize, "_PART_PIXELS", 300)
    monkeypatch.setattr(normalize, "_PART_ROWS", 8)


def mr(dtype: str = "float32", shape: tuple[int, ...] = (20, 21, 22)) -> np.ndarray:
    """Something like an MR scan: background of zeros, tissue far from 0."""
    rng = np.random.default_rng(0)
    array = rng.normal(900, 200, shape)
    array[:7] = 0
    return array.astype(dtype)


def normalized(array: np.ndarray, *wanted: Normalization | None, **options: object) -> np.ndarray:
    with sf.MemoryScan(array.reshape(*array.shape[:3], -1), **options) as scan:
        found = measure_normalization(scan, wanted)
        return found(scan.read(full_window(scan.shape)).values)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
def test_zscore_is_of_what_is_not_zero_and_zero_stays(dtype: str) -> None:
    array = mr(dtype)
    inside = array[array != 0].astype(np.float64)
    expected = np.where(array == 0, 0, (array - inside.mean()) / inside.std())
    np.testing.assert_allclose(normalized(array, ZSCORE)[..., 0], expected, atol=2e-6)
    everywhere = Normalization(method="zscore", region="valid")
    whole = array.astype(np.float64)
    np.testing.assert_allclose(
        normalized(array, everywhere)[..., 0], (whole - whole.mean()) / whole.std(), atol=2e-6
    )


def test_a_mean_far_from_zero_keeps_its_spread() -> None:
    array = (1e6 + np.random.default_rng(0).normal(0, 1, (30, 30, 10))).astype(np.float64)
    found = normalized(array.astype(np.float32), ZSCORE)
    assert abs(found.std() - 1) < 1e-3


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16"])
@pytest.mark.parametrize("region", ["nonzero", "valid"])
def test_percentiles_of_small_integers_are_numpys(dtype: str, region: str) -> None:
    array = (mr("float64") / (1 if dtype[-2:] == "16" else 12) - 3).astype(dtype)
    wanted = PERCENTILE.model_copy(update={"region": region})
    with sf.MemoryScan(array[..., None]) as scan:
        found = measure_normalization(scan, [wanted])
    counted = array[array != 0] if region == "nonzero" else array
    low, high = np.percentile(counted, [2, 90])
    assert (found.shift[0], found.shift[0] + found.span[0]) == pytest.approx((low, high), abs=1e-9)
    expected = np.clip((array.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found(array[..., None])[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("scale", [1e-3, 1, 1.7e3, -2e3])
def test_percentiles_of_other_numbers_are_close(dtype: str, scale: float) -> None:
    array = (mr("float64") * scale * (1e2 if dtype == "int32" else 1)).astype(dtype)
    array = np.concatenate([array, -array[:3] / 7], axis=0) if dtype == "float32" else array
    with sf.MemoryScan(array[..., None]) as scan:
        found = measure_normalization(scan, [PERCENTILE])
    low, high = np.percentile(array[array != 0].astype(np.float64), [2, 90])
    assert found.shift[0] == pytest.approx(low, rel=1 / 4096 + 1e-3)
    assert found.shift[0] + found.span[0] == pytest.approx(high, rel=1 / 4096 + 1e-3)


def test_a_window_is_not_measured() -> None:
    class Untouched(sf.MemoryScan):
        def read(self, *_: object, **__: object) -> object:
            raise AssertionError("read")

    array = np.array([-1000, -160, 40, 240, 3000], np.int16).reshape(5, 1, 1, 1)
    found = measure_normalization(Untouched(array), [WINDOW])
    assert found(array).ravel().tolist() == [0, 0, 0.5, 1, 1]


def test_each_channel_has_its_own_and_what_is_not_valid_does_not_count() -> None:
    array = np.stack([mr(), mr() * 3 + 5, mr() - 7], -1)
    valid = np.ones(array.shape, bool)
    valid[9:12, :, :, 1] = False
    array[9:12, :, :, 1] = np.nan
    with sf.MemoryScan(array, valid=valid) as scan:
        found = measure_normalization(scan, [PERCENTILE, None, ZSCORE], [1, 0, 2])
    values = found(array[..., [1, 0, 2]])
    counted = array[..., 1][valid[..., 1] & (array[..., 1] != 0)]
    assert found.shift[0] == pytest.approx(np.percentile(counted, 2), rel=1e-3)
    np.testing.assert_array_equal(values[..., 1], array[..., 0])
    assert values[..., 2][array[..., 2] != 0].mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wanted", [ZSCORE, PERCENTILE])
@pytest.mark.parametrize("fill", [0, 7])
def test_a_scan_of_one_value_becomes_zero(wanted: Normalization, fill: int) -> None:
    found = normalized(np.full((5, 6, 7), fill, np.float32), wanted)
    assert (found == 0).all()


@pytest.mark.parametrize("shape", [(3, 1000), (1000, 3), (70, 90)])
def test_the_parts_of_a_scene_cover_it_once(shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).integers(1, 200, (*shape, 2)).astype(np.uint8)
    with sf.MemoryScan(array) as scan:
        windows = list(normalize._parts(scan))
        found = measure_normalization(scan, [ZSCORE, ZSCORE])
    seen = np.zeros(shape, int)
    for window in windows:
        seen[window] += 1
        assert seen[window].size <= 8 * 300
    assert (seen == 1).all()
    np.testing.assert_allclose(found.shift, array.reshape(-1, 2).mean(0))
    np.testing.assert_allclose(found.span, array.reshape(-1, 2).std(0))


def test_the_file_is_read_in_its_order(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(mr("int16"), np.eye(4)[[1, 2, 0, 3]]), tmp_path / "v.nii.gz")
    with sf.open_scan(tmp_path / "v.nii.gz") as scan:
        starts = [window[scan.slow_axis].start for window in normalize._parts(scan)]
        assert scan.slow_axis == 1
        assert starts == sorted(set(starts))
        found = measure_normalization(scan, [ZSCORE])
    counted = mr("int16")[mr("int16") != 0]
    np.testing.assert_allclose((found.shift[0], found.span[0]), (counted.mean(), counted.std()))
