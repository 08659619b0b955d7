"""Pixels in polygons, against GDAL."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.features

from segfocal.io.polygon_mask import PolygonMask

shapely = pytest.importorskip("shapely")
PIXELS = rasterio.Affine(1, 0, 0, 0, 1, 0)


def rings_of(shape):
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(shapely.get_parts(shape))]


def random_shape(rng):
    if rng.random() < 0.3:  # sides through the centres of pixels
        x, y = (np.sort(rng.choice(np.arange(-9, 130), 2, replace=False)) / 2 for _ in "xy")
        return shapely.box(x[0], y[0], x[1], y[1])
    discs = [
        shapely.Point(point).buffer(rng.uniform(2, 25))
        for point in rng.uniform(-10, 70, (rng.integers(1, 6), 2))
    ]
    return shapely.union_all(discs).difference(shapely.Point(rng.uniform(0, 60, 2)).buffer(8))


@pytest.mark.parametrize("seed", range(4))
def test_the_inside_is_that_of_gdal_in_any_window(seed):
    rng = np.random.default_rng(seed)
    seen = 0
    for _ in range(40):
        shape = random_shape(rng)
        if shape.is_empty:
            continue
        mask = PolygonMask(rings_of(shape))
        expected = rasterio.features.rasterize([shape], (60, 55), transform=PIXELS, dtype="uint8")
        found = mask((slice(0, 60), slice(0, 55)))
        np.testing.assert_array_equal(found, expected.astype(bool))
        seen += found.sum()
        rows, cols = mask.window
        outside = found.copy()
        outside[max(rows.start, 0) : max(rows.stop, 0), max(cols.start, 0) : max(cols.stop, 0)] = 0
        assert not outside.any()
        ends = [sorted(rng.integers(0, side + 1, 2).tolist()) for side in found.shape]
        window = tuple(slice(*pair) for pair in ends)
        np.testing.assert_array_equal(mask(window), found[window])
    assert seen > 10_000


def test_another_polygon_is_another_identity():
    square = [np.array([[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]], float)]
    moved = [square[0] + 0.25]
    assert PolygonMask(square).identity == PolygonMask([square[0].copy()]).identity
    assert PolygonMask(square).identity != PolygonMask(moved).identity
