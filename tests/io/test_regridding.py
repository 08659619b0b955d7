"""Modalities of one patient on different grids, against SimpleITK's resampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io import Scan, open_scan
from segfocal.types import full_window

RNG = np.random.default_rng(5)


def turned(angle: float, spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    """An oblique affine: a rotation about two axes."""
    c, s = np.cos(angle), np.sin(angle)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = about_x @ about_z @ np.diag(spacing), origin
    return affine


def write(
    path: Path, array: np.ndarray, affine: np.ndarray, stored: str = "RAS", unit: str = "mm"
) -> Path:
    image = nib.Nifti1Image(array, affine)
    image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(stored)))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def opened_with_warning(*paths: Path, orientation: str = "RAS") -> Scan:
    with pytest.warns(SegfocalWarning, match=f"{paths[-1].name}: is resampled to the grid of"):
        return open_scan(paths, orientation=orientation)


def by_itk(moving: Path, reference: Path, stored_as: str) -> np.ndarray:
    """Resample with SimpleITK; NaN outside; in the orientation asked for."""
    itk = pytest.importorskip("SimpleITK")
    found = itk.Resample(
        itk.Cast(itk.ReadImage(str(moving)), itk.sitkFloat64),
        itk.ReadImage(str(reference)),
        itk.Transform(3, itk.sitkIdentity),
        itk.sitkLinear,
        float("nan"),
    )
    array = itk.GetArrayFromImage(found).transpose(2, 1, 0)
    affine = nib.load(reference).affine
    image = nib.Nifti1Image(array, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(stored_as))
    return np.asarray(image.as_reoriented(turn).dataobj)


@pytest.mark.parametrize(
    ("orientation", "stored"), [("RAS", "RAS"), ("LPS", "PIR"), ("SAL", "LAS")]
)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_values_are_those_of_itk(tmp_path: Path, orientation: str, stored: str, dtype: str) -> None:
    ct = write(
        tmp_path / "ct.nii.gz",
        np.zeros((30, 26, 20), np.int16),
        turned(0.2, (1, 1, 2), (-12, 5, 30)),
        "LPS",
    )
    smooth = RNG.normal(0, 300, (11, 12, 14)).astype(dtype)
    pet = write(tmp_path / "pet.nii.gz", smooth, turned(-0.1, (2.5, 2, 3), (-8, 2, 32)), stored)
    expected = by_itk(pet, ct, orientation)
    with opened_with_warning(ct, pet, orientation=orientation) as scan:
        assert scan.channels == ("ct", "pet")
        whole = scan.read(full_window(scan.shape), [1])
        found = np.where(whole.valid, whole.values, np.nan)[..., 0]
        outside = np.isnan(expected)
        assert 0.1 < outside.mean() < 0.9
        np.testing.assert_array_equal(np.isnan(found), outside)
        np.testing.assert_allclose(found, expected, atol=2e-3)  # float32 of 300, headers rounded
        for _ in range(20):  # whatever the window
            ends = [np.sort(RNG.integers(0, side, 2)) for side in scan.shape]
            window = tuple(slice(int(a), int(b) + 1) for a, b in ends)
            patch = scan.read(window, [1, 0])
            np.testing.assert_array_equal(patch.valid[..., 0], whole.valid[window][..., 0])
            np.testing.assert_allclose(
                np.where(patch.valid, patch.values, 0)[..., 0],
                np.nan_to_num(found[window]),
                atol=1e-3,
            )


def test_what_is_not_valid_does_not_leak(tmp_path: Path) -> None:
    ct = write(tmp_path / "ct.nii", np.zeros((20, 20, 20), np.int16), np.eye(4))
    values = np.full((10, 10, 10), 7, np.float32)
    values[4:6, 3:8, 2:5] = np.nan
    grid = np.diag([2.0, 2, 2, 1])
    grid[:3, 3] = 0.5
    with opened_with_warning(ct, write(tmp_path / "pet.nii", values, grid)) as scan:
        patch = scan.read(full_window(scan.shape), [1])
    assert not patch.valid[8:12, 6:16, 4:10].any()
    assert patch.valid.mean() > 0.9
    assert (patch.values[patch.valid] == 7).all()


def test_the_same_grid_stored_otherwise_is_read_as_it_is(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (5, 6, 7)).astype(np.int16)
    affine = turned(0.3, (1, 2, 3), (4, 5, 6))
    paths = [
        write(tmp_path / f"{stored}.nii.gz", array, affine, stored) for stored in ("RAS", "PIL")
    ]
    with warnings.catch_warnings(action="error"), open_scan(paths) as scan:
        values = scan.read(full_window(scan.shape)).values
    assert values.dtype == np.int16
    np.testing.assert_array_equal(values[..., 0], values[..., 1])


def test_units_of_the_two_files_may_differ(tmp_path: Path) -> None:
    array = RNG.random((6, 6, 6)).astype(np.float32)
    coarse = np.diag([2.0, 2, 2, 1])
    ct = write(tmp_path / "ct.nii", np.zeros((12, 12, 12), np.uint8), np.eye(4))
    in_mm = write(tmp_path / "mm.nii", array, coarse)
    in_microns = write(
        tmp_path / "um.nii", array, coarse * [[1000], [1000], [1000], [1]], unit="micron"
    )
    found = []
    for path in (in_mm, in_microns):
        with opened_with_warning(ct, path) as scan:
            found.append(scan.read(full_window(scan.shape), [1]).values)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_modalities_that_do_not_touch_are_refused(
    tmp_path: Path, write_nii: Callable[..., Path]
) -> None:
    first = write(tmp_path / "a.nii", np.zeros((10, 10, 10), np.int16), np.eye(4))
    shift = np.eye(4)
    shift[0, 3] = 10
    second = write(tmp_path / "b.nii", np.zeros((10, 10, 10), np.int16), shift)
    message = r"b\.nii: lies at \(10, 0, 0\) mm to \(19, 9, 9\) mm, .* expected modalities"
    with pytest.raises(ScanError, match=message):
        open_scan([first, second])
    # Boxes along the axes of the one overlap, and along those of the other do not.
    corner = turned(np.pi / 4, (1, 1, 1), (24, 3, 3))
    corner[:3, :3] = [[0.7071, -0.7071, 0], [0.7071, 0.7071, 0], [0, 0, 1]]
    corner[:3, 3] = [13.5, 8, 0]
    third = write(tmp_path / "c.nii", np.zeros((10, 10, 10), np.int16), corner)
    with pytest.raises(ScanError, match=r"c\.nii: lies at"):
        open_scan([first, third])


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_what_lies_outside_is_told(tmp_path: Path, angle: float) -> None:
    grid = write(tmp_path / "a.nii", RNG.normal(size=(30, 70, 20)), np.diag([1.0, 1, 2, 1]))
    other = turned(angle, (1.5, 2, 1), (4, 30, 5))
    write(tmp_path / "b.nii", RNG.normal(size=(12, 30, 18)), other)
    with pytest.warns(SegfocalWarning) as told, open_scan([grid, tmp_path / "b.nii"]) as scan:
        share = 1 - scan.read(full_window(scan.shape)).valid[..., 1].mean()
    (message,) = {str(warning.message) for warning in told}
    stated = float(message.split("about ")[1].split("%")[0]) / 100
    assert stated == pytest.approx(share, abs=0.03)
