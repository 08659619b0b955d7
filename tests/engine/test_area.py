"""Areas of interest: what a part of a scene gets is what it gets in a run over the whole."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
from plain_scenes import NORTH_UP, Stub, write_scene

import segfocal as sf
from segfocal.errors import ScanError, ScanNotFoundError

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

SOUTH_UP = rasterio.Affine(2, 0, 600000, 0, 2, 199640)
ROTATED = rasterio.Affine(1.5, 0.5, 600000, 0.4, -1.8, 200000)


class Seeing(Stub):
    """Depends on where a pixel lies in its tile, so that another grid of tiles would be told."""

    def __call__(self, values, valid):
        ramp = np.linspace(0, 1, values.shape[2], dtype=np.float32)[:, None]
        score = np.exp(np.sin(values / 40 + np.arange(3) + ramp))
        return score / score.sum(-1, keepdims=True)


def write_area(path, shapes, crs="EPSG:32119"):
    drivers = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}
    kind = {"geometry_type": "Unknown"} if path.suffix != ".shp" else {"geometry_type": "Polygon"}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # without a CRS
        pyogrio.raw.write(
            path, shapely.to_wkb(np.array(shapes, object)), [], [], crs=crs,
            driver=drivers[path.suffix], **kind,
        )  # fmt: skip
    return path


def placed(grid, col, row):
    return grid.a * col + grid.b * row + grid.c, grid.d * col + grid.e * row + grid.f


def labels_of(path):
    with rasterio.open(path) as file:
        return file.read(1), file.transform


def expected_labels(whole, grid, shapes):
    """Return the whole map without what is outside, and where it begins and ends."""
    burnt = rasterio.features.rasterize(shapes, whole.shape, transform=grid, dtype="uint8")
    return np.where(burnt == 1, whole, 255), burnt == 1


def window_in(part_grid, grid, shape):
    col, row = (round(number) for number in placed(~grid, part_grid.c, part_grid.f))
    return slice(row, row + shape[0]), slice(col, col + shape[1])


@pytest.fixture(params=[NORTH_UP, SOUTH_UP, ROTATED], ids=["north", "south", "rotated"])
def whole(tmp_path, request):
    scene = write_scene(tmp_path / "scene.tif", transform=request.param)
    sf.predict(Seeing(), scene, tmp_path / "whole.tif")
    return scene, *labels_of(tmp_path / "whole.tif")


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_an_area_of_polygons_is_the_part_of_the_whole(tmp_path, whole, suffix):
    scene, labels, grid = whole
    x, y = placed(grid, 75.123, 90.0817)  # no side runs through centres of pixels
    ring = shapely.Point(x, y).buffer(70).difference(shapely.Point(x, y).buffer(30))
    shapes = [ring, shapely.box(x + 50, y - 10, x + 110, y + 40)]  # they overlap
    crs = "EPSG:32119"
    if suffix == "geojson":
        crs = "EPSG:4326"
        dense = [shapely.segmentize(shape, 0.5) for shape in shapes]
        there = rasterio.warp.transform_geom("EPSG:32119", crs, dense)
        stored = [shapely.geometry.shape(each) for each in there]
    else:
        stored = shapes
    path = write_area(tmp_path / f"area.{suffix}", stored, crs)
    sf.predict(Seeing(), scene, tmp_path / "part.tif", area=path)
    part, part_grid = labels_of(tmp_path / "part.tif")
    expected, inside = expected_labels(labels, grid, shapes)
    window = window_in(part_grid, grid, part.shape)
    wrong = part != expected[window]
    # In degrees the sides are others by a hair.
    assert wrong.sum() <= (3 if suffix == "geojson" else 0)
    assert inside.sum() == inside[window].sum() > 3000
    rows, cols = np.nonzero(inside)
    assert (part_grid.a, part_grid.b, part_grid.d, part_grid.e) == (grid.a, grid.b, grid.d, grid.e)
    if suffix != "geojson":
        assert part.shape[0] - (np.ptp(rows) + 1) <= 1
        assert part.shape[1] - (np.ptp(cols) + 1) <= 1


def test_bounds_are_the_part_of_the_whole(tmp_path, whole):
    scene, labels, grid = whole
    x, y = placed(grid, 75.123, 90.0817)  # no side runs through centres of pixels
    bounds = (x - 61, y - 43.5, x + 58.7, y + 50)
    result = sf.predict(Seeing(), scene, tmp_path / "part.tif", area=bounds)
    part, part_grid = labels_of(tmp_path / "part.tif")
    expected, inside = expected_labels(labels, grid, [shapely.box(*bounds)])
    window = window_in(part_grid, grid, part.shape)
    np.testing.assert_array_equal(part, expected[window])
    assert inside.sum() == inside[window].sum() > 1000
    as_text = ",".join(str(side) for side in bounds)
    again = sf.predict(Seeing(), scene, tmp_path / "part.tif", area=as_text)
    assert again.unchanged
    assert again.fingerprint == result.fingerprint
    other = sf.predict(
        Seeing(), scene, tmp_path / "part.tif", area=(x - 61, y - 43.5, x + 30, y + 50),
        overwrite=True,
    )  # fmt: skip
    assert other.fingerprint != result.fingerprint


def test_bounds_of_the_whole_scene_and_beyond_are_the_whole_run(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    whole = sf.predict(Seeing(), scene, tmp_path / "whole.tif")
    more = sf.predict(Seeing(), scene, tmp_path / "more.tif", area=(0, 0, 9e5, 9e5))
    assert (more.sha256, more.fingerprint) == (whole.sha256, whole.fingerprint)


def test_bounds_in_another_crs_keep_their_curved_sides(tmp_path):
    far_north = rasterio.Affine(600, 0, 300000, 0, -600, 8000000)
    scene = write_scene(tmp_path / "scene.tif", crs="EPSG:32633", transform=far_north)
    sf.predict(Seeing(), scene, tmp_path / "whole.tif")
    labels, grid = labels_of(tmp_path / "whole.tif")
    bounds = (11.5, 71.45, 13.5, 71.85)
    sf.predict(Seeing(), scene, tmp_path / "part.tif", area=bounds, area_crs="EPSG:4326")
    part, part_grid = labels_of(tmp_path / "part.tif")
    rows, cols = np.indices(labels.shape)
    x, y = placed(grid, cols.ravel() + 0.5, rows.ravel() + 0.5)
    lon, lat = rasterio.warp.transform("EPSG:32633", "EPSG:4326", x, y)
    lon, lat = (np.reshape(each, labels.shape) for each in (lon, lat))
    inside = (lon > 11.5) & (lon < 13.5) & (lat > 71.45) & (lat < 71.85)
    window = window_in(part_grid, grid, part.shape)
    assert inside.sum() == inside[window].sum() > 1000
    wrong = part != np.where(inside, labels, 255)[window]
    assert wrong.sum() <= 2  # sides are within a hundredth of a pixel


@pytest.mark.parametrize(
    ("left", "area"),
    [
        (179.9, (179.95, 60.9, -179.95, 60.95)),
        (179.9, "polygons"),
        (-180.1, (179.95, 60.9, -179.95, 60.95)),
        (359.9, (-0.05, 60.9, 0.05, 60.95)),
    ],
)
def test_areas_lie_across_the_antimeridian(tmp_path, left, area):
    grid = rasterio.Affine(0.001, 0, left, 0, -0.001, 61)
    scene = write_scene(tmp_path / "scene.tif", (200, 200), crs="EPSG:4326", transform=grid)
    if area == "polygons":  # cut at the antimeridian, as RFC 7946 wants it
        halves = [shapely.box(179.95, 60.9, 180, 60.95), shapely.box(-180, 60.9, -179.95, 60.95)]
        area = write_area(tmp_path / "area.geojson", [shapely.MultiPolygon(halves)], "EPSG:4326")
    sf.predict(Seeing(), scene, tmp_path / "part.tif", area=area)
    part, part_grid = labels_of(tmp_path / "part.tif")
    assert part_grid.c == pytest.approx(left + 0.05)
    sf.predict(Seeing(), scene, tmp_path / "whole.tif")
    whole, _ = labels_of(tmp_path / "whole.tif")
    np.testing.assert_array_equal(part, whole[50:100, 50:150])


def test_polygons_of_an_area_follow_it(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    area = write_area(tmp_path / "area.gpkg", [shapely.Point(600150, 199800).buffer(100)])
    sf.predict(
        Seeing(), scene, tmp_path / "part.tif", area=area, min_size=9,
        polygons=tmp_path / "parts.gpkg",
    )  # fmt: skip
    labels, grid = labels_of(tmp_path / "part.tif")
    _, _, found, (values, *_) = pyogrio.raw.read(tmp_path / "parts.gpkg", layer="parts")
    burnt = rasterio.features.rasterize(
        zip(shapely.from_wkb(found), values.tolist(), strict=True),
        labels.shape, fill=255, transform=grid, dtype="uint8",
    )  # fmt: skip
    np.testing.assert_array_equal(burnt, labels)


def test_what_is_no_area_is_told(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    bare = write_scene(tmp_path / "bare.tif", crs=None, transform=None)
    point = write_area(tmp_path / "point.gpkg", [shapely.Point(600100, 199900)])
    flat = write_area(tmp_path / "flat.gpkg", [shapely.Polygon([(0, 0), (1, 1), (2, 2)])])
    empty = write_area(tmp_path / "empty.gpkg", [])
    square = shapely.box(600100, 199800, 600200, 199900)
    nameless = write_area(tmp_path / "nameless.shp", [square], None)
    two = write_area(tmp_path / "two.gpkg", [square])
    pyogrio.raw.write(
        two, shapely.to_wkb(np.array([square], object)), [], [], crs="EPSG:32119", layer="more",
        geometry_type="Polygon", driver="GPKG", append=True,
    )  # fmt: skip
    text = tmp_path / "text.geojson"
    text.write_text("hello")
    collection = tmp_path / "collection.geojson"
    collection.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    cases = [
        (scene, {"area": "1,2,3"}, "four numbers"),
        (scene, {"area": "1,2,3,nan"}, "four numbers"),
        (scene, {"area": (5, 5, 1, 9)}, "is empty"),
        (scene, {"area": (0, 0, 10, 10)}, r"no pixel.*spans 600000,199640,600300,200000 in EPSG"),
        (scene, {"area": (600100.1, 199900.1, 600100.2, 199900.2)}, "no pixel"),
        (scene, {"area": (0, 0, 1, 1), "area_crs": "EPSG:0"}, "no CRS that is known"),
        (scene, {"area": (0, 0, 0.1, 91), "area_crs": "EPSG:4326"}, r"not reach"),
        (scene, {"area_crs": "EPSG:4326"}, "give the area too"),
        (scene, {"area": tmp_path / "nothing.gpkg"}, "no such file"),
        (scene, {"area": point}, "holds Point; expected polygons"),
        (scene, {"area": flat}, "cover nothing|no geometry"),
        (scene, {"area": empty}, "no geometry"),
        (scene, {"area": nameless}, "names no CRS"),
        (scene, {"area": two}, "2 layers with geometry: two, more"),
        (scene, {"area": text}, "cannot be read"),
        (scene, {"area": collection}, "no geometry|0 layers"),
        (bare, {"area": point}, "holds Point"),
        (bare, {"area": (0, 0, 9, 9), "area_crs": "EPSG:4326"}, "expected both or neither"),
    ]
    for path, options, message in cases:
        with pytest.raises(ScanError, match=message):
            sf.predict(Stub(), path, tmp_path / "labels.tif", **options)
        assert not list(tmp_path.glob("*labels*"))
    with pytest.raises(ScanNotFoundError):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", area=tmp_path / "nothing.gpkg")
    sf.predict(Stub(), scene, tmp_path / "labels.tif", area=nameless, area_crs="EPSG:32119")
    sf.predict(Stub(), bare, tmp_path / "pixels.tif", area=(10, 20, 40, 30))
