"""Probabilities and uncertainty beside a label map."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import OutputError, OutputExistsError

NORTH_UP = rasterio.Affine(2, 0, 0, 0, -2, 0)
SOUTH_UP = rasterio.Affine(2, 0, 0, 0, 2, 0)


class Stub:
    """Probabilities that depend on the pixel and on its place in the tile."""

    ndim, output_stride, hash, engine, batch_matters = 2, 1, "stub", "numpy", False

    def __init__(self, classes=3, task="classes"):
        self.card = Card(
            channels=(Channel(name="a"),),
            classes=tuple(
                LabelClass(value=v + 1, name=f"name {v}", color=(v, 0, 0)) for v in range(classes)
            ),
            task=task,
            tile=(64, 64),
        )

    def __call__(self, values, valid):
        turn = np.arange(len(self.card.classes)) + np.arange(values.shape[2])[:, None] / 90
        score = np.exp(3 * np.sin(values / 9 + turn)).astype(np.float32)
        if self.card.task == "regions":
            return score / (1 + score)
        return score / score.sum(-1, keepdims=True)


def write_scene(path, transform=NORTH_UP):
    pixels = np.random.default_rng(0).integers(0, 99, (20, 15), np.uint8).repeat(9, 0).repeat(11, 1)
    with rasterio.open(
        path, "w", driver="GTiff", width=165, height=180, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32119", transform=transform,
    ) as out:  # fmt: skip
        out.write(pixels, 1)
    return path


def streamed(model, scene):
    with sf.open_scan(scene) as scan:
        out = np.empty((*scan.shape, len(model.card.classes)), np.float32)
        for window, probabilities in sf.stream(model, scan):
            out[window] = probabilities
    return out


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("layout", ["cog", "gtiff"])
@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP])
def test_layers_hold_what_stream_yields(tmp_path, classes, layout, transform):
    model, scene = Stub(classes), write_scene(tmp_path / "scene.tif", transform)
    expected = streamed(model, scene)
    if transform == SOUTH_UP:
        expected = expected[::-1]
    nodata = np.isnan(expected[..., 0])
    assert 0 < nodata.mean() < 1
    for kind in ("float32", "uint8"):
        sf.predict(
            model, scene, tmp_path / f"{kind}.tif", probabilities=kind, uncertainty=True,
            layout=layout,
        )  # fmt: skip
        with rasterio.open(tmp_path / f"{kind}.probabilities.tif") as file:
            assert (file.count, file.dtypes[0]) == (classes, kind)
            assert file.transform == transform
            assert file.crs.to_epsg() == 32119
            assert file.descriptions == tuple(f"name {i}" for i in range(classes))
            assert "red" not in [colour.name for colour in file.colorinterp]
            assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") is (layout == "cog")
            found = np.moveaxis(file.read(), 0, -1)
            if kind == "float32":
                assert np.isnan(file.nodata)
                np.testing.assert_array_equal(found, expected)
            else:
                assert (file.nodata, set(file.scales)) == (255, {1 / 250})
                assert (found[nodata] == 255).all()
                assert abs(found[~nodata] / 250 - expected[~nodata]).max() <= 0.5 / 250 + 1e-6
        with rasterio.open(tmp_path / f"{kind}.uncertainty.tif") as file:
            assert file.descriptions == ("entropy",)
            entropy = file.read(1)
        p = expected.astype(np.float64)
        np.testing.assert_allclose(
            entropy, -(p * np.log(p)).sum(-1) / np.log(classes), atol=1e-5, equal_nan=True
        )
        with rasterio.open(tmp_path / f"{kind}.tif") as file:
            labels = file.read(1)
        shown = np.where(nodata, 255, np.nan_to_num(expected).argmax(-1) + 1)
        np.testing.assert_array_equal(labels, shown)


def test_regions_overlap(tmp_path):
    model, scene = Stub(3, "regions"), write_scene(tmp_path / "scene.tif")
    expected = streamed(model, scene)
    assert (np.nansum(expected, -1) > 1.5).any()
    sf.predict(model, scene, tmp_path / "a.tif", probabilities="float32", uncertainty=True)
    with rasterio.open(tmp_path / "a.probabilities.tif") as file:
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), expected)
    p = expected.astype(np.float64)
    entropy = (-(p * np.log2(p) + (1 - p) * np.log2(1 - p))).max(-1)
    with rasterio.open(tmp_path / "a.uncertainty.tif") as file:
        np.testing.assert_allclose(file.read(1), entropy, atol=1e-5, equal_nan=True)


def test_a_stopped_run_writes_the_same_layers(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif")
    options = {"probabilities": "float32", "uncertainty": True}
    sf.predict(Stub(), scene, tmp_path / "whole.tif", **options)

    def stop(done, total):
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(), scene, tmp_path / "a.tif", progress=stop, batch_size=1, **options)
    notices = []
    sf.predict(Stub(), scene, tmp_path / "a.tif", notice=notices.append, **options)
    assert "continues with" in notices[0]
    for layer in ("", ".probabilities", ".uncertainty"):
        assert (tmp_path / f"a{layer}.tif").read_bytes() == (
            tmp_path / f"whole{layer}.tif"
        ).read_bytes()


@pytest.mark.parametrize("layout", ["cog", "gtiff"])
@pytest.mark.parametrize("damaged", ["probabilities", "uncertainty"])
@pytest.mark.parametrize("band", [0, -1])
def test_a_layer_that_is_not_as_written_is_told(tmp_path, monkeypatch, layout, damaged, band):
    copy = rasterio.shutil.copy

    def damaging(source, place, **options):
        copy(source, place, **options)
        if damaged in place.name:
            with rasterio.open(place, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
                which = file.indexes[band]
                values = file.read(which)
                values[90, 80] += 0.001  # which a checksum of whole numbers does not see
                file.write(values, which)

    monkeypatch.setattr(rasterio.shutil, "copy", damaging)
    scene, out = write_scene(tmp_path / "scene.tif"), tmp_path / "labels.tif"
    with pytest.raises(OutputError, match=rf"verification failed: layer \d+ of labels\.{damaged}"):
        sf.predict(Stub(), scene, out, probabilities="float32", uncertainty=True, layout=layout)
    assert [path.name for path in tmp_path.glob("labels*")] == []


def test_an_output_without_its_layers_is_not_finished(tmp_path):
    scene, out = write_scene(tmp_path / "scene.tif"), tmp_path / "a.tif"
    options = {"probabilities": "uint8"}
    sf.predict(Stub(), scene, out, **options)
    assert sf.predict(Stub(), scene, out, **options).unchanged
    told = json.loads((tmp_path / "a.tif.json").read_text())["result"]["layers"]
    assert told["probabilities"]["file"] == "a.probabilities.tif"
    (tmp_path / "a.probabilities.tif").unlink()
    with pytest.raises(OutputExistsError):
        sf.predict(Stub(), scene, out, **options)
    assert not sf.predict(Stub(), scene, out, overwrite=True, **options).unchanged
    assert (tmp_path / "a.probabilities.tif").exists()


def test_layers_of_the_output_that_is_replaced_go_with_it(tmp_path):
    scene, out = write_scene(tmp_path / "scene.tif"), tmp_path / "a.tif"
    sf.predict(Stub(), scene, out, probabilities="uint8", uncertainty=True)
    sf.predict(Stub(), scene, out, uncertainty=True, overwrite=True)
    assert not (tmp_path / "a.probabilities.tif").exists()
    assert (tmp_path / "a.uncertainty.tif").exists()


def test_a_layer_that_is_there_is_kept(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    (tmp_path / "a.uncertainty.tif").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"a\.uncertainty\.tif: exists already"):
        sf.predict(Stub(), scene, tmp_path / "a.tif", uncertainty=True)
    assert (tmp_path / "a.uncertainty.tif").read_text() == "precious"
    assert not (tmp_path / "a.tif").exists()


def test_what_cannot_be_written_is_refused(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    with pytest.raises(OutputError, match="probabilities 'int8'; expected float32 or uint8"):
        sf.predict(Stub(), scene, tmp_path / "a.tif", probabilities="int8")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
