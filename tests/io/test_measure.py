from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from rasterio.transform import Affine

import segfocal as sf
from segfocal.io import open_scan
from segfocal.io.measure import pixel_measure, row_hectares


@pytest.mark.parametrize(
    ("crs", "grid", "hectares"),
    [
        ("EPSG:32633", "north_up", 0.01),
        ("EPSG:32633", "south_up", 0.01),
        ("EPSG:32633", "rotated", 73 / 10_000),
        ("EPSG:2263", "north_up", 100 * (1200 / 3937) ** 2 / 10_000),  # US survey feet
        ("EPSG:4326", "north_up", None),
        (None, "none", None),
    ],
)
def test_pixels_of_projected_scenes_are_hectares(write_tif, grids, crs, grid, hectares):
    path = write_tif(np.zeros((1, 8, 9), np.uint8), crs=crs, transform=getattr(grids, grid))
    with open_scan(path) as scan:
        found = pixel_measure(scan)
    assert found == (None if hectares is None else ("hectares", pytest.approx(hectares)))


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-9), ("unknown", 1)])
def test_voxels_are_millilitres_whatever_the_unit(tmp_path, grids, unit, factor):
    for affine in (np.diag([-1.0, 2, 1.5, 1]), grids.oblique):
        image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "a.nii")
        with open_scan(tmp_path / "a.nii") as scan:
            unit_found, size = pixel_measure(scan)
        assert unit_found == "millilitres"
        expected = abs(np.linalg.det(affine[:3, :3])) * factor / 1000
        assert size == pytest.approx(expected, rel=1e-6)


def test_an_array_measures_nothing():
    assert pixel_measure(sf.MemoryScan(np.zeros((2, 3, 1)))) is None


@pytest.mark.parametrize("step", [-0.01, 0.01])
def test_rows_of_scenes_in_degrees_are_hectares_on_the_ellipsoid(write_tif, step):
    pyproj = pytest.importorskip("pyproj")
    grid = Affine(0.02, 0, 12, 0, step, 61)
    path = write_tif(np.zeros((1, 30, 9), np.uint8), crs="EPSG:4326", transform=grid)
    with open_scan(path) as scan:
        sizes = row_hectares(scan)
        assert pixel_measure(scan) is None
    geod = pyproj.Geod(ellps="WGS84")
    north = 61 if step < 0 else 61.3
    for row, size in enumerate(sizes):
        top, bottom = north - 0.01 * row, north - 0.01 * (row + 1)
        lons = np.linspace(12, 12.02, 50)  # geodesics leave parallels
        lon = np.concatenate([lons, lons[::-1]])
        lat = np.repeat([bottom, top], 50)
        expected = abs(geod.polygon_area_perimeter(lon, lat)[0]) / 1e4
        assert size == pytest.approx(expected, rel=1e-8)


def test_rows_of_other_scans_measure_nothing(write_tif, grids):
    for crs, grid in (("EPSG:32633", grids.north_up), ("EPSG:4326", grids.rotated)):
        path = write_tif(np.zeros((1, 8, 9), np.uint8), crs=crs, transform=grid)
        with open_scan(path) as scan:
            assert row_hectares(scan) is None
    assert row_hectares(sf.MemoryScan(np.zeros((2, 3, 1)))) is None
