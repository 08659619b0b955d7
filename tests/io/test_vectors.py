"""Polygons drawn by windows: against points in polygons, and against one drawing of the whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from segfocal.errors import ScanError, ScanNotFoundError, SegfocalWarning
from segfocal.io import open_scan
from segfocal.io.vector_layers import attribute_values
from segfocal.io.vectors import VectorScan
from segfocal.types import full_window

shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")

SHAPE = (90, 110)
NORTH_UP = Affine(0.5, 0, 733601, 0, -0.5, 3725139)
SOUTH_UP = Affine(0.5, 0, 733601, 0, 0.5, 3725094)


def blob(col: float, row: float, radius: float, corners: int = 7):
    """A polygon around a pixel, in pixels, with a hole."""
    angles = np.arange(corners) / corners * 2 * np.pi + 0.3
    ring = np.stack([col + radius * np.cos(angles), row + radius * np.sin(angles)], -1)
    hole = np.stack([col + radius / 3 * np.cos(angles), row + radius / 3 * np.sin(angles)], -1)
    return shapely.Polygon(ring, [hole])


BLOBS = [
    (blob(30, 20, 15), "small"), (blob(38, 25, 22), "large"), (blob(80, 60, 30), "large"),
    (blob(95, 10, 6), "small"), (blob(75, 55, 12), "small"), (blob(0, 85, 20), "large"),
    (blob(500, 500, 9), "small"),
]  # fmt: skip


@pytest.fixture(params=["north-up", "south-up"])
def scene(request, tmp_path):
    transform = NORTH_UP if request.param == "north-up" else SOUTH_UP
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=1,
        dtype="uint8", transform=transform, crs="EPSG:32616",
    ) as out:  # fmt: skip
        out.write(np.ones((1, *SHAPE), "uint8"))
    with open_scan(tmp_path / "scene.tif") as scan:
        yield scan


def write(path, blobs=BLOBS, crs="EPSG:32616", **fields):
    """Write shapes given in pixels of the north-up scene."""

    def placed(points):
        x, y = NORTH_UP.c + 0.5 * points[:, 0], NORTH_UP.f - 0.5 * points[:, 1]
        if crs != "EPSG:32616":
            x, y = transform_points("EPSG:32616", crs, x, y)
        return np.stack([x, y], -1)

    wkb = shapely.to_wkb([shapely.transform(shape, placed) for shape, _ in blobs])
    columns = {"kind": np.array([kind for _, kind in blobs], object), **fields}
    pyogrio.raw.write(
        path, np.array(wkb, object), list(columns.values()), list(columns),
        geometry_type="Polygon", crs=crs,
    )  # fmt: skip
    return path


def drawn(order) -> np.ndarray:
    """Pixels whose centre lies in a blob, drawn one after the other."""
    rows, cols = np.indices(SHAPE) + 0.5
    codes = np.zeros(SHAPE, int)
    for place in order:
        shape, kind = BLOBS[place]
        codes[shapely.contains_xy(shape, cols, rows)] = {"small": 1, "large": 2}[kind]
    return codes


def whole(view):
    patch = view.read(full_window(view.shape))
    return np.where(patch.valid, patch.values, -1)[..., 0]


VALUES = {"small": 1, "large": 2}
IN_ORDER = range(len(BLOBS))


@pytest.mark.parametrize(
    ("name", "crs"), [("x.gpkg", "EPSG:32616"), ("x.geojson", "EPSG:4326"), ("x.shp", "EPSG:3857")]
)
def test_a_pixel_has_the_class_of_the_polygon_that_holds_its_centre(scene, tmp_path, name, crs):
    with VectorScan(
        write(tmp_path / name, crs=crs), scene, VALUES, field="kind", outside=0
    ) as view:
        found = whole(view)
    # Corners that fall on a centre, and edges that a projection bends, may go either way.
    assert (found == drawn(IN_ORDER)).mean() > 0.999
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize("all_touched", [False, True])
def test_windows_equal_the_whole(scene, tmp_path, all_touched):
    path = write(tmp_path / "x.gpkg")
    with VectorScan(path, scene, VALUES, field="kind", all_touched=all_touched) as view:
        once = whole(view)
        rng = np.random.default_rng(0)
        for _ in range(15):
            ends = [sorted(rng.integers(0, length + 1, 2)) for length in SHAPE]
            window = tuple(slice(int(a), int(b)) for a, b in ends)
            patch = view.read(window)
            np.testing.assert_array_equal(
                np.where(patch.valid, patch.values, -1)[..., 0], once[window]
            )


def test_the_order_of_drawing(scene, tmp_path):
    priority = np.array([5, 1, 1, 1, np.nan, 9, 0])
    path = write(tmp_path / "x.gpkg", priority=priority)
    areas = [shape.area for shape, _ in BLOBS]
    orders = {
        "file": IN_ORDER,
        "area": np.argsort(areas)[::-1],
        "classes": [0, 3, 4, 1, 2, 5],
        "priority": [4, 1, 2, 3, 0, 5],
    }
    different = set()
    for order, places in orders.items():
        with VectorScan(path, scene, VALUES, field="kind", order=order, outside=0) as view:
            found = whole(view)
        assert (found == drawn(places)).mean() > 0.999, order
        different.add(found.tobytes())
    assert len(different) >= 3


def test_corners_between_pixels_are_the_same_in_any_window(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("segfocal.io.vectors.BLOCK", 32)
    rng = np.random.default_rng(0)
    blobs = [
        (shapely.Polygon(np.round(2 * shapely.get_coordinates(blob(*place, 14).exterior)) / 2), "a")
        for place in rng.uniform(0, 110, (30, 2))
    ]
    path = write(tmp_path / "halves.gpkg", [one for one in blobs if one[0].is_valid])
    with VectorScan(path, scene, {"": 1}, all_touched=True, outside=0) as scan:
        whole = scan.read((slice(0, SHAPE[0]), slice(0, SHAPE[1]))).values
        for _ in range(200):
            row, col = rng.integers(0, 60, 2)
            window = (slice(row, row + rng.integers(1, 30)), slice(col, col + rng.integers(1, 50)))
            np.testing.assert_array_equal(scan.read(window).values, whole[window])


@pytest.mark.parametrize("crs", ["EPSG:32616", "EPSG:4326"])
def test_the_order_by_area_is_that_of_whole_polygons(scene, tmp_path, crs):
    # Of the county little lies in the scene, but it is larger than the field.
    county = shapely.box(-90_000, -90_000, 25, 80)
    field = shapely.box(10, 5, 100, 85)
    path = write(tmp_path / "shapes.gpkg", [(field, "field"), (county, "county")], crs=crs)
    values = {"field": 1, "county": 2}
    with VectorScan(path, scene, values, field="kind", order="area", outside=0) as scan:
        found = scan.read((slice(0, SHAPE[0]), slice(0, SHAPE[1]))).values[..., 0]
    assert sorted(np.unique(found)) == [0, 1, 2]
    assert (found[20:60, 15:20] == 1).all()


def test_all_touched_adds_pixels_at_edges(scene, tmp_path):
    path = write(tmp_path / "x.gpkg")
    plain, touched = (
        whole(VectorScan(path, scene, {"": 3}, all_touched=flag, outside=0)) for flag in (0, 1)
    )
    assert ((plain == 3) <= (touched == 3)).all()
    assert (touched == 3).sum() > (plain == 3).sum()


def test_outside_is_a_class_or_no_label(scene, tmp_path):
    path = write(tmp_path / "x.gpkg")
    empty = drawn(IN_ORDER) == 0
    assert (
        whole(VectorScan(path, scene, VALUES, field="kind", outside=9))[empty] == 9
    ).mean() > 0.99
    assert (whole(VectorScan(path, scene, VALUES, field="kind"))[empty] == -1).mean() > 0.99


def test_a_file_without_shapes_labels_nothing(scene, tmp_path):
    (tmp_path / "x.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    view = VectorScan(tmp_path / "x.geojson", scene, {"": 1}, outside=0)
    assert view.count == 0
    assert (whole(view) == 0).all(), "a tile without buildings is a valid negative"


def test_what_is_wrong_is_told(scene, tmp_path):
    path = write(tmp_path / "x.gpkg")
    for options, expected in (
        ({"field": "type"}, r"no attribute 'type'; expected one of kind"),
        ({"layer": "roofs"}, r"no layer 'roofs'; expected one of x"),
        (
            {"field": "kind", "values": {"small": 1}},
            "kind holds 'large', which no class stands for",
        ),
    ):
        values = options.pop("values", VALUES)
        with pytest.raises(ScanError, match=expected):
            VectorScan(path, scene, values, **options)
    with pytest.raises(ScanNotFoundError):
        VectorScan(tmp_path / "gone.gpkg", scene, VALUES)
    (tmp_path / "broken.gpkg").write_bytes(b"not a database" * 100)
    with pytest.raises(ScanError, match="not a vector file that GDAL can read"):
        VectorScan(tmp_path / "broken.gpkg", scene, VALUES)


def test_a_shapefile_without_a_crs_is_taken_to_be_in_the_scenes(scene, tmp_path):
    path = write(tmp_path / "x.shp")
    (tmp_path / "x.prj").unlink()
    with pytest.warns(SegfocalWarning, match="has no CRS and is taken to be in that of"):
        view = VectorScan(path, scene, VALUES, field="kind", outside=0)
    assert (whole(view) == drawn(IN_ORDER)).mean() > 0.999


def test_attributes_are_listed_as_texts(tmp_path):
    path = write(tmp_path / "x.gpkg", number=np.arange(7.0), many=np.array(list("abcdefg"), object))
    assert attribute_values(path, most=3) == {"kind": ["large", "small"]}
    assert attribute_values(path)["number"] == ["0", "1", "2", "3", "4", "5", "6"]
