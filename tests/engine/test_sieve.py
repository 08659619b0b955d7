"""The sieve against GDAL's."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.features
from plain_scenes import Stub, write_scene

import segfocal as sf
from segfocal.engine.label_map import LabelMap
from segfocal.engine.provenance import read_provenance
from segfocal.engine.sieve import Sieve
from segfocal.errors import OutputError


def sieved(path, values, nodata, min_pixels, strip_pixels, max_memory=None):
    window = tuple(slice(0, side) for side in values.shape)
    with LabelMap(path, values.shape, nodata, max_memory=max_memory) as labels:
        labels.write(window, values)
        by_strips = labels.strips
        labels.strips = lambda: by_strips(strip_pixels)
        Sieve(min_pixels)(labels)
        return labels.read(window)


def gdal(values, nodata, min_pixels):
    mask = (values != nodata).astype(np.uint8)
    return rasterio.features.sieve(values, min_pixels, mask=mask)


@pytest.mark.parametrize("seed", range(8))
def test_random_maps_are_sieved_as_gdal_sieves_them(tmp_path, seed):
    rng = np.random.default_rng(seed)
    changed = 0
    for _ in range(25):
        rows, cols = rng.integers(3, 50, 2)
        classes, grain = rng.integers(2, 6), rng.integers(1, 5)
        coarse = rng.integers(0, classes, (rows, cols))
        values = coarse.repeat(grain, 0).repeat(grain, 1)[:rows, :cols].astype(np.uint8)
        values[rng.random(values.shape) < rng.choice([0, 0.02, 0.3])] = classes  # no data
        min_pixels = int(rng.integers(2, max(3, min(40, values.size))))
        strip = int(rng.integers(1, values.size + 1))
        found = sieved(tmp_path / "map", values, classes, min_pixels, strip)
        np.testing.assert_array_equal(found, gdal(values, classes, min_pixels))
        changed += int((found != values).sum())
    assert changed > 1000


def test_a_real_map_is_sieved_as_gdal_sieves_it(tmp_path, shared_data):
    with rasterio.open(shared_data / "sat_nc_landsat7_landclass96" / "strata.tif") as file:
        values = np.where(file.read_masks(1) > 0, file.read(1), 8).astype(np.uint8)
    for min_pixels in (2, 9, 50, 1000):
        expected = gdal(values, 8, min_pixels)
        assert (expected != values).any()
        for strip in (500, 10_000, 10**9):
            found = sieved(tmp_path / "map", values, 8, min_pixels, strip)
            np.testing.assert_array_equal(found, expected)


def test_what_does_not_fit_into_memory_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 5, (100, 100)).astype(np.uint8)
    with pytest.raises(OutputError, match=r"connected pieces.*MB.*raise max_memory"):
        sieved(tmp_path / "map", noise, 5, 9, 1000, max_memory=100_000)


def test_predict_sieves_and_says_so(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    sf.predict(Stub(), scene, tmp_path / "plain.tif")
    result = sf.predict(Stub(), scene, tmp_path / "clean.tif", min_size=40)
    with rasterio.open(tmp_path / "plain.tif") as file:
        plain = file.read(1)
    with rasterio.open(tmp_path / "clean.tif") as file:
        clean = file.read(1)
        assert '"cleaning": [{"sieve": {"min_pixels": 40}}]' in file.tags()["SEGFOCAL_PARAMETERS"]
    np.testing.assert_array_equal(clean, gdal(plain, 255, 40))
    assert 0 < (clean != plain).mean() < 0.5
    assert list(result.class_pixels) == [(clean == value).sum() for value in (1, 2, 9)]
    about = read_provenance(tmp_path / "clean.tif")
    assert about["parameters"]["cleaning"] == [{"sieve": {"min_pixels": 40}}]
    assert "cleaning" not in read_provenance(tmp_path / "plain.tif")["parameters"]


def test_an_area_is_as_many_pixels_as_it_takes(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")  # pixels of 2 m
    digests = {
        sf.predict(Stub(), scene, tmp_path / "labels.tif", min_size=size, overwrite=True).sha256
        for size in (50, "50", "200m2", "0.02ha", "197 m2", "0.0002 km2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("0", "above 0"),
        ("-3", "above 0"),
        ("nan", "above 0"),
        ("5 acres", "m2, ha or km2"),
        ("1.5", "whole number"),
    ],
)
def test_no_sizes(tmp_path, size, message):
    scene = write_scene(tmp_path / "scene.tif")
    with pytest.raises(OutputError, match=message):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", min_size=size)
    assert not list(tmp_path.glob("*labels*"))


def test_an_area_needs_a_projected_scene(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", crs="EPSG:4326")
    with pytest.raises(OutputError, match="no fixed size in metres"):
        sf.predict(Stub(), scene, tmp_path / "labels.tif", min_size="1ha")
