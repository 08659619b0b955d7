"""Polygons far larger than a scene or far from it: against points in polygons in their own CRS."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from segfocal.errors import ScanError, SegfocalWarning
from segfocal.io import open_scan
from segfocal.io.vectors import VectorScan
from segfocal.types import full_window

shapely = pytest.importorskip("shapely")
pytest.importorskip("pyogrio")

SIDE = 120
SICILY = ("EPSG:32633", 10.0, 500000.0, 4000000.0)
FIJI = ("EPSG:32760", 500.0, 788000.0, 8130000.0)  # over the antimeridian
WORLD = ((-180, -90), (180, -90), (180, 90), (-180, 90))


def place(tmp_path, crs, size, x, y):
    """Write a scene, and return it opened with the degrees of its pixels' centres."""
    transform = Affine(size, 0, x, 0, -size, y)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1,
        dtype="uint8", transform=transform, crs=crs,
    ) as out:  # fmt: skip
        out.write(np.ones((1, SIDE, SIDE), "uint8"))
    rows, cols = np.indices((SIDE, SIDE)) + 0.5
    found = transform_points(crs, "EPSG:4326", (x + size * cols).ravel(), (y - size * rows).ravel())
    lon, lat = (np.reshape(v, (SIDE, SIDE)) for v in found)
    return open_scan(tmp_path / "scene.tif"), lon, lat


def drawn(tmp_path, scan, *shapes):
    """Draw shapes in degrees; 0 outside."""
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for shape in shapes
    ]
    path = tmp_path / "shapes.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with VectorScan(path, scan, {"": 1}, outside=0) as view:
        return view.read(full_window(view.shape)).values[..., 0]


@pytest.mark.parametrize(
    "corners",
    [WORLD, ((-180, -60), (180, -60), (180, 75), (-180, 75)), ((-60, -20), (80, -20), (15, 80))],
)
def test_a_polygon_that_covers_the_scene_fills_it_however_large(tmp_path, corners):
    scan, _, _ = place(tmp_path, *SICILY)
    with scan:
        assert (drawn(tmp_path, scan, shapely.Polygon(corners)) == 1).all()


def test_an_edge_across_half_the_world_lies_where_it_is_straight(tmp_path):
    scan, lon, lat = place(tmp_path, *SICILY)
    middle = (float(lon.mean()), float(lat.mean()))
    ends = [(middle[0] + far, middle[1] + far * 0.3) for far in (-90, 90)]
    for shape in (
        shapely.Polygon([*ends, (ends[1][0], 89), (ends[0][0], 89)]),
        shapely.GeometryCollection([
            shapely.Polygon([*ends, (ends[1][0], 89), (ends[0][0], 89)]), shapely.Point(0, 0),
        ]),
    ):  # fmt: skip
        with open_scan(scan.name) as again:
            found = drawn(tmp_path, again, shape)
        expected = lat > middle[1] + 0.3 * (lon - middle[0])
        assert 0.3 < expected.mean() < 0.7
        assert (found == expected).mean() > 0.999
    scan.close()


@pytest.mark.parametrize("start", [-181.5, 178.5])
def test_longitudes_may_be_counted_on_over_the_antimeridian(tmp_path, start):
    scan, lon, lat = place(tmp_path, *FIJI)
    assert lon.min() < -179
    assert lon.max() > 179
    south, north = float(np.percentile(lat, 20)), float(np.percentile(lat, 70))
    east = (lon - start) % 360
    width = float(np.percentile(east, 60))
    shape = shapely.box(start, south, start + width, north)
    with scan:
        found = drawn(tmp_path, scan, shape)
    expected = (east < width) & (lat > south) & (lat < north)
    assert 0.2 < expected.mean() < 0.8
    assert (found == expected).mean() > 0.99


def test_what_lies_elsewhere_never_meets_the_projection(tmp_path):
    scan, lon, lat = place(tmp_path, *SICILY)
    own = shapely.box(float(lon.min()), float(lat.min()), float(lon.mean()), float(lat.max()))
    far = [shapely.box(-170, -60, -165, -55), shapely.box(15, 89, 16, 90)]
    with scan, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(tmp_path, scan, own, *far)
        alone = drawn(tmp_path, scan, own)
    assert 0.4 < found.mean() < 0.6
    np.testing.assert_array_equal(found, alone)


def test_coordinates_that_the_crs_cannot_have_are_told(tmp_path):
    scan, lon, lat = place(tmp_path, *SICILY)
    own = shapely.box(float(lon.min()), float(lat.min()), float(lon.mean()), float(lat.max()))
    expected = drawn(tmp_path, scan, own)
    with pytest.warns(SegfocalWarning, match=r"1 of 2 shapes .*EPSG:4326.* 11, 95; they are left"):
        found = drawn(tmp_path, scan, own, shapely.box(10, 95, 11, 96))
    np.testing.assert_array_equal(found, expected)
    metres = shapely.box(500100, 3998200, 501600, 3999700)  # GeoJSON says degrees
    with pytest.raises(ScanError, match=r"shapes\.geojson: 1 of 1 .*EPSG:4326.*in another one\?"):
        drawn(tmp_path, scan, metres)
    scan.close()
