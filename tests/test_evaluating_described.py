"""Evaluation reads scans as the spec describes them: files, names, scale, labels of any kind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import segfocal as sf
from segfocal.card import Card, Channel
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SegfocalWarning


class Threshold:
    """A predictor: class 1 where the first channel is above the second."""

    ndim, output_stride, hash, engine = 2, 1, "threshold", "numpy"

    def __init__(self, spec):
        self.card = Card(
            channels=tuple(Channel(name=name) for name in spec.channels),
            named_channels=True,
            classes=spec.classes,
        )

    def __call__(self, values, valid):
        above = (values[..., 0] > values[..., 1]).astype(np.float32)
        return np.stack([1 - above, above], -1)


def write(path, *bands, transform=None, **options):
    bands = np.stack(bands)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
        dtype=bands.dtype, crs="EPSG:32633",
        transform=transform or Affine(10, 0, 500000, 0, -10, 4000000), **options,
    ) as out:  # fmt: skip
        out.write(bands)


@pytest.fixture
def spec(tmp_path):
    rng = np.random.default_rng(0)
    nir, red = rng.integers(1, 200, (2, 40, 50)).astype("uint8")
    nir[:3] = 0  # nodata by the spec, not by the file
    write(tmp_path / "nir.tif", nir)
    write(tmp_path / "rest.tif", red + 100, red)
    truth = (nir > red * 0.5).astype("uint8")
    colors = np.where(truth[None] == 1, [[[0]], [[255]], [[0]]], [[[9]], [[9]], [[9]]])
    write(tmp_path / "labels.tif", *colors.astype("uint8"))
    document = {
        "name": "green",
        "ndim": 2,
        "channels": ["nir", "red"],
        "bands": {"rest": ["blue", "red"]},
        "scale": {"red": 0.5},
        "nodata": {"nir": 0},
        "classes": [
            {"value": 0, "name": "bare", "color": [9, 9, 9]},
            {"value": 7, "name": "green", "color": [0, 255, 0]},
        ],
        "labels": "colors",
        "cases": [
            {"id": "a", "images": {"nir": "nir.tif", "rest": "rest.tif"}, "labels": "labels.tif"}
        ],
        "splits": {"test": ["a"]},
    }
    return DatasetSpec.model_validate(DatasetSpec.spelled_out(document)).located(tmp_path)


def test_scans_are_segmented_as_the_spec_describes_them(spec, tmp_path):
    score = sf.evaluate(Threshold(spec), spec, "test", out=tmp_path / "out", tile=32)
    assert score.accuracy == 1.0
    assert score.matrix.sum() == 37 * 50, "nodata of the spec is not scored"
    with (
        rasterio.open(tmp_path / "out" / "a.tif") as out,
        rasterio.open(tmp_path / "nir.tif") as nir,
    ):
        found = out.read(1)
        assert (out.transform, out.crs) == (nir.transform, nir.crs)
        np.testing.assert_array_equal(found == 255, nir.read(1) == 0)
    assert set(np.unique(found)) == {0, 7, 255}


def test_another_description_is_another_run(spec, tmp_path):
    first = sf.evaluate(Threshold(spec), spec, "test", out=tmp_path / "out", tile=32)
    before = json.loads((tmp_path / "out" / "a.tif.json").read_text())["fingerprint"]
    other = spec.model_copy(update={"scale": {"red": 2.0}})
    second = sf.evaluate(
        Threshold(other), other, "test", out=tmp_path / "out", tile=32, overwrite=True
    )
    after = json.loads((tmp_path / "out" / "a.tif.json").read_text())["fingerprint"]
    assert before != after
    assert second.accuracy < first.accuracy


def test_scores_against_labels_on_another_grid(spec, tmp_path):
    with rasterio.open(tmp_path / "labels.tif") as source:
        bands = source.read()
    shifted = Affine(10, 0, 500000 - 20, 0, -10, 4000000 + 30)
    framed = np.pad(bands, [(0, 0), (3, 5), (2, 6)], constant_values=9)
    write(tmp_path / "labels.tif", *framed, transform=shifted)
    with pytest.warns(SegfocalWarning, match="read there, nearest"):
        score = sf.evaluate(Threshold(spec), spec, "test", out=tmp_path / "out", tile=32)
    assert score.accuracy == 1.0
