"""Temperatures against scipy, in cards, in what is predicted, and in exports."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scored import VALUES, Reading, dataset

import segfocal as sf
from segfocal.card import Card
from segfocal.card_files import read_card
from segfocal.cli import segfocal as command
from segfocal.engine.stored_temperature import store_temperature
from segfocal.errors import ModelError
from segfocal.temperature import best_temperature, scaled


def drawn(sharpness, pixels=20_000, classes=5):
    """Return logits that are too sure by a factor, and labels."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, (pixels, classes))
    edges = softmax(logits, -1).cumsum(-1)
    return sharpness * logits, (rng.random((pixels, 1)) > edges[:, :-1]).sum(-1)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.7])
def test_the_temperature_is_that_of_scipy_on_the_logits(sharpness):
    logits, truth = drawn(sharpness)

    def cost(parameters):
        scores = log_softmax(logits / np.exp(parameters[0]), axis=-1)
        return -scores[np.arange(len(truth)), truth].mean()

    expected = float(np.exp(minimize(cost, [0.0], method="Nelder-Mead", tol=1e-9).x[0]))
    found = best_temperature(softmax(logits, -1).astype(np.float32), truth)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found == pytest.approx(sharpness, rel=0.05)


def test_scaled_probabilities_are_those_of_divided_logits():
    logits, _ = drawn(2.0, pixels=500)
    found = scaled(softmax(logits, -1).astype(np.float32).reshape(10, 50, 5), 1.7)
    np.testing.assert_allclose(found.reshape(500, 5), softmax(logits / 1.7, -1), atol=2e-6)
    kept = np.float32([[np.nan] * 3, [1, 0, 0]])
    np.testing.assert_array_equal(np.isnan(scaled(kept, 2.0)), np.isnan(kept))
    assert scaled(kept, None) is kept


def test_a_card_holds_it_and_others_do_not_name_it():
    card = Card.generic(ndim=2, in_channels=1, num_classes=3)
    assert "temperature" not in json.loads(card.model_dump_json())
    warm = Card.from_json({**card.model_dump(mode="json"), "temperature": 1.25})
    assert Card.from_json(json.loads(warm.model_dump_json())) == warm
    assert warm.temperature == 1.25
    for wrong in (0, -1, float("inf")):
        with pytest.raises(ModelError, match="temperature"):
            Card.from_json({**card.model_dump(mode="json"), "temperature": wrong})
    regions = Card.generic(ndim=2, in_channels=1, num_classes=3, task="regions")
    with pytest.raises(ModelError, match="temperature is for exclusive classes"):
        Card.from_json({**regions.model_dump(mode="json"), "temperature": 2.0})


def warm(model, temperature):
    """Return a predictor with a temperature in its card."""
    model.card = model.card.model_copy(update={"temperature": temperature})
    model.hash += f" {temperature}"
    return model


def read(path):
    with rasterio.open(path) as source:
        return np.moveaxis(source.read(), 0, -1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_layers_and_streams_have_it_and_labels_do_not_change(ndim, tmp_path):
    dataset(tmp_path, ndim, cases=1)
    suffix = ".tif" if ndim == 2 else ".nii.gz"
    scan = tmp_path / f"case0_image{suffix}"
    streams = []
    for name, model in (("cold", Reading(ndim)), ("warm", warm(Reading(ndim), 2.5))):
        out = tmp_path / f"{name}{suffix}"
        sf.predict(model, scan, out, probabilities="float32", uncertainty=True, tile=16)
        with sf.open_scan(scan) as opened:
            whole = np.full((*opened.shape, 3), 7, np.float32)
            for window, part in sf.stream(model, opened, tile=16):
                whole[window] = part
        streams.append(whole)
    cold, mended = streams
    expected = cold ** (1 / 2.5)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(mended, expected, atol=1e-5)
    assert np.nanmax(np.abs(mended - cold)) > 0.1
    if ndim == 3:
        import nibabel

        def read_volume(name):
            return np.asarray(nibabel.load(tmp_path / f"{name}{suffix}").dataobj)

        np.testing.assert_array_equal(read_volume("warm"), read_volume("cold"))
        np.testing.assert_allclose(read_volume("warm.probabilities"), mended, atol=1e-6)
        return
    np.testing.assert_array_equal(read(tmp_path / "warm.tif"), read(tmp_path / "cold.tif"))
    np.testing.assert_allclose(read(tmp_path / "warm.probabilities.tif"), mended, atol=1e-6)
    entropy = -(expected * np.log(expected)).sum(-1) / np.log(3)
    np.testing.assert_allclose(read(tmp_path / "warm.uncertainty.tif")[..., 0], entropy, atol=1e-5)
    sf.predict(warm(Reading(2), 2.5), scan, tmp_path / "small.tif", probabilities="uint8", tile=16)
    steps = read(tmp_path / "small.probabilities.tif")
    valid = ~np.isnan(mended)
    np.testing.assert_allclose(steps[valid] / 250, mended[valid], atol=1 / 499)


def test_an_ensemble_has_none(tmp_path):
    dataset(tmp_path, 2, cases=1)
    with sf.open_scan(tmp_path / "case0_image.tif") as scan:
        plain = np.concatenate([p for _, p in sf.stream([Reading(2), Reading(2)], scan)])
        both = [warm(Reading(2), 3.0), Reading(2)]
        mixed = np.concatenate([part for _, part in sf.stream(both, scan)])
    np.testing.assert_array_equal(plain, mixed)


def network(folder):
    """Save a small network of random weights that say something."""
    import keras

    keras.utils.set_random_seed(1)
    encoder = {"embed_dim": 8, "depths": (1, 1, 1, 1), "focal_levels": 1}
    model = sf.FocalUNet(card=Reading(2).card, preset="nano", encoder=encoder)
    head = model.get_layer("logits")
    head.kernel.assign(np.random.default_rng(1).normal(0, 1, head.kernel.shape))
    sf.save_model(model, folder / "model.keras")
    return folder / "model.keras"


def draw_labels(spec, model, temperature):
    """Write labels that are drawn with the model's probabilities at a temperature."""
    rng = np.random.default_rng(5)
    for case in spec.cases:
        with sf.open_scan(spec.path(case.image)) as scan:
            found = np.concatenate([part for _, part in sf.stream(model, scan)])
        edges = scaled(found, temperature).cumsum(-1)[..., :-1]
        drawn = (rng.random(found.shape[:2])[..., None] > edges).sum(-1)
        with rasterio.open(spec.path(case.labels), "r+") as labels:
            labels.write(np.array(VALUES[2], np.uint8)[drawn], 1)


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_evaluate_stores_it_and_a_second_time_finds_nothing_to_mend(tmp_path):
    spec, _ = dataset(tmp_path, 2)
    model = network(tmp_path)
    draw_labels(spec, model, 2.5)
    before = contents(model)
    labels = sf.evaluate(model, spec, out=tmp_path / "before", calibration=True)
    given = ["evaluate", str(model), str(tmp_path / "spec.yaml"), "--calibrate", "--no-distances"]
    done = CliRunner().invoke(command, [*given, "--split", "test", "-o", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    stored = read_card(model).temperature
    assert stored == pytest.approx(labels.calibration.temperature, rel=1e-3)
    assert stored == pytest.approx(2.5, rel=0.12)
    assert f"temperature {stored:.3f} is in the card of model.keras now" in done.output
    written = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert written["calibration"]["ece_with_temperature"] < 0.7 * written["calibration"]["ece"]
    assert any("is in the card" in note for note in written["notes"])
    after = contents(model)
    assert [*after] == [*before]
    assert [name for name in after if after[name] != before[name]] == ["config.json"]
    assert sf.load_model(model).card.temperature == stored

    again = sf.evaluate(model, spec, out=tmp_path / "b", calibrate=True)
    assert again.calibration.temperature == pytest.approx(1, abs=0.02)
    assert again.calibration.error == pytest.approx(
        written["calibration"]["ece_with_temperature"], abs=0.02
    )
    assert read_card(model).temperature == pytest.approx(stored, rel=0.02)
    for case, path in labels.labels.items():
        np.testing.assert_array_equal(read(path), read(again.labels[case]))


def test_a_model_that_is_never_wrong_gets_none(tmp_path):
    spec, _ = dataset(tmp_path, 2)
    model = network(tmp_path)
    draw_labels(spec, model, 1e-3)
    found = sf.evaluate(model, spec, out=tmp_path / "out", calibrate=True)
    assert found.notes[-1].startswith("no temperature is stored in model.keras")
    assert found.notes[-1].endswith("never wrong there")
    assert read_card(model).temperature is None


def test_what_cannot_hold_it_is_refused_before_anything_is_run(tmp_path):
    spec, _ = dataset(tmp_path, 2)
    with pytest.raises(ModelError, match="is stored in a"):
        sf.evaluate(Reading(2), spec, out=tmp_path / "out", calibrate=True)
    with pytest.raises(ModelError, match="is stored in a"):
        sf.evaluate("model.onnx", spec, out=tmp_path / "out", calibrate=True)
    model = network(tmp_path)
    done = CliRunner().invoke(
        command,
        ["evaluate", str(model), str(tmp_path / "spec.yaml"), "--calibrate", "-o",
         str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 2
    assert "val" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_export_carries_it(exports, tmp_path):
    exports.path("onnx")  # skips where it cannot be made
    model = tmp_path / "model.keras"
    _ = exports.model
    shutil.copyfile(exports.keras, model)
    store_temperature(model, 3.0)
    sf.export(model, tmp_path / "model.onnx")
    assert read_card(tmp_path / "model.onnx").temperature == 3.0
    values = np.random.default_rng(0).normal(70, 20, (70, 80, 5)).astype(np.float32)
    with sf.MemoryScan(values) as scan:
        found = [
            np.concatenate([part for _, part in sf.stream(one, scan)])
            for one in (exports.keras, model, tmp_path / "model.onnx")
        ]
    expected = found[0] ** (1 / 3)
    expected /= expected.sum(-1, keepdims=True)
    for one in found[1:]:
        np.testing.assert_allclose(one, expected, atol=1e-4)
    assert np.abs(found[0] - expected).max() > 0.05
