"""When a scan is resampled, when it is warned of, and when that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.resolution import at_model_resolution
from segfocal.errors import GeometryError
from segfocal.io import MemoryScan


def card_of(*resolution, ndim=None):
    ndim = ndim or len(resolution)
    return Card(
        ndim=ndim,
        channels=(Channel(name="a"),),
        classes=tuple(LabelClass(value=v, name=f"class {v}", color=(v, 0, 0)) for v in (0, 1)),
        tile=(8,) * ndim,
        resolution=resolution or None,
        orientation="RAS" if ndim == 3 else None,
    )


def scan_of(*resolution, ndim=None):
    return MemoryScan(np.ones((40,) * (ndim or len(resolution)) + (1,)),
                      resolution=resolution or None)  # fmt: skip


@pytest.mark.parametrize(
    ("card", "scan", "resample", "shape"),
    [
        (card_of(1, 1, 1), scan_of(1, 1, 1), "auto", None),
        (card_of(1, 1, 1), scan_of(1, 1.009, 0.992), "auto", None),
        (card_of(1, 1, 1), scan_of(1, 1.1, 1), "auto", (40, 44, 40)),
        (card_of(1, 1, 1), scan_of(1, 1, 0.5), "auto", (40, 40, 20)),
        (card_of(1, 1, 1), scan_of(1, 1.1, 1), "never", None),
        (card_of(1, 1, 1), scan_of(ndim=3), "auto", None),
        (card_of(ndim=3), scan_of(1, 1.1, 1), "auto", None),
        (None, scan_of(1, 1.1, 1), "auto", None),
        (card_of(10, 10), scan_of(20, 6), "auto", None),
        (card_of(10, 10), scan_of(20, 7), "always", (80, 28)),
        (card_of(10, 10), scan_of(10, 10), "always", None),
        (card_of(10, 10), scan_of(1, 1, 1), "auto", None),
    ],
)
def test_volumes_are_resampled_and_scenes_where_it_is_asked_for(card, scan, resample, shape):
    found = at_model_resolution(card, scan, resample)
    assert (None if found is None else found.shape) == shape


@pytest.mark.parametrize(
    ("card", "scan", "resample"),
    [
        (card_of(10, 10), scan_of(10, 21), "auto"),
        (card_of(10, 10), scan_of(4.9, 10), "never"),
        (card_of(1, 1, 1), scan_of(1, 1, 2.1), "never"),
        (card_of(10, 10), scan_of(1e-4, 1e-4), "auto"),
    ],
)
def test_a_scan_that_is_taken_as_it_is_in_spite_of_a_factor_of_two_is_warned_of(
    card, scan, resample
):
    with pytest.warns(UserWarning, match="the model was trained on pixels of"):
        assert at_model_resolution(card, scan, resample) is None


@pytest.mark.parametrize(
    ("card", "scan", "resample", "message"),
    [
        (card_of(ndim=2), scan_of(1, 1), "always", "the model: has no resolution"),
        (None, scan_of(1, 1), "always", "the model: has no resolution"),
        (card_of(1, 1), scan_of(ndim=2), "always", "array: has no resolution"),
        (card_of(1, 1), scan_of(1, 1, 1), "always", "has 3 spatial axes"),
        (card_of(10, 10), scan_of(1e-4, 1e-4), "always", "cannot be the same unit"),
        (card_of(1, 1, 1), scan_of(1e-3, 1e-3, 1e-3), "auto", "cannot be the same unit"),
        (card_of(1, 1), scan_of(1, 1), "yes", "expected auto, never or always"),
    ],
)
def test_what_cannot_be_is_refused(card, scan, resample, message):
    with pytest.raises(GeometryError, match=message) as caught:
        at_model_resolution(card, scan, resample)
    assert "\n" not in str(caught.value)
    with pytest.raises(GeometryError, match="interpolation"):
        at_model_resolution(card, scan, "auto", 2)  # type: ignore[arg-type]


def test_degrees_and_metres_are_told_and_nothing_is_written(tmp_path):
    path = tmp_path / "degrees.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=30, count=1, dtype="uint8", crs="EPSG:4326",
        transform=rasterio.Affine(1e-4, 0, 10, 0, -1e-4, 50),
    ) as out:  # fmt: skip
        out.write(np.ones((1, 30, 30), np.uint8))

    class Stub:
        ndim, output_stride, hash, engine, card = 2, 1, "stub", "numpy", card_of(10, 10)

        def __call__(self, values, valid):
            return np.full((*valid.shape, 2), 0.5, np.float32)

    with pytest.raises(GeometryError, match=r"0\.0001 x 0\.0001 in degrees; the model was"):
        sf.predict(Stub(), path, tmp_path / "labels.tif", resample="always")
    assert [entry.name for entry in tmp_path.iterdir()] == ["degrees.tif"]
