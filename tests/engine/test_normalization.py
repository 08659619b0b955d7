"""Per-scan normalization in prediction: applied before the model, part of what is compared."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass, Normalization
from segfocal.errors import ModelError

ZSCORE = {"method": "zscore"}


class Stub:
    """Two classes: above or below the card's value after normalization."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "stub", "numpy", False

    def __init__(self, normalization=None, of_channel=None, mean=0.0):
        self.card = Card(
            ndim=3,
            channels=(Channel(name="a", normalization=of_channel, mean=mean),),
            classes=tuple(LabelClass(value=v, name=f"n{v}", color=(v, 0, 0)) for v in (0, 1)),
            tile=(6, 7, 8),
            orientation="RAS",
            normalization=normalization,
        )
        self.seen = []

    def __call__(self, values, valid):
        self.seen.append(values[valid])
        above = (values[..., 0] > 0.7).astype(np.float32)
        return np.stack([1 - above, above], -1)


@pytest.fixture
def volume(tmp_path):
    array = np.random.default_rng(0).normal(500, 90, (13, 14, 15)).astype(np.float32)
    array[:4] = 0
    array[6, 6, 6] = np.nan
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, 1, 2, 1])), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


@pytest.mark.parametrize("where", ["normalization", "of_channel"])
def test_labels_are_those_of_the_normalized_scan(volume, tmp_path, where):
    array = np.asarray(nib.load(volume).dataobj, np.float64)
    inside = array[(array != 0) & np.isfinite(array)]
    expected = (array - inside.mean()) / inside.std() > 0.7
    sf.predict(Stub(**{where: ZSCORE}), volume, tmp_path / "a.nii.gz", overlap=2)
    found = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(found, expected & (array != 0))


def test_the_result_does_not_depend_on_batch_or_interruption(volume, tmp_path):
    whole = sf.predict(Stub(ZSCORE), volume, tmp_path / "a.nii.gz", batch_size=1)

    def stop(done, total):
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.predict(Stub(ZSCORE), volume, tmp_path / "b.nii.gz", progress=stop, batch_size=3)
    found = sf.predict(Stub(ZSCORE), volume, tmp_path / "b.nii.gz", batch_size=5)
    assert (found.sha256, found.fingerprint) == (whole.sha256, whole.fingerprint)
    told = json.loads((tmp_path / "b.nii.gz.json").read_text())["parameters"]
    assert told["normalization"][0]["method"] == "zscore"
    plain = sf.predict(Stub(), volume, tmp_path / "c.nii.gz")
    assert plain.fingerprint != whole.fingerprint
    assert "normalization" not in json.loads((tmp_path / "c.nii.gz.json").read_text())["parameters"]


def test_arrays_and_streams_are_normalized_too(volume):
    with sf.open_scan(volume) as scan:
        model = Stub(ZSCORE)
        for _ in sf.stream(model, scan, overlap=0, tile=(13, 14, 15)):
            pass
    seen = np.concatenate(model.seen)
    assert seen[seen != 0].std() == pytest.approx(1, abs=1e-3)
    array = np.nan_to_num(np.asarray(nib.load(volume).dataobj))
    labels = sf.predict_array(Stub(ZSCORE), array[..., None])
    inside = array[array != 0]
    expected = array > inside.mean() + 0.7 * inside.std()
    assert (labels != expected).mean() < 1e-3


def test_what_is_not_valid_is_the_mean_after_normalization(volume):
    seen = {}

    class Watching(Stub):
        def __call__(self, values, valid):
            seen.setdefault("invalid", []).append(values[~valid])
            return super().__call__(values, valid)

    with sf.open_scan(volume) as scan:
        for _ in sf.stream(Watching(ZSCORE, mean=0.25), scan, tile=(13, 14, 15), overlap=0,
                           batch_size=1):  # fmt: skip
            pass
    assert np.concatenate(seen["invalid"]).ravel().tolist() == [0.25]


def test_models_of_an_ensemble_are_normalized_alike(volume, tmp_path):
    with pytest.raises(ModelError, match="model 2 of the ensemble differs in normalization"):
        sf.predict([Stub(ZSCORE), Stub()], volume, tmp_path / "a.nii.gz")


def test_exported_models_are_normalized_too(exports):
    """An exported network with another card gets what a person would give it."""
    model = sf.load_model(exports.path("onnx"))
    rng = np.random.default_rng(0)
    array = rng.normal(500, 90, (70, 80, 5)).astype(np.float32)
    array[:20] = 0
    inside = array[20:].astype(np.float64)
    by_hand = np.zeros(array.shape, np.float32)
    by_hand[20:] = (inside - inside.mean((0, 1))) / inside.std((0, 1))

    def probabilities(pixels):
        ((_, found),) = sf.stream(model, sf.MemoryScan(pixels), tile=96, overlap=0)
        return found

    expected, raw = probabilities(by_hand), probabilities(array)
    assert np.abs(raw - expected).max() > 0.01
    model.card = model.card.model_copy(update={"normalization": Normalization(**ZSCORE)})
    np.testing.assert_allclose(probabilities(array), expected, atol=1e-4)


def test_cards_say_it_only_where_it_is_so():
    plain = Stub().card.model_dump(mode="json")
    assert "normalization" not in plain
    assert "normalization" not in plain["channels"][0]
    window = {"method": "window", "low": -160, "high": 240}
    card = Stub(ZSCORE, window).card
    assert Card.from_json(json.loads(card.model_dump_json())) == card
    assert [one.method for one in card.normalizations] == ["window"]
    for wrong, message in (
        ({"method": "window", "low": 1}, "a window needs low and high"),
        ({"method": "window", "low": 3, "high": 3}, "low 3.0 is not below high 3.0"),
        ({"method": "percentile", "low": -1}, "percentiles -1.0 and 99.5"),
        ({"method": "zscore", "low": 1}, "a zscore has no low and high"),
        ({"method": "minmax"}, "normalization.method"),
    ):
        with pytest.raises(ModelError, match=message):
            Card.from_json({**plain, "normalization": wrong})
