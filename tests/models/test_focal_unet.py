from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest

from segfocal.card import Card, Channel, LabelClass, read_card
from segfocal.errors import ModelError
from segfocal.losses import DiceCrossEntropy
from segfocal.models import FocalUNet


@pytest.fixture(scope="module")
def card() -> Card:
    return Card(
        ndim=2,
        channels=(
            Channel(name="red", mean=100.0, std=20.0),
            Channel(name="nir", mean=50.0, std=5.0),
        ),
        named_channels=True,
        classes=(
            LabelClass(value=3, name="water", color=(0, 0, 255)),
            LabelClass(value=7, name="land", color=(0, 255, 0)),
            LabelClass(value=200, name="café", color=(255, 0, 0)),
        ),
        tile=(64, 64),
    )


@pytest.fixture(scope="module")
def model(card) -> FocalUNet:
    keras.utils.set_random_seed(0)
    return FocalUNet(card=card, preset="nano")


def logits(model, image, valid=None):
    inputs = {"image": image} if valid is None else {"image": image, "valid": valid}
    return np.asarray(model.predict_on_batch(inputs))


def raw(rng, *shape):
    return (rng.normal(size=shape) * 20 + 80).astype("float32")


@pytest.mark.parametrize("space", [(32, 64), (33, 47), (5, 1)])
def test_logits_are_on_the_grid_of_the_input(model, space):
    out = logits(model, raw(np.random.default_rng(0), 2, *space, 2), np.ones((2, *space), bool))
    assert out.shape == (2, *space, 3)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


@pytest.mark.parametrize("space", [(33, 31, 17), (32, 32, 32)])
def test_compiled_and_eager_volumes_agree(space):
    """Guards against graph rewriting: see the padding in FocalUNet."""
    model = FocalUNet(num_classes=2, in_channels=1, ndim=3, preset="nano")
    image = np.random.default_rng(0).normal(size=(1, *space, 1)).astype("float32")
    compiled = logits(model, image, np.ones((1, *space), bool))
    eager = np.asarray(model(image))
    assert compiled.shape == (1, *space, 2)
    np.testing.assert_allclose(compiled, eager, atol=1e-4)


def test_standardisation_is_part_of_the_model(card):
    keras.utils.set_random_seed(0)
    model = FocalUNet(card=card, preset="nano")
    plain_card = card.model_copy(update={"channels": (Channel(name="red"), Channel(name="nir"))})
    plain = FocalUNet(card=plain_card, preset="nano")
    plain.set_weights(
        [
            np.asarray(other) if "standardize" in other.path else np.asarray(weight)
            for weight, other in zip(model.weights, plain.weights, strict=True)
        ]
    )
    image = raw(np.random.default_rng(0), 1, 32, 32, 2)
    scaled = (image - np.array([100, 50], "f")) / np.array([20, 5], "f")
    np.testing.assert_allclose(logits(model, image), logits(plain, scaled), atol=1e-4)
    names = {weight.path.rsplit("/", 1)[-1] for weight in model.non_trainable_weights}
    assert {"mean", "std"} <= names


def test_what_stands_at_invalid_pixels_makes_no_difference(model):
    rng = np.random.default_rng(0)
    image = raw(rng, 1, 64, 64, 2)
    valid = rng.random((1, 64, 64)) > 0.3
    poisoned = np.where(valid[..., None], image, np.nan)
    np.testing.assert_array_equal(logits(model, image, valid), logits(model, poisoned, valid))


def test_the_zero_padding_of_odd_sizes_does_not_enter_a_mean(card):
    keras.utils.set_random_seed(1)
    model = FocalUNet(card=card, preset="nano")
    rng = np.random.default_rng(0)
    image = raw(rng, 1, 200, 200, 2)
    # The same scan, padded by hand with wild values that are declared invalid.
    padded = np.full((1, 224, 224, 2), 1e6, "float32")
    padded[:, :200, :200] = image
    valid = np.zeros((1, 224, 224), bool)
    valid[:, :200, :200] = True
    expected = logits(model, padded, valid)[:, :200, :200]
    np.testing.assert_allclose(
        logits(model, image, np.ones((1, 200, 200), bool)), expected, atol=1e-4
    )


def test_saving_and_loading_keeps_weights_and_card(model, card, tmp_path):
    path = tmp_path / "modèle 1.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    image = raw(np.random.default_rng(0), 1, 40, 40, 2)
    np.testing.assert_array_equal(np.asarray(again(image)), np.asarray(model(image)))
    assert again.card == card
    assert read_card(path) == card
    with zipfile.ZipFile(path) as archive:
        stored = json.loads(archive.read("config.json"))["config"]["card"]
    assert stored["classes"][2] == {"value": 200, "name": "café", "color": [255, 0, 0]}
    assert stored["format"] == 1


def test_encoder_options_are_kept(tmp_path):
    options = {"focal_levels": 3, "global_context": "none", "depths": (1, 1, 1, 1)}
    model = FocalUNet(num_classes=2, in_channels=1, preset="nano", encoder=options)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.encoder.get_config()["focal_levels"] == 3
    assert again.encoder.get_config()["global_context"] == "none"
    assert again.count_params() == model.count_params()


@pytest.mark.parametrize("ndim", [2, 3])
def test_fitting_one_batch_lowers_the_loss(ndim):
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=2, in_channels=1, ndim=ndim, preset="nano")
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *(32,) * ndim, 1)).astype("float32")
    labels = (image[..., 0] > 0).astype("int32")
    model.compile(keras.optimizers.AdamW(3e-3), DiceCrossEntropy())
    losses = [float(model.train_on_batch(image, labels)) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_finite_and_close(model, card, policy):
    half = FocalUNet(card=card, preset="nano", dtype=policy)
    half.set_weights(model.get_weights())
    image = raw(np.random.default_rng(0), 1, 64, 64, 2)
    found, expected = np.asarray(half(image)), np.asarray(model(image))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_classes": 4}, "num_classes=4 contradicts the card, which says 3"),
        ({"in_channels": 3}, "in_channels=3 contradicts the card, which says 2"),
        ({"ndim": 3}, "ndim=3 contradicts the card, which says 2"),
    ],
)
def test_numbers_that_contradict_the_card_are_refused(card, arguments, named):
    with pytest.raises(ValueError, match=named):
        FocalUNet(card=card, preset="nano", **arguments)


def test_numbers_are_needed_without_a_card():
    with pytest.raises(ValueError, match="needs num_classes and in_channels, or a card"):
        FocalUNet(num_classes=2)


def test_a_card_of_a_newer_format_is_refused(card):
    stored = {**card.model_dump(mode="json"), "format": 2}
    with pytest.raises(ModelError, match=r"card format 2; .* update segfocal"):
        FocalUNet(card=stored)
