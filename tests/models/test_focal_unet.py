from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest

from segfocal.card import Card, Channel, LabelClass
from segfocal.card_files import read_card
from segfocal.errors import ModelError
from segfocal.losses import AtScale, DiceBinaryCrossEntropy, DiceCrossEntropy
from segfocal.models import FocalNet, FocalUNet


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


@pytest.mark.parametrize("space", [(32, 48), (33, 47), (5, 1), (17, 33, 30)])
def test_a_fine_encoder_gives_logits_on_the_grid_of_the_image(space, tmp_path):
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=3, in_channels=1, ndim=len(space), preset="nano_fine")
    image = np.random.default_rng(0).normal(size=(2, *space, 1)).astype("float32")
    found = np.asarray(model(image))
    assert found.shape == (2, *space, 3)
    assert model.output_stride == 16
    assert not any("p4" in layer.name for layer in model.layers if "skip" not in layer.name)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.output_stride == 16
    np.testing.assert_array_equal(np.asarray(again(image)), found)


def test_a_fine_focalnet_may_be_passed_as_the_encoder():
    keras.utils.set_random_seed(0)
    encoder = FocalNet(in_channels=1, preset="nano", patch_size=2, name="given")
    model = FocalUNet(num_classes=3, in_channels=1, encoder=encoder)
    assert model.output_stride == 16
    assert model(np.zeros((1, 20, 20, 1), "float32")).shape == (1, 20, 20, 3)


@pytest.mark.parametrize(
    ("ndim", "preset"), [(2, "nano"), (3, "nano"), (2, "nano_fine"), (3, "nano_fine")]
)
def test_fitting_one_batch_lowers_the_loss(ndim, preset):
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=2, in_channels=1, ndim=ndim, preset=preset)
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


def wild(model):
    """Give every kernel a value far from the small initial ones, so that contexts matter."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith(("kernel", "bias")):
            weight.assign(rng.normal(0, 0.25, weight.shape))
    return model


def test_other_contexts_have_the_same_weights_and_other_means(card):
    model = wild(FocalUNet(card=card, preset="nano"))
    image = raw(np.random.default_rng(0), 1, 64, 64, 2)
    expected = logits(model, image)
    # The box of "local" is the card's tile, and the image is as large.
    local = model.with_global_context("local")
    assert local.encoder.get_config()["local_context"] == [64, 64]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits(local, image), expected, atol=1e-3 * scale)
    small = model.with_global_context("local", local_context=32)
    assert np.abs(logits(small, image) - expected).max() > 1e-2 * scale
    none = model.with_global_context("none")
    assert np.abs(logits(none, image) - expected).max() > 1e-2 * scale
    # There and back again; and what is the same already is not copied.
    np.testing.assert_array_equal(logits(small.with_global_context("tile"), image), expected)
    assert model.with_global_context("tile") is model


def test_the_gates_that_stay_keep_their_weights_without_a_mean(card):
    model = wild(FocalUNet(card=card, preset="nano"))
    none = model.with_global_context("none")
    gates = "stage1_block1"
    mine = np.asarray(model.encoder.get_layer(gates).modulation.gate_projection.kernel)
    other = np.asarray(none.encoder.get_layer(gates).modulation.gate_projection.kernel)
    np.testing.assert_array_equal(other, mine[:, :-1])
    with pytest.raises(ValueError, match="has no gate for a mean"):
        none.with_global_context("tile")


def test_a_local_context_needs_a_box_where_the_card_has_no_tile():
    model = FocalUNet(num_classes=2, in_channels=1, preset="nano")
    with pytest.raises(ValueError, match="pass local_context in pixels"):
        model.with_global_context("local")


@pytest.mark.parametrize("upsampling", ["linear", "transposed"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_other_upsampling_is_kept_and_fits(upsampling, ndim, tmp_path):
    keras.utils.set_random_seed(0)
    options = {"upsampling": upsampling, "dropout": 0.1}
    model = FocalUNet(num_classes=2, in_channels=1, ndim=ndim, preset="nano", **options)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    image = np.random.default_rng(0).normal(size=(1, *(40,) * ndim, 1)).astype("float32")
    np.testing.assert_array_equal(np.asarray(again(image)), np.asarray(model(image)))
    assert (again.upsampling, again.dropout) == (upsampling, 0.1)
    assert np.abs(np.asarray(model(image, training=True)) - np.asarray(model(image))).max() > 0


def test_regions_are_overlapping_and_fit(tmp_path):
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=2, in_channels=1, preset="nano", task="regions")
    assert [label.value for label in model.card.classes] == [1, 2]
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 32, 32, 1)).astype("float32")
    labels = np.concatenate([image > 0, image > 0.5], -1).astype("int32")
    model.compile(keras.optimizers.AdamW(5e-3), DiceBinaryCrossEntropy())
    losses = [float(model.train_on_batch(image, labels)) for _ in range(12)]
    assert losses[-1] < 0.85 * losses[0]
    model.save(tmp_path / "regions.keras")
    assert read_card(tmp_path / "regions.keras").task == "regions"
    with pytest.raises(ValueError, match="task=classes contradicts the card"):
        FocalUNet(card=model.card, preset="nano", task="classes")


def pyramid(channels=3, names=("P2", "P3", "P4", "P5"), stem=4):
    """An encoder of somebody else: plain strided convolutions, any size, no mask."""
    image = keras.Input((None, None, channels))
    x = keras.layers.Conv2D(8, stem, stem, padding="same", name="theirs_stem")(image)
    outputs = {names[0]: x}
    for level, name in enumerate(names[1:]):
        x = keras.layers.Conv2D(16 + 8 * level, 3, 2, padding="same", activation="relu")(x)
        outputs[name] = x
    return keras.Model(image, outputs, name="theirs")


def test_any_encoder_that_gives_the_pyramid_will_do(tmp_path):
    keras.utils.set_random_seed(0)
    theirs = pyramid()
    model = FocalUNet(num_classes=2, in_channels=3, encoder=theirs)
    assert model.encoder is theirs
    assert model.global_context is None
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 50, 40, 3)).astype("float32")
    labels = (image[..., 0] > 0).astype("int32")
    model.compile(keras.optimizers.AdamW(3e-3), DiceCrossEntropy())
    losses = [float(model.train_on_batch(image, labels)) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(np.asarray(again(image)), np.asarray(model(image)), atol=1e-5)
    with pytest.raises(ValueError, match="no FocalNet; its context cannot be changed"):
        model.with_global_context("none")


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        ({"channels": 4}, "does not suit"),
        ({"names": ("P2", "P3", "P4", "C5")}, "'P5'"),
        ({"stem": 2}, r"makes P2 of shape \(32, 32\).*expected \(16, 16\)"),
    ],
)
def test_an_encoder_without_the_pyramid_is_refused(encoder, named):
    with pytest.raises(ValueError, match=named):
        FocalUNet(num_classes=2, in_channels=3, encoder=pyramid(**encoder))


@pytest.mark.parametrize("ndim", [2, 3])
def test_heads_for_training_share_the_layers_and_stay_behind(ndim, tmp_path):
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=2, in_channels=1, ndim=ndim, preset="nano")
    trained = model.supervised(2)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *(34,) * ndim, 1)).astype("float32")
    labels = (image[..., 0] > 0).astype("int32")
    inputs = {"image": image, "valid": np.ones(image.shape[:-1], bool)}
    outputs = {name: np.asarray(array) for name, array in trained(inputs).items()}
    np.testing.assert_array_equal(outputs["logits"], np.asarray(model(image)))
    assert outputs["logits_p1"].shape == (2, *(32,) * ndim, 2)
    assert outputs["logits_p2"].shape == (2, *(16,) * ndim, 2)
    loss = DiceCrossEntropy()
    trained.compile(
        keras.optimizers.AdamW(3e-3),
        {"logits": loss, "logits_p1": AtScale(loss, 2), "logits_p2": AtScale(loss, 4)},
        loss_weights={"logits": 0.5, "logits_p1": 0.3, "logits_p2": 0.2},
    )
    before = model.get_weights()
    targets = {name: labels for name in outputs}
    losses = [float(np.ravel(trained.train_on_batch(inputs, targets))[0]) for _ in range(12)]
    assert losses[-1] < losses[0]
    after = model.get_weights()
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.count_params() == model.count_params() < trained.count_params()


@pytest.mark.parametrize(
    ("levels", "preset", "most"),
    [(0, "nano", 4), (5, "nano", 4), (0, "nano_fine", 3), (4, "nano_fine", 3)],
)
def test_heads_are_one_for_each_level_below_the_logits(levels, preset, most):
    model = FocalUNet(num_classes=2, in_channels=1, preset=preset)
    with pytest.raises(ValueError, match=f"expected 1 to {most}"):
        model.supervised(levels)
    model.supervised(most)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_volumes_in_mixed_precision_are_finite_and_close(policy):
    keras.utils.set_random_seed(0)
    exact = FocalUNet(num_classes=3, in_channels=1, ndim=3, preset="nano")
    half = FocalUNet(num_classes=3, in_channels=1, ndim=3, preset="nano", dtype=policy)
    half.set_weights(exact.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 32, 1)).astype("float32")
    found, expected = np.asarray(half(image)), np.asarray(exact(image))
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
