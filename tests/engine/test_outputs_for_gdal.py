"""What GDAL sees of everything that a prediction writes, for every kind of georeference."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import rasterio
from plain_scenes import NORTH_UP, Stub, write_scene
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

import segfocal as sf

POINTS = [
    GroundControlPoint(row, col, 10 + col / 700 + row / 9000, 50 - row / 700, 7.0)
    for row, col in ((0, 0), (0, 620), (700, 0), (700, 620))
]
RPCS = RPC(
    height_off=100, height_scale=500, lat_off=50, lat_scale=1, long_off=10, long_scale=1,
    line_off=350, line_scale=350, samp_off=310, samp_scale=310,
    line_num_coeff=[0, 0, -1, *[0] * 17], line_den_coeff=[1, *[0] * 19],
    samp_num_coeff=[0, 1, *[0] * 18], samp_den_coeff=[1, *[0] * 19],
)  # fmt: skip
GEOREFERENCES = {
    "north up": {"transform": NORTH_UP},
    "south up": {"transform": rasterio.Affine(2, 0, 600000, 0, 2, 198600)},
    "rotated": {"transform": rasterio.Affine(1.5, 0.5, 600000, 0.4, -1.8, 200000)},
    "points": {"transform": None, "crs": "EPSG:4326", "gcps": POINTS},
    "rpcs": {"transform": None, "crs": None, "rpcs": RPCS},
    "none": {"transform": None, "crs": None},
}


def on_the_ground(file):
    points, crs = file.gcps
    rpcs = None if file.rpcs is None else file.rpcs.to_dict()
    places = [(point.row, point.col, point.x, point.y, point.z) for point in points]
    return file.shape, file.crs, file.transform, places, crs, rpcs


@pytest.mark.parametrize("kind", GEOREFERENCES)
def test_all_files_lie_where_the_scene_lies_and_are_valid(tmp_path, kind):
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    scene = write_scene(tmp_path / "scene.tif", (700, 620), grain=9, **GEOREFERENCES[kind])
    sf.predict(
        Stub(), scene, tmp_path / "labels.tif", probabilities="uint8", uncertainty=True, min_size=5
    )
    with pytest.warns(NotGeoreferencedWarning) if kind == "none" else np.errstate():
        with rasterio.open(scene) as file:
            expected = on_the_ground(file)
            nodata = file.read(1) == 0
        for name in ("labels.tif", "labels.probabilities.tif", "labels.uncertainty.tif"):
            path = tmp_path / name
            assert cogeo.cog_validate(path, strict=True, quiet=True) == (True, [], [])
            with rasterio.open(path) as file:
                assert on_the_ground(file) == expected
                np.testing.assert_array_equal(file.read_masks(1) == 0, nodata)
                assert file.overviews(1) == [2]
                assert file.tags()["SEGFOCAL_MODEL"] == "stub"
        with rasterio.open(tmp_path / "labels.tif") as file:
            labels = file.read(1)
            assert file.colormap(1)[9] == (9, 9, 0, 255)
            assert file.colormap(1)[255][3] == 0
        with rasterio.open(tmp_path / "labels.tif", overview_level=0) as file:
            np.testing.assert_array_equal(file.read(1), labels[::2, ::2])
    assert set(np.unique(labels)) == {1, 2, 9, 255}
    described = ElementTree.parse(tmp_path / "labels.tif.aux.xml")
    names = [category.text for category in described.iter("Category")]
    assert (len(names), names[1], names[2], names[9]) == (10, "class 1", "class 2", "class 9")
