"""Scans at another resolution: against scikit-image and scipy on whole arrays."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from skimage.transform import resize

from segfocal.errors import ScanError
from segfocal.io import MemoryScan, open_scan
from segfocal.io import resampling as resampling_module
from segfocal.io.resampling import ResampledScan, coarse_axis, resampled_shape
from segfocal.types import full_window


def test_shapes_round_and_keep_a_pixel():
    assert resampled_shape((100, 33, 1), (1, 1, 1), (3, 0.7, 9)) == (33, 47, 1)


@pytest.mark.parametrize(
    ("have", "want", "axis"),
    [((5, 1, 1), (1, 1, 1), 0), ((1, 1, 1), (1, 1, 3.1), 2), ((1, 1, 1), (1, 1, 3), None),
     ((1, 4, 1), (5, 1, 1), 1), ((4, 4, 1), (1, 1, 1), None), ((9, 1), (1, 1), None)],
)  # fmt: skip
def test_the_coarse_axis_is_nnunets(have, want, axis):
    assert coarse_axis(have, want) == axis


def whole(array, scan):
    """Resize whole arrays with scikit-image, the nearest plane along a coarse axis."""
    orders = [axis.order for axis in scan.maps]
    for axis, order in enumerate(orders):
        if order == 0:
            # The nearest of planes at half-pixel centres, found by counting.
            n, m = scan.maps[axis].source, scan.maps[axis].target
            nearest = np.floor((np.arange(m) + 0.5) * n / m + 1e-9).astype(int)
            array = np.take(array, nearest, axis)
    order = max(orders)
    return resize(
        array, (*scan.shape, array.shape[-1]), order=order, mode="edge", anti_aliasing=False,
        clip=False,
    )  # fmt: skip


CASES = [
    ((37, 53), (1, 1), (1.7, 0.6)),
    ((37, 53), (10, 10), (31, 10.0)),
    ((1, 60), (1, 1), (1.3, 0.41)),
    ((2, 3), (1, 1), (0.2, 0.2)),
    ((20, 31, 22), (1, 1, 1), (0.7, 1.3, 1.2)),
    ((9, 40, 41), (5, 1.3, 1.3), (1.5, 1, 1.1)),
    ((9, 40, 41), (2, 1, 1), (2, 0.6, 0.6)),
    ((14, 15, 16), (1, 1, 1), (1, 1, 4)),
]


@pytest.mark.parametrize("interpolation", [1, 3])
@pytest.mark.parametrize(("shape", "have", "want"), CASES)
def test_it_is_what_whole_array_resizing_gives(shape, have, want, interpolation, monkeypatch):
    rng = np.random.default_rng(0)
    array = rng.random((*shape, 2)) * 2000 - 1000
    scan = ResampledScan(MemoryScan(array, resolution=have), want, interpolation)
    expected = whole(array, scan)
    found = scan.read(full_window(scan.shape))
    assert found.valid.all()
    np.testing.assert_allclose(found.values, expected, atol=2e-4)  # float32 of +-1000
    for side, n, m, step in zip(scan.resolution, shape, scan.shape, have, strict=True):
        assert side * m == pytest.approx(n * step)
    monkeypatch.setattr(resampling_module, "READ_VALUES", 500)
    for _ in range(10):
        ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in scan.shape]
        window = tuple(slice(int(a), int(b)) for a, b in ends)
        part = scan.read(window, [1]).values[..., 0]
        if interpolation == 1:
            np.testing.assert_array_equal(part, found.values[window][..., 1])
        else:
            np.testing.assert_allclose(part, found.values[window][..., 1], atol=1e-5 * 2000)


@pytest.mark.parametrize("interpolation", [1, 3])
@pytest.mark.parametrize(("shape", "have", "want"), CASES)
def test_what_is_not_valid_does_not_count(shape, have, want, interpolation, monkeypatch):
    rng = np.random.default_rng(1)
    array = rng.random((*shape, 1))
    valid = rng.random(shape) > 0.15
    patches = []
    for poison in (np.nan, 1e30, -7.0):
        values = np.where(valid[..., None], array, poison)
        scan = ResampledScan(MemoryScan(values, valid=valid, resolution=have), want, interpolation)
        patches.append(scan.read(full_window(scan.shape)))
    # Valid where linear interpolation gives no weight to what is not.
    linear = ResampledScan(MemoryScan(valid[..., None] * 1.0, resolution=have), want, 1)
    expected = linear.read(full_window(scan.shape)).values > 1 - 1e-6
    for patch in patches:
        np.testing.assert_array_equal(patch.valid, expected)
        np.testing.assert_array_equal(patch.values[expected], patches[0].values[expected])
    monkeypatch.setattr(resampling_module, "READ_VALUES", 300)
    again = scan.read(full_window(scan.shape))
    np.testing.assert_array_equal(again.valid, expected)
    np.testing.assert_allclose(again.values[expected], patches[0].values[expected], atol=1e-5)


def test_a_spline_beside_nodata_goes_on_as_the_valid_pixels_do():
    """A constant stays one, and a step to nodata leaves no ringing behind."""
    valid = np.ones((80, 80), bool)
    valid[:, 40:] = valid[10:14, 10:14] = False
    array = np.where(valid, 1000.0, 0)[..., None]
    scan = ResampledScan(MemoryScan(array, valid=valid, resolution=(1, 1)), (0.7, 0.7), 3)
    patch = scan.read(full_window(scan.shape))
    np.testing.assert_allclose(patch.values[patch.valid], 1000, rtol=5e-6)


def test_float_and_integer_scans_become_float32():
    array = np.arange(48, dtype=np.int16).reshape(6, 8, 1)
    scan = ResampledScan(MemoryScan(array, resolution=(1, 1)), (2, 2))
    assert scan.read(full_window(scan.shape)).values.dtype == scan.dtype == np.float32
    np.testing.assert_array_equal(
        scan.read(full_window(scan.shape)).values[..., 0],
        array[..., 0].reshape(3, 2, 4, 2).mean((1, 3)),  # between four pixels
    )


def test_only_windows_are_read():
    class Watched(MemoryScan):
        largest = 0

        def read(self, window, channels=None):
            patch = super().read(window, channels)
            self.largest = max(self.largest, patch.valid.size)
            return patch

    source = Watched(np.ones((3000, 3000, 1), np.uint8), resolution=(1, 1))
    scan = ResampledScan(source, (0.5, 2), 3)
    scan.read((slice(2000, 2064), slice(700, 764)))
    assert source.largest <= (32 + 44) * (128 + 44)
    coarse = ResampledScan(source, (30, 30), 1)
    source.largest = 0
    coarse.read(full_window(coarse.shape))
    assert source.largest <= resampling_module.READ_VALUES * 1.1


def test_a_scan_without_a_resolution_is_refused():
    with pytest.raises(ScanError, match="its resolution is None; expected 2 numbers"):
        ResampledScan(MemoryScan(np.ones((4, 4, 1))), (1, 1))
    with pytest.raises(ScanError, match=r"its resolution is \(1.0, 1.0\); expected 3 numbers"):
        ResampledScan(MemoryScan(np.ones((4, 4, 1)), resolution=(1, 1)), (1, 1, 1))


@pytest.mark.parametrize("kind", ["north_up", "south_up", "rotated"])
def test_the_extent_of_a_scene_is_kept(kind, grids, write_tif):
    path = write_tif(np.ones((1, 37, 53), np.uint8), transform=getattr(grids, kind))
    with open_scan(path) as source:
        scan = ResampledScan(source, tuple(side * 2.3 for side in source.resolution))
        about, before = scan.georeference(), source.georeference()
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = [
            a * corner[1] * shape[1] + b * corner[0] * shape[0] + c
            for (a, b, c), shape in ((about["transform"][i : i + 3], scan.shape) for i in (0, 3))
        ]
        expected = [
            a * corner[1] * 53 + b * corner[0] * 37 + c
            for a, b, c in (before["transform"][:3], before["transform"][3:])
        ]
        np.testing.assert_allclose([x, y], expected)
    assert about["crs"] == before["crs"]


@pytest.mark.parametrize("orientation", ["RAS", "IPL"])
def test_a_volume_lies_where_nibabel_puts_it(orientation, grids, write_nii):
    axes = [np.sin(np.arange(n) / 3) for n in (20, 24, 18)]
    voxels = (axes[0][:, None, None] + axes[1][:, None] * axes[2]).astype(np.float32)
    path = write_nii(voxels, affine=grids.oblique)
    with open_scan(path, orientation=orientation) as source:
        scan = ResampledScan(source, (1.3, 1.4, 1.5))
        ours = scan.read(full_window(scan.shape)).values[..., 0]
        order = source.order
    affine = np.array(scan.georeference()["affine"])
    from dataclasses import replace

    there = replace(order, shape=scan.shape)
    target = nib.Nifti1Image(np.zeros(there.file_shape, np.float32), affine)
    theirs = resample_from_to(nib.load(path), target, order=1)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(there.to_file(ours)[inner], theirs.get_fdata()[inner], atol=1e-5)
