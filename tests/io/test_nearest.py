"""Labels on another grid: nearest, against GDAL's warper and nibabel's resampling."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import rasterio
from nibabel.processing import resample_from_to
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.warp import transform as transform_points

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io import nearest as module
from segfocal.io import open_scan, read_labels
from segfocal.io.nearest import NearestScan, labels_on_grid
from segfocal.types import full_window


def write(path, array, transform, crs, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1,
        dtype=array.dtype, transform=transform, crs=crs, nodata=nodata,
    ) as out:  # fmt: skip
        out.write(array, 1)
    return path


SCENE = Affine(10, 0, 311000, 0, -10, 7606000)  # EPSG:25835, northern Finland
GRIDS = {
    "coarser": ("EPSG:3067", Affine(20, 0, 310401.7, 0, -20, 7606603.1), (150, 140)),
    "finer, other CRS": ("EPSG:25834", Affine(3, 0, 556500.7, 0, -3, 7599400.3), (700, 900)),
    "degrees": ("EPSG:4326", Affine(4e-4, 0, 22.383, 0, -2e-4, 68.498), (180, 160)),
    "same CRS, shifted": ("EPSG:25835", Affine(7, 0, 310901.3, 0, -9, 7606100.7), (200, 260)),
    "rotated": ("EPSG:25835", Affine(7, 2, 310901.3, 2, -9, 7606100.7), (260, 260)),
    "south-up": ("EPSG:25835", Affine(7, 0, 310901.3, 0, 9, 7603901.7), (240, 260)),
}


@pytest.fixture(params=GRIDS)
def opened(request, tmp_path):
    """A scene, labels on another grid, and what GDAL makes of the labels on the scene's grid."""
    crs, transform, shape = GRIDS[request.param]
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 9, shape).astype("uint8")
    labels[20:40, 30:60] = 0  # nodata
    scene = write(tmp_path / "scene.tif", np.ones((190, 220), "uint8"), SCENE, "EPSG:25835")
    path = write(tmp_path / "labels.tif", labels, transform, crs, nodata=0)
    expected = np.zeros((190, 220), "uint8")
    reproject(
        labels, expected, src_transform=transform, src_crs=crs, dst_transform=SCENE,
        dst_crs="EPSG:25835", src_nodata=0, dst_nodata=0, resampling=Resampling.nearest,
        tolerance=0, warp_extras={"SAMPLE_GRID": "NO"},
    )  # fmt: skip
    with open_scan(scene) as scan, open_scan(path) as other:
        yield scan, other, expected


def looked_up(source) -> np.ndarray:
    """The labels at each pixel's centre, each centre projected by itself."""
    rows, cols = np.indices((190, 220)) + 0.5
    x, y = SCENE.c + SCENE.a * cols.ravel(), SCENE.f + SCENE.e * rows.ravel()
    x, y = (np.array(v) for v in transform_points("EPSG:25835", source.crs, x, y)[:2])
    back = ~source.transform
    row = np.floor(back.d * x + back.e * y + back.f).astype(int)
    col = np.floor(back.a * x + back.b * y + back.c).astype(int)
    inside = (row >= 0) & (row < source.height) & (col >= 0) & (col < source.width)
    labels = np.where(inside, source.read(1)[row * inside, col * inside], 0)
    return labels.reshape(190, 220)


def test_labels_are_those_of_each_centre_and_of_gdals_warper(opened):
    scan, other, expected = opened
    with pytest.warns(SegfocalWarning, match="lies on another grid"):
        found, valid = read_labels(labels_on_grid(scan, other), full_window(scan.shape))
    np.testing.assert_array_equal(valid, found != 0)
    assert 0.3 < valid.mean() < 1
    # GDAL's warper puts pixels up to an eighth of a pixel off.
    assert (found == expected).mean() > 0.99
    with rasterio.open(other.name) as source:
        exact = looked_up(source)
    # Centres on a border of two cells of the labels may go either way.
    assert (found == exact).mean() > 0.9999


def test_a_value_does_not_depend_on_the_window_or_the_limit_of_memory(opened, monkeypatch):
    scan, other, _ = opened
    view = NearestScan(other, scan)
    whole = view.read(full_window(scan.shape))
    monkeypatch.setattr(module, "MAX_BOX", 500)
    rng = np.random.default_rng(1)
    for _ in range(10):
        ends = [sorted(rng.integers(0, length + 1, 2)) for length in scan.shape]
        window = tuple(slice(int(a), int(b)) for a, b in ends)
        part = view.read(window)
        np.testing.assert_array_equal(part.valid, whole.valid[window])
        np.testing.assert_array_equal(
            part.values[part.valid], whole.values[window][whole.valid[window]]
        )


def test_volumes_are_those_of_nibabels_resampling(tmp_path):
    rng = np.random.default_rng(0)
    labels = nib.Nifti1Image(
        rng.integers(1, 9, (20, 24, 18)).astype("uint8"),
        np.array([[-2.1, 0.1, 0, 9], [0.2, 1.9, 0.1, -20], [0, -0.1, 2.5, -18], [0, 0, 0, 1.0]]),
    )
    scan = nib.Nifti1Image(np.ones((30, 30, 30), "uint8"), np.diag([1.3, 1.4, 1.1, 1]))
    scan.affine[:3, 3] = -22
    for name, image in (("labels", labels), ("scan", scan)):
        nib.save(image, tmp_path / f"{name}.nii")
    with (
        open_scan(tmp_path / "scan.nii") as grid,
        open_scan(tmp_path / "labels.nii", orientation="LPS") as other,
        pytest.warns(SegfocalWarning, match="lies on another grid"),
    ):
        found, valid = read_labels(labels_on_grid(grid, other), full_window(grid.shape))
    expected = np.asarray(resample_from_to(labels, scan, order=0).dataobj)
    inside = (expected > 0) & valid  # nibabel clamps half a voxel at the borders otherwise
    assert inside.mean() > 0.2
    assert (found[inside] == expected[inside]).mean() > 0.999
    assert ((expected > 0) == valid).mean() > 0.9


def test_equal_grids_are_read_as_they_are(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", np.ones((5, 6), "uint8"), SCENE, "EPSG:25835")
    with open_scan(tmp_path / "a.tif") as scan, open_scan(tmp_path / "b.tif") as labels:
        assert labels_on_grid(scan, labels) is labels


def test_tags_that_differ_by_datum_are_warned_of_and_nothing_is_moved(tmp_path):
    transform = Affine(28.5, 0, 630534, 0, -28.5, 228114)
    write(tmp_path / "a.tif", np.ones((5, 6), "uint8"), transform, "EPSG:32119")
    write(tmp_path / "b.tif", np.ones((5, 6), "uint8"), transform, "EPSG:3358")
    with (
        open_scan(tmp_path / "a.tif") as scan,
        open_scan(tmp_path / "b.tif") as labels,
        pytest.warns(SegfocalWarning, match="same transform but different CRS tags"),
    ):
        assert labels_on_grid(scan, labels) is labels


def test_the_same_numbers_in_another_zone_are_another_place(tmp_path):
    write(tmp_path / "a.tif", np.ones((5, 6), "uint8"), SCENE, "EPSG:32633")
    write(tmp_path / "b.tif", np.ones((5, 6), "uint8"), SCENE, "EPSG:32634")
    with (
        open_scan(tmp_path / "a.tif") as scan,
        open_scan(tmp_path / "b.tif") as labels,
        pytest.raises(ScanError, match=r"b\.tif: does not touch .*a\.tif"),
    ):
        labels_on_grid(scan, labels)


def test_labels_smaller_than_the_gap_between_trials_are_found(tmp_path):
    write(tmp_path / "a.tif", np.ones((3000, 3000), "uint8"), SCENE, "EPSG:25835")
    small = Affine(10, 0, SCENE.c + 12340, 0, -10, SCENE.f - 7770)
    write(tmp_path / "b.tif", np.full((3, 4), 7, "uint8"), small, "EPSG:25835")
    with open_scan(tmp_path / "a.tif") as scan, open_scan(tmp_path / "b.tif") as labels:
        found = NearestScan(labels, scan).read((slice(770, 790), slice(1230, 1250)))
    assert found.valid.sum() == 12
    assert found.valid[7:10, 4:8].all()
