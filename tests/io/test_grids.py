from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.errors import ScanError
from segfocal.io import MemoryScan, check_same_grid, open_scan

PLACE = Affine(10, 0, 5e5, 0, -10, 4e6)


def scene(path, crs="EPSG:32119", transform=PLACE, shape=(30, 40)):
    with rasterio.open(
        path, "w", driver="GTiff", width=shape[1], height=shape[0], count=1, dtype="uint8",
        crs=crs, transform=transform,
    ) as out:  # fmt: skip
        out.write(np.zeros((1, *shape), np.uint8))
    return open_scan(path)


def volume(path, affine):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine), path)
    return open_scan(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"transform": Affine(10, 0, 5e5 + 5, 0, -10, 4e6)}, "0.5 pixels away"),
        ({"transform": Affine(10.1, 0, 5e5, 0, -10, 4e6)}, "pixels away"),
        ({"shape": (40, 30)}, r"has shape \(40, 30\)"),
    ],
)
def test_scenes_on_other_grids_are_refused(other, message, tmp_path):
    a, b = scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", **other)
    with a, b, pytest.raises(ScanError, match=message):
        check_same_grid(a, b)


def test_rounded_headers_and_missing_georeferences_are_accepted(tmp_path):
    near = Affine(10, 0, 5e5 + 0.005, 0, -10, 4e6)
    a, b = scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", transform=near)
    with a, b, warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same_grid(a, b)
        check_same_grid(MemoryScan(np.zeros((30, 40, 1))), b)


def test_crs_tags_that_differ_alone_are_warned_of(tmp_path):
    a, b = scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", crs="EPSG:3358")
    with a, b, pytest.warns(UserWarning, match="same transform but different CRS tags"):
        check_same_grid(a, b)


def test_a_shifted_volume_is_refused(tmp_path):
    shifted = np.diag([2.0, 2, 2, 1])
    shifted[0, 3] = 1
    with volume(tmp_path / "a.nii", np.diag([2.0, 2, 2, 1])) as a:
        check_same_grid(a, volume(tmp_path / "b.nii", np.diag([2.0, 2, 2, 1])))
        with pytest.raises(ScanError, match=r"0\.5 pixels away"):
            check_same_grid(a, volume(tmp_path / "c.nii", shifted))
