"""Contexts chosen at prediction: the same network, other means, through the real engine."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from PIL import Image

import segfocal as sf
from segfocal.engine import calibration, contexts
from segfocal.engine.calibration import measure_context
from segfocal.engine.contexts import calibrate, in_context
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.predictors import as_predictor
from segfocal.errors import GeometryError, ModelError, OutputExistsError
from segfocal.io.resampling import ResampledScan
from segfocal.models import FocalUNet

SHALLOW = {"depths": [1, 1, 1, 1], "focal_levels": 1}


@pytest.fixture(scope="module")
def model() -> FocalUNet:
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=3, in_channels=2, preset="nano", encoder=SHALLOW)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith(("kernel", "bias")):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


@pytest.fixture(scope="module")
def array():
    rng = np.random.default_rng(0)
    return (np.cumsum(rng.normal(size=(100, 131, 2)), 0) / 5).astype("float32")


def probabilities(model, array, **options):
    with sf.MemoryScan(array) as scan:
        out = np.zeros((*array.shape[:-1], 3), "float32")
        for window, part in sf.stream(model, scan, tile=64, overlap=0, **options):
            out[window] = part
    return out


def test_frozen_means_are_measured_before_the_first_tile(model, array):
    frozen = model.with_global_context("frozen")
    with sf.MemoryScan(array) as scan:
        context = calibrate(model, scan, tile=64)
    image, valid = np.zeros((1, 64, 64, 2), "float32"), np.ones((1, 64, 64), bool)
    image[0] = array[:64, :64]
    logits = np.asarray(frozen({"image": image, "valid": valid, "context": context[None]}))[0]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = probabilities(model, array, global_context="frozen")
    np.testing.assert_allclose(found[:64, :64], expected, atol=1e-5)
    # A model that is frozen already needs no option.
    np.testing.assert_array_equal(probabilities(frozen, array), found)
    assert np.abs(found - probabilities(model, array)).max() > 1e-2


def test_exact_means_do_not_depend_on_the_tile(model):
    # Rows are taken as a whole; columns are more than four times the receptive field's 96.
    rng = np.random.default_rng(0)
    array = (np.cumsum(rng.normal(size=(40, 420, 2)), 1) / 5).astype("float32")
    with sf.MemoryScan(array) as scan:
        one, other = (calibrate(model, scan, exact=True, tile=tile) for tile in (64, 128))
        once = calibrate(model, scan, tile=64)
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())
    assert np.abs(once - one).max() > 1e-3 * np.abs(one).max()


def test_a_scan_is_measured_at_the_resolution_it_is_segmented_at(model, array, monkeypatch):
    model = FocalUNet.from_config(model.get_config())
    model.card = model.card.model_copy(update={"resolution": (2.0, 1.5)})
    scan = sf.MemoryScan(array, resolution=(1, 1))
    resampled = ResampledScan(scan, (2, 1.5), 3)
    options = {"resample": "always", "interpolation": 3}
    expected = calibrate(model, resampled, tile=64)
    np.testing.assert_array_equal(calibrate(model, scan, tile=64, **options), expected)
    assert np.abs(calibrate(model, scan, tile=64) - expected).max() > 1e-6
    seen = []
    measure = contexts.measure_context

    def watched(model, scan, *rest, **more):
        seen.append(scan)
        return measure(model, scan, *rest, **more)

    monkeypatch.setattr(contexts, "measure_context", watched)
    windows = [w for w, _ in sf.stream(model, scan, tile=64, global_context="frozen", **options)]
    assert [scan.shape for scan in seen] == [resampled.shape]
    assert windows[-1][0].stop == scan.shape[0]


def test_every_context_predicts_labels_and_twins_are_kept(model, array):
    seen = {
        mode: sf.predict_array(model, array, tile=64, global_context=mode)
        for mode in ("tile", "frozen", "none")
    }
    assert all((labels >= 0).all() for labels in seen.values())
    assert (seen["tile"] != seen["none"]).any()
    assert (seen["tile"] != seen["frozen"]).any()
    assert in_context(model, "none") is in_context(model, "none")


def test_frozen_labels_are_written_and_a_second_run_finds_them_finished(model, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=90, height=70, count=2, dtype="float32",
        crs="EPSG:32616", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
    ) as out:  # fmt: skip
        out.write(rng.normal(size=(2, 70, 90)).astype("float32"))
    results = [
        sf.predict(model, path, tmp_path / "labels.tif", tile=64, global_context="frozen")
        for _ in range(2)
    ]
    assert not results[0].unchanged
    assert results[1].unchanged
    assert results[0].sha256 == results[1].sha256
    other = sf.predict(model, path, tmp_path / "other.tif", tile=64, global_context="none")
    assert other.fingerprint != results[0].fingerprint


def test_arguments_are_checked_and_outputs_found_before_the_scan_is_measured(
    model, array, tmp_path, monkeypatch
):
    monkeypatch.setattr(contexts, "measure_context", lambda *rest, **more: pytest.fail("measured"))
    with sf.MemoryScan(array) as scan, pytest.raises(GeometryError):
        sf.stream(model, scan, tile=64, overlap=64, global_context="frozen")
    scene, existing = tmp_path / "scene.png", tmp_path / "there.tif"
    Image.fromarray(np.zeros((40, 40, 3), "uint8")).save(scene)
    existing.write_bytes(b"precious")
    three = FocalUNet(num_classes=2, in_channels=3, preset="nano", encoder=SHALLOW)
    with pytest.raises(OutputExistsError):
        sf.predict(three, scene, existing, tile=64, global_context="frozen")


def test_a_finished_frozen_output_is_not_measured_again(model, tmp_path, monkeypatch):
    scene, output = tmp_path / "scene.png", tmp_path / "labels.tif"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (70, 90, 3)).astype("uint8")).save(scene)
    three = FocalUNet(num_classes=2, in_channels=3, preset="nano", encoder=SHALLOW)
    first = sf.predict(three, scene, output, tile=64, global_context="frozen")
    told = json.loads((tmp_path / "labels.tif.json").read_text())
    assert told["parameters"]["global_context"] == "frozen"
    assert told["parameters"]["exact_context"] is False
    # Measured otherwise it is another result.
    exact = sf.predict(
        three, scene, tmp_path / "e.tif", tile=64, global_context="frozen", exact_context=True
    )
    assert exact.fingerprint != first.fingerprint
    monkeypatch.setattr(contexts, "measure_context", lambda *rest, **more: pytest.fail("measured"))
    assert sf.predict(three, scene, output, tile=64, global_context="frozen").unchanged


def test_the_pass_that_measures_tells_its_progress_and_can_be_cancelled(model, array):
    class CancelledError(Exception):
        pass

    seen = []
    sf.predict_array(
        model, array, tile=64, overlap=0, global_context="frozen",
        progress=lambda *now: seen.append(now),
    )  # fmt: skip
    # Batches of four tiles: once to measure, once to predict.
    assert seen == [(4, 6), (6, 6)] * 2

    def cancel(done, total):
        raise CancelledError

    with pytest.raises(CancelledError):
        sf.predict_array(model, array, tile=64, global_context="frozen", progress=cancel)


def test_halo_channels_and_fill_reach_the_measurement(model, array, monkeypatch):
    seen = {}

    def spy(model, scan, grid, **options):
        seen.update(options, halo=[axis.halo for axis in grid.axes])
        return measure_context(model, scan, grid, **options)

    monkeypatch.setattr(contexts, "measure_context", spy)
    card = model.card
    named = [c.model_copy(update={"mean": 3.0 + i}) for i, c in enumerate(card.channels)]
    card = card.model_copy(update={"channels": tuple(named), "valid_when": "any"})
    other = FocalUNet(card=card, preset="nano", encoder=SHALLOW)
    sf.predict_array(other, array, tile=128, halo=32, overlap=0, global_context="frozen")
    assert seen["halo"] == [32, 32]
    assert list(seen["channels"]) == [0, 1]
    assert seen["valid_when"] == "any"
    np.testing.assert_array_equal(seen["fill"], [3, 4])


def test_a_batch_that_does_not_fit_is_halved_while_measuring(model, array, monkeypatch):
    sizes = []

    def tight(probe, inputs):
        sizes.append(len(inputs["valid"]))
        if sizes[-1] > 1:
            raise BatchTooLargeError("does not fit")
        return {name: np.asarray(a) for name, a in probe.predict_on_batch(inputs).items()}

    expected = sf.predict_array(model, array, tile=64, global_context="frozen", batch_size=1)
    monkeypatch.setattr(calibration, "_run", tight)
    found = sf.predict_array(model, array, tile=64, global_context="frozen", batch_size=4)
    assert sizes[:3] == [4, 2, 1]
    assert (found == expected).mean() > 0.999


def test_out_of_memory_is_told_from_other_errors():
    inputs = {"valid": np.ones((4, 32, 64), bool)}

    class Probe:
        def __init__(self, error):
            self.error = error

        def predict_on_batch(self, inputs):
            raise self.error

    with pytest.raises(BatchTooLargeError, match="4 tiles of 32 x 64 do not fit"):
        calibration._run(Probe(MemoryError()), inputs)
    with pytest.raises(MemoryError, match="one tile of 32 x 64 does not fit"):
        calibration._run(Probe(MemoryError()), {"valid": inputs["valid"][:1]})
    with pytest.raises(KeyError):
        calibration._run(Probe(KeyError("other")), inputs)


def test_given_means_belong_to_the_hash(model):
    predictor = as_predictor(model.with_global_context("frozen"))
    means = np.zeros(model.encoder.context_size, "float32")
    others = [predictor.with_context(means), predictor.with_context(means + 1)]
    assert len({other.hash for other in (predictor, *others)}) == 3


def test_what_cannot_be_changed_is_refused(model, array):
    with pytest.raises(ModelError, match="asks for a model whose context can be changed"):
        sf.predict_array(lambda batch: batch, array, global_context="none")
    with pytest.raises(ModelError, match="the card knows no training patch"):
        sf.predict_array(model, array, global_context="local")
    with pytest.raises(ModelError, match='global_context="frozen", --global-context frozen'):
        sf.predict_array(model, array, exact_context=True)
    with sf.MemoryScan(array) as scan, pytest.raises(ModelError, match="leave one of the two out"):
        sf.stream(model, scan, global_context="frozen", exact_context=True, max_memory="64GB")


def test_measuring_block_by_block_brings_no_advice_on_retracing(model, array, caplog):
    with sf.MemoryScan(array) as scan:
        calibrate(model, scan, exact=True)
        calibrate(model, scan, exact=True)
    assert "retracing" not in caplog.text
