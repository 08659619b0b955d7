"""Colours, bands, instances and areas as label scans, on small arrays."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.errors import ScanError
from segfocal.io import MemoryScan, open_scan, read_labels
from segfocal.io.described import DescribedScan
from segfocal.io.label_views import AreaLabels, BandLabels, ColorLabels, InstanceLabels
from segfocal.types import full_window

RED, BLUE = 255 << 16, 255


def scan(array, **options) -> MemoryScan:
    array = np.asarray(array)
    return MemoryScan(array if array.ndim == 3 else array[..., None], name="x.png", **options)


def whole(view):
    return read_labels(view, full_window(view.shape))


def test_colours_are_packed_and_snapped_within_the_tolerance_only():
    pixels = np.array([[[255, 0, 0], [245, 9, 10], [255, 0, 11], [0, 0, 255], [7, 8, 9]]], np.uint8)
    exact, _ = whole(ColorLabels(scan(pixels), (RED, BLUE)))
    assert exact.tolist() == [[RED, 245 << 16 | 9 << 8 | 10, RED + 11, BLUE, 7 << 16 | 8 << 8 | 9]]
    near, valid = whole(ColorLabels(scan(pixels), (RED, BLUE), tolerance=10))
    assert near.tolist() == [[RED, RED, RED + 11, BLUE, 7 << 16 | 8 << 8 | 9]]
    assert valid.all()


def test_a_colour_between_two_goes_to_the_nearer():
    pixels = np.array([[[100, 0, 0], [140, 0, 0]]], np.uint8)
    found, _ = whole(ColorLabels(scan(pixels), (0, 255 << 16), tolerance=255))
    assert found.tolist() == [[0, 255 << 16]]


def test_one_band_is_no_colour():
    with pytest.raises(ScanError, match=r"x\.png: 1 channels of uint8; expected red, green and bl"):
        ColorLabels(scan(np.zeros((2, 2), np.uint8)), (RED,))


def test_a_band_and_a_nodata_value_of_choice():
    values = np.stack([np.full((2, 2), 9), [[1, 2], [0, 1]]], -1).astype(np.int16)
    masked = np.ones((2, 2, 2), bool)
    masked[0, 0] = False  # what the file calls nodata
    found, valid = whole(BandLabels(scan(values, valid=masked), band=2, nodata=0))
    assert valid.tolist() == [[False, True], [False, True]]
    assert found[valid].tolist() == [2, 1]
    found, valid = whole(BandLabels(scan(values, valid=masked), band=2, honour_nodata=False))
    assert valid.all()
    assert found.tolist() == [[1, 2], [0, 1]]
    with pytest.raises(ScanError, match="has 2 bands; labels are said to be in band 3"):
        BandLabels(scan(values), band=3)


def test_numbered_objects_are_one_class():
    found, _ = whole(InstanceLabels(scan(np.array([[0, 1], [40000, 2]], np.uint16)), 7))
    assert found.tolist() == [[0, 7], [7, 7]]


def test_labels_count_inside_the_area_only():
    area_valid = np.array([[True, True], [False, True]])
    area = scan(np.array([[1, 0], [1, 5]], np.uint8), valid=area_valid)
    found, valid = whole(AreaLabels(scan(np.array([[3, 3], [3, 4]], np.uint8)), area))
    assert valid.tolist() == [[True, False], [False, True]]
    assert found[valid].tolist() == [3, 4]


def test_a_described_scan_has_scale_offset_and_nodata_per_channel():
    values = np.array([[[0, 0], [1000, -9], [2000, 4]]], np.int16)
    view = DescribedScan(
        MemoryScan(values, channels=("a", "b")),
        scale={"a": 1e-4},
        offset={"a": 1.0, "*": 2.0},
        nodata={"a": 0, "b": -9},
    )
    patch = view.read(full_window(view.shape))
    assert patch.valid.tolist() == [[[False, True], [True, False], [True, True]]]
    np.testing.assert_allclose(patch.values[patch.valid], [2.0, 1.1, 1.2, 6.0], rtol=1e-6)
    assert view.dtype == patch.values.dtype == np.float32
    only = view.read(full_window(view.shape), [1])
    np.testing.assert_array_equal(only.valid[..., 0], patch.valid[..., 1])
    assert view.described["scale"] == [1e-4, 1.0]


def test_none_makes_every_number_count():
    masked = np.zeros((1, 3, 1), bool)
    source = scan(np.array([[1.0, np.nan, 3.0]]), valid=masked)
    view = DescribedScan(source, scale={}, offset={}, nodata={"*": "none"})
    assert view.read(full_window(view.shape)).valid[..., 0].tolist() == [[True, False, True]]


def scaled_raster(path, dtype):
    """Write every value from 0 to 2999 with scale and offset in the header, in two bands."""
    values = np.arange(3000).astype(dtype).reshape(1, 50, 60).repeat(2, 0)
    with rasterio.open(
        path, "w", driver="GTiff", height=50, width=60, count=2, dtype=dtype,
        transform=Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32633",
    ) as out:  # fmt: skip
        out.write(values)
        out.scales, out.offsets = (1e-4, 1.0), (-0.1, 0.0)
    return values[0]


def scaled_volume(path, dtype):
    values = np.arange(3000).astype(dtype).reshape(10, 15, 20)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(1e-4, -0.1)
    nib.save(image, path)
    return values


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
@pytest.mark.parametrize(("write", "name"), [(scaled_raster, "x.tif"), (scaled_volume, "x.nii")])
def test_nodata_is_compared_with_what_is_stored(tmp_path, write, name, dtype):
    stored = write(tmp_path / name, dtype)
    for nodata in (0, 1000, 2999, -0.1):
        with DescribedScan(
            open_scan(tmp_path / name), scale={}, offset={}, nodata={"*": nodata}
        ) as view:
            patch = view.read(full_window(view.shape))
            for channel in range(len(view.channels)):
                np.testing.assert_array_equal(patch.valid[..., channel], stored != nodata)


def test_what_the_header_says_is_not_applied_twice(tmp_path):
    scaled_raster(tmp_path / "x.tif", "uint16")
    for scale, offset, told in (
        ({"*": 1e-4}, {}, "has scale 0.0001 for channel 'band_1', .* the spec has scale 0.0001"),
        ({}, {"band_1": -0.1}, "has offset -0.1 for channel 'band_1'"),
    ):
        with (
            open_scan(tmp_path / "x.tif") as source,
            pytest.raises(ScanError, match=f"x.tif: its header {told}"),
        ):
            DescribedScan(source, scale=scale, offset=offset, nodata={})
    # A change of the unit is another number, and band_2 has no scale of its own.
    with DescribedScan(
        open_scan(tmp_path / "x.tif"), scale={"band_2": 1e-4}, offset={"band_1": 5}, nodata={}
    ) as view:
        assert view.twice_scaled == ("band_1",)
        values = view.read(full_window(view.shape)).values
    raw = np.arange(3000).reshape(50, 60)
    np.testing.assert_allclose(values[..., 0], raw * 1e-4 - 0.1 + 5, rtol=1e-6)
    np.testing.assert_allclose(values[..., 1], raw * 1e-4, rtol=1e-6)
