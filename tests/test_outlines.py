"""Outlines against GDAL's polygonize."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio.features

from segfocal.outlines import trace

shapely = pytest.importorskip("shapely")


def traced(values, nodata, rows, **options):
    """Return class values and polygons of a map that is seen so many rows at a time."""

    def strips():
        return (values[top : top + rows] for top in range(0, len(values), rows))

    shown, polygons = [], []
    for outlines in trace(strips, nodata, **options):
        corners = outlines.corners.astype(float)
        rings = shapely.linearrings(corners, indices=outlines.ring_of_corner)
        made = shapely.polygons(rings, indices=outlines.piece_of_ring)
        np.testing.assert_array_equal(shapely.area(made), outlines.pixels)
        shown += outlines.values.tolist()
        polygons += made.tolist()
    return shown, polygons


def as_set(shown, polygons):
    normal = shapely.to_wkb(shapely.normalize(np.array(polygons, object)))
    return sorted(zip(shown, normal.tolist(), strict=True))


def by_gdal(values, nodata):
    found = list(rasterio.features.shapes(values, mask=values != nodata))
    shapes = [shapely.geometry.shape(geometry) for geometry, _ in found]
    return as_set([int(value) for _, value in found], shapes)


def random_map(rng):
    rows, cols = rng.integers(1, 40, 2)
    classes, grain = rng.integers(1, 5), rng.integers(1, 4)
    values = rng.integers(0, classes, (rows, cols)).repeat(grain, 0).repeat(grain, 1)
    values = values[:rows, :cols].astype(np.uint8)
    values[rng.random(values.shape) < rng.choice([0, 0.05, 0.3])] = classes
    return values, int(classes)


@pytest.mark.parametrize("seed", range(6))
def test_outlines_are_those_of_gdal_however_the_map_is_cut(seed):
    rng = np.random.default_rng(seed)
    holes = 0
    for _ in range(20):
        values, nodata = random_map(rng)
        expected = by_gdal(values, nodata)
        for rows in {1, 2, int(rng.integers(1, len(values) + 1)), len(values)}:
            shown, polygons = traced(values, nodata, rows)
            assert as_set(shown, polygons) == expected
            assert shapely.is_valid(polygons).all()
            assert not any(polygon.exterior.is_ccw for polygon in polygons)  # rows run down
            holes += sum(len(polygon.interiors) for polygon in polygons)
    assert holes > 100


@pytest.mark.parametrize("seed", range(3))
def test_noded_outlines_share_their_corners(seed):
    rng = np.random.default_rng(seed)
    for _ in range(15):
        values, nodata = random_map(rng)
        expected = by_gdal(values, nodata)
        if not expected:
            continue
        sets = []
        for rows in (1, 3, len(values)):
            shown, polygons = traced(values, nodata, rows, noded=True)
            assert shapely.coverage_is_valid(polygons)
            sets.append(as_set(shown, polygons))
        assert sets[0] == sets[1] == sets[2]
        plain = sum(len(shapely.from_wkb(wkb).exterior.coords) for _, wkb in expected)
        noded = sum(len(polygon.exterior.coords) for polygon in polygons)
        assert noded >= plain


def test_a_spiral_of_many_corners_is_one_piece():
    side = 201
    values = np.ones((side, side), np.uint8)
    for turn in range(2, side // 2, 2):  # rings of 0, each with a gap
        values[turn, turn : side - turn] = values[side - 1 - turn, turn : side - turn] = 0
        values[turn : side - turn, turn] = values[turn : side - turn, side - 1 - turn] = 0
        values[turn, side // 2] = 1
    for rows in (1, 7, side):
        assert as_set(*traced(values, 9, rows)) == by_gdal(values, 9)


def test_a_map_without_data_has_no_outlines():
    assert traced(np.full((9, 5), 3, np.uint8), 3, 2) == ([], [])
