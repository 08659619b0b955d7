"""Labels on a resampled grid: the nearest pixel's, as SimpleITK and GDAL find it.

Lengths of the files are odd, so that no new centre lies on a border between two old pixels.
"""

from __future__ import annotations

from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
import rasterio
import SimpleITK
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from test_sampling import dataset, write_scene  # noqa: F401

from segfocal.data.reading import open_regions
from segfocal.types import full_window


def nearest_of_simpleitk(labels, spacing, shape):
    """Resample an array over the same extent; arrays of SimpleITK have their axes reversed."""
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing(spacing[::-1])
    sides = [s * old / new for s, old, new in zip(spacing, labels.shape, shape, strict=True)]
    grid = SimpleITK.ResampleImageFilter()
    grid.SetInterpolator(SimpleITK.sitkNearestNeighbor)
    grid.SetSize(shape[::-1])
    grid.SetOutputSpacing(sides[::-1])
    # Both grids begin at the same border: centres of first pixels lie apart.
    shift = [(new - old) / 2 for new, old in zip(sides, spacing, strict=True)]
    grid.SetOutputOrigin(shift[::-1])
    return SimpleITK.GetArrayFromImage(grid.Execute(image))


@pytest.mark.parametrize("resolution", [(1.0, 1.0, 1.0), (0.7, 1.9, 4.3), (3.1, 0.9, 2.0)])
def test_labels_of_volumes_are_those_of_simpleitk(tmp_path, dataset, resolution):  # noqa: F811
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (21, 17, 13)).astype("uint8")
    spacing = (2.0, 1.5, 3.0)
    affine = np.diag([*spacing, 1.0])
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    nib.save(nib.Nifti1Image(labels.astype("float32"), affine), tmp_path / "a.nii.gz")
    with ExitStack() as stack:
        (reader,) = open_regions(dataset(ndim=3), "train", stack, resolution=resolution)
        assert reader.shape != labels.shape
        found = reader.read_labels(full_window(reader.shape))
        part = tuple(slice(length // 3, length - 1) for length in reader.shape)
        _, _, of_part = reader.read(part)
    expected = nearest_of_simpleitk(labels, spacing, reader.shape)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(of_part, expected[part])


@pytest.mark.parametrize("resolution", [(4.0, 4.0), (13.0, 7.0), (29.0, 31.0)])
def test_labels_of_scenes_are_those_of_gdal(tmp_path, dataset, resolution):  # noqa: F811
    labels = np.random.default_rng(1).integers(0, 3, (63, 47)).astype("uint8")
    write_scene(tmp_path / "labels.tif", labels)
    write_scene(tmp_path / "a.tif", labels.astype("float32"))
    with ExitStack() as stack:
        (reader,) = open_regions(dataset(), "train", stack, resolution=resolution)
        found = reader.read_labels(full_window(reader.shape))
    rows, cols = reader.shape
    expected = np.full((rows, cols), 9, "uint8")
    with rasterio.open(tmp_path / "labels.tif") as file:
        old = file.transform
        wide, high = old.a * file.width / cols, old.e * file.height / rows
        reproject(
            rasterio.band(file, 1), expected, dst_transform=Affine(wide, 0, old.c, 0, high, old.f),
            dst_crs=file.crs, resampling=Resampling.nearest,
        )  # fmt: skip
    assert (rows, cols) != labels.shape
    np.testing.assert_array_equal(found, expected)
