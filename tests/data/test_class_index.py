"""The index of classes: bounded, even, kept in a file, and of these files only."""

from __future__ import annotations

import os
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio.shutil
from test_sampling import dataset, write_scene  # noqa: F401

from segfocal.data import class_index as module
from segfocal.data import reading
from segfocal.data.class_index import build_index, index_key, keep_index, kept_index
from segfocal.data.reading import open_regions
from segfocal.data.reservoir import Reservoir


@pytest.fixture
def readers(tmp_path, dataset):  # noqa: F811
    """Two regions of a scene of three classes, one of them rare, with pixels without a label."""
    labels = np.random.default_rng(0).choice([0, 1, 255], (90, 80), p=[0.6, 0.2, 0.2])
    labels[5, 7] = labels[70, 60] = 2
    write_scene(tmp_path / "a.tif", np.zeros(labels.shape, "uint8"))
    write_scene(tmp_path / "labels.tif", labels.astype("uint8"), nodata=255)
    parts = [{"case": "a", "rows": rows} for rows in ([0, 40], [50, 90])]
    spec = dataset(splits={"train": parts})
    with ExitStack() as stack:
        yield open_regions(spec, "train", stack), labels


def test_every_pixel_of_a_class_is_in_it_when_there_are_few(readers, monkeypatch):
    monkeypatch.setitem(reading.BLOCK, 2, 32)
    regions, labels = readers
    index = build_index(regions, 0)
    assert index.pixels == 80 * 80
    for k in range(3):
        expected = {
            (number, int(row), int(col))
            for number, rows in enumerate((slice(0, 40), slice(50, 90)))
            for row, col in np.argwhere(labels == k)
            if rows.start <= row < rows.stop
        }
        assert set(map(tuple, index.positions[k].tolist())) == expected
        assert index.counts[k] == len(expected)
        assert index.positions[k].dtype == np.int32


def test_of_a_frequent_class_so_many_are_kept_evenly(readers, monkeypatch):
    monkeypatch.setitem(reading.BLOCK, 2, 16)
    monkeypatch.setattr(module, "MOST_OF_A_LABEL", 500)
    regions, _ = readers
    index = build_index(regions, 0)
    assert [len(rows) for rows in index.positions] == [500, 500, 2]
    assert index.counts[0] > 3000
    assert len({tuple(row) for row in index.positions[0].tolist()}) == 500
    for axis, middle in ((1, 45), (2, 40)):
        assert 200 < (index.positions[0][:, axis] < middle).sum() < 300
    assert (index.positions[0] != build_index(regions, 1).positions[0]).any()


def test_an_index_is_read_back_from_its_file(readers, tmp_path):
    regions, _ = readers
    index, key, path = build_index(regions, 0), index_key(regions, 0), tmp_path / "index.npz"
    assert kept_index(path, key) is None
    keep_index(path, key, index)
    again = kept_index(path, key)
    assert (again.counts, again.pixels) == (index.counts, index.pixels)
    for a, b in zip(again.positions, index.positions, strict=True):
        np.testing.assert_array_equal(a, b)
    assert kept_index(path, index_key(regions, 1)) is None
    assert kept_index(path, index_key(regions[:1], 0)) is None
    assert {file.suffix for file in tmp_path.iterdir()} == {".tif", ".npz"}
    for damaged in (b"", path.read_bytes()[:-100], b"PK nothing"):
        path.write_bytes(damaged)
        assert kept_index(path, key) is None


def test_a_changed_file_has_another_key(readers, tmp_path):
    regions, _ = readers
    key = index_key(regions, 0)
    assert index_key(regions, 0) == key
    about = os.stat(tmp_path / "labels.tif")
    os.utime(tmp_path / "labels.tif", ns=(about.st_atime_ns, about.st_mtime_ns + 10**6))
    assert index_key(regions, 0) != key


def test_files_behind_a_file_count(tmp_path, dataset):  # noqa: F811
    shapely, pyogrio = pytest.importorskip("shapely"), pytest.importorskip("pyogrio")
    write_scene(tmp_path / "a.tif", np.zeros((90, 80), "uint8"))
    with rasterio.open(tmp_path / "a.tif") as source:
        rasterio.shutil.copy(source, tmp_path / "a.vrt", driver="VRT")
    squares = shapely.to_wkb([shapely.box(0, -300, 200, 0), shapely.box(300, -300, 500, 0)])
    pyogrio.raw.write(
        tmp_path / "a.shp", squares, [np.array(["c1", "c2"], object)], ["kind"],
        geometry_type="Polygon", crs="EPSG:32633",
    )  # fmt: skip
    spec = dataset(
        cases=[{"id": "a", "image": "a.vrt", "labels": "a.shp"}],
        labels={"kind": "vector", "class_field": "kind"},
    )
    with ExitStack() as stack:
        regions = open_regions(spec, "train", stack)
        key = index_key(regions, 0)
        for name in ("a.dbf", "a.tif"):
            about = os.stat(tmp_path / name)
            os.utime(tmp_path / name, ns=(about.st_atime_ns, about.st_mtime_ns + 10**6))
            assert index_key(regions, 0) != key
            key = index_key(regions, 0)


def test_an_index_that_cannot_be_written_is_no_error(readers, tmp_path):
    regions, _ = readers
    keep_index(tmp_path / "missing" / "index.npz", "key", build_index(regions, 0))
    assert not (tmp_path / "missing").exists()


def test_a_reservoir_keeps_each_row_with_the_same_chance():
    hits = np.zeros(60)
    for seed in range(400):
        reservoir = Reservoir(12, 1, np.int32, np.random.default_rng(seed))
        for start in range(0, 60, 10):
            rows = np.arange(start, start + 10)[:, None]
            reservoir.offer(10, rows.__getitem__)
        assert len(reservoir.rows) == 12
        hits[reservoir.rows[:, 0]] += 1
    assert hits.sum() == 400 * 12
    assert hits.min() > 40
    assert hits.max() < 125  # 80 expected
