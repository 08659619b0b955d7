"""Adaptations are identities where theory says so, and nowhere claimed otherwise."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
from seeded import seeded_array, seeded_image

from segfocal.card import Card, Channel
from segfocal.errors import ModelError
from segfocal.models import FocalNet, FocalUNet
from segfocal.weights import (
    Architecture,
    EncoderWeights,
    adapt,
    adapt_channels,
    assign,
    from_pretrained,
    inflate,
    load_encoder,
    weights_of_model,
    widen_focal_windows,
)

SMALL = {"preset": "nano", "embed_dim": 8, "depths": (1, 1, 1, 1)}
LEVELS = ("P2", "P3", "P4", "P5")


@functools.cache
def source(**options) -> EncoderWeights:
    """Return weights far from their initial values."""
    weights = weights_of_model(FocalNet(**{**SMALL, **options}))
    return dataclasses.replace(
        weights, arrays={name: seeded(name, array.shape) for name, array in weights.arrays.items()}
    )


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
    if ".focal_layers." in name:
        rows, cols, channels, _ = shape
        return seeded_array(name, (channels, 1, rows, cols)).transpose(2, 3, 0, 1)
    # Seeded in PyTorch's axis order, where outputs come first.
    return seeded_array(name, shape[::-1]).T


def model_of(weights: EncoderWeights) -> FocalNet:
    model = weights.architecture.build()
    assign(model, weights)
    return model


def features(weights: EncoderWeights, image) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in model_of(weights)(image).items()}


def assert_same(found, expected, tolerance=2e-5):
    for name in LEVELS:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance)


def differ(found, expected):
    return max(float(np.abs(found[name] - expected[name]).max()) for name in LEVELS)


# Channels


@pytest.mark.parametrize("conv_stem", [False, True])
@pytest.mark.parametrize(
    ("in_channels", "names"),
    [(1, None), (2, None), (7, None),
     (4, ["blue", "green", "red", "nir"]), (3, ["red", "nir", "swir"]), (1, ["green"]),
     (5, ["coastal", "Blue", "green", "nir", "thermal"])],
)  # fmt: skip
def test_gray_images_keep_their_features_whatever_the_channels(in_channels, names, conv_stem):
    weights = source(conv_stem=conv_stem)
    adapted = adapt_channels(weights, in_channels, names)
    gray = seeded_image(40, 52, channels=1)
    expected = features(weights, np.repeat(gray, 3, axis=-1))
    assert_same(features(adapted, np.repeat(gray, in_channels, axis=-1)), expected)


def test_colours_alone_in_any_order_keep_the_features_of_any_image():
    weights = source()
    image = seeded_image(40, 52)
    expected = features(weights, image)
    adapted = adapt_channels(weights, 3, ["blue", "RED", "green"])
    assert_same(features(adapted, image[..., [2, 0, 1]]), expected, 1e-5)
    assert differ(features(adapted, image), expected) > 0.1
    assert adapt_channels(weights, 3, ["red", "green", "blue"]) is not weights
    assert_same(features(adapt_channels(weights, 3, ["red", "green", "blue"]), image), expected, 0)


def test_named_channels_get_their_own_kernels_and_others_the_mean():
    weights = source()
    kernel = weights.arrays["stage1_embed.projection.kernel"]
    found = adapt_channels(weights, 5, ["nir", "blue", "green", "red", "dem"]).arrays[
        "stage1_embed.projection.kernel"
    ]
    mean = kernel.mean(axis=2)
    expected = [mean, kernel[:, :, 2], kernel[:, :, 1], kernel[:, :, 0], mean]
    for channel, own in enumerate(expected):
        np.testing.assert_allclose(found[:, :, channel], own * 3 / 5, rtol=1e-5, atol=1e-6)


def test_channels_of_unknown_names_share_evenly():
    weights = source()
    kernel = weights.arrays["stage1_embed.projection.kernel"]
    found = adapt_channels(weights, 6, list("abcdef")).arrays["stage1_embed.projection.kernel"]
    for channel in range(6):
        np.testing.assert_allclose(found[:, :, channel], kernel.sum(axis=2) / 6, atol=1e-6)


def test_as_many_names_as_channels_are_asked_for():
    with pytest.raises(ModelError, match="2 channel names for 3 channels"):
        adapt_channels(source(), 3, ["red", "green"])


# Windows


@pytest.mark.parametrize("options", [{}, {"normalize_modulator": True, "focal_levels": 3}])
def test_wider_windows_compute_the_same(options):
    weights = source(**options)
    wide = widen_focal_windows(weights, 9)
    sides = [wide.arrays[f"stage1_block1.modulation.focal_layers.{n}.kernel"].shape[0]
             for n in range(weights.architecture.focal_levels)]  # fmt: skip
    assert sides == [9, 11, 13][: len(sides)]
    image = seeded_image(40, 52)
    assert_same(features(wide, image), features(weights, image))


def test_narrower_windows_crop_and_undo_widening_exactly():
    weights = source()
    again = widen_focal_windows(widen_focal_windows(weights, 9), 3)
    assert again.architecture == weights.architecture
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    kernel = weights.arrays["stage2_block1.modulation.focal_layers.1.kernel"]
    narrow = widen_focal_windows(weights, 1).arrays[
        "stage2_block1.modulation.focal_layers.1.kernel"
    ]
    np.testing.assert_array_equal(narrow, kernel[2:3, 2:3])


@pytest.mark.parametrize("normalize", [False, True])
def test_added_levels_compute_the_same_without_global_context(normalize):
    weights = source(global_context="none", normalize_modulator=normalize)
    image = seeded_image(40, 52)
    more = widen_focal_windows(weights, 5, focal_levels=4)
    assert more.architecture.focal_levels == 4
    assert_same(features(more, image), features(weights, image))


def test_added_levels_move_the_global_gate_to_the_end():
    weights = source()
    name = "stage3_block1.modulation.gate_projection"
    more = widen_focal_windows(weights, 3, focal_levels=4)
    for part in ("kernel", "bias"):
        known, found = weights.arrays[f"{name}.{part}"], more.arrays[f"{name}.{part}"]
        np.testing.assert_array_equal(found[..., :2], known[..., :2])
        np.testing.assert_array_equal(found[..., 2:4], 0)
        np.testing.assert_array_equal(found[..., 4], known[..., 2])
    image = seeded_image(40, 52)
    # The global context sees one more GELU per level, as the documentation says.
    assert differ(features(more, image), features(weights, image)) > 1e-3


def test_levels_cannot_be_taken_out():
    with pytest.raises(ModelError, match="2 focal levels cannot become 1"):
        widen_focal_windows(source(), 3, focal_levels=1)
    with pytest.raises(ModelError, match="expected one odd number"):
        widen_focal_windows(source(), 4)


# Volumes


@pytest.mark.parametrize("options", [{}, {"conv_stem": True}, {"focal_window": 5}], ids=str)
def test_inflated_at_the_centre_each_plane_has_the_features_of_its_image(options):
    flat = source(global_context="none", **options)
    deep, images = inflate(flat, "centre"), model_of(flat)
    planes = 32
    volume = seeded_image(planes, 32 * 36, channels=3).reshape(2, planes, 32, 36, 3)
    found = features(deep, volume)
    for level, name in enumerate(LEVELS, start=2):
        for position in range(found[name].shape[1]):
            image = np.asarray(images(volume[:, 2**level * position + 1])[name])
            np.testing.assert_allclose(found[name][:, position], image, rtol=0, atol=2e-5)
        if found[name].shape[1] > 1:
            assert np.abs(found[name][:, 0] - found[name][:, 1]).max() > 0.1


def test_inflated_at_the_centre_equal_planes_keep_the_global_context():
    flat = source()
    image = seeded_image(32, 36)
    expected = features(flat, image)
    for planes in (32, 19):
        found = features(inflate(flat), np.repeat(image[:, None], planes, axis=1))
        assert_same(found, {name: np.repeat(array[:, None], found[name].shape[1], axis=1)
                            for name, array in expected.items()})  # fmt: skip


@pytest.mark.parametrize("plane_window", [None, 1])
def test_inflated_by_the_mean_equal_planes_keep_their_features_away_from_the_ends(plane_window):
    flat = source(global_context="none", focal_levels=1)
    image = seeded_image(32, 36, batch=1)
    expected = features(flat, image)
    deep = inflate(flat, "mean", plane_window)
    found = features(deep, np.repeat(image[:, None], 160, axis=1))
    # Each block reaches one position further in; each downsampling halves what it has reached.
    spoiled = (
        {"P2": 1, "P3": 2, "P4": 2, "P5": 2} if plane_window is None else dict.fromkeys(LEVELS, 0)
    )
    for name, array in expected.items():
        inside = found[name][:, spoiled[name] : found[name].shape[1] - spoiled[name]]
        assert inside.shape[1] >= 1
        np.testing.assert_allclose(
            inside, np.repeat(array[:, None], inside.shape[1], axis=1), rtol=0, atol=2e-5
        )
    if plane_window is None:
        assert np.abs(found["P2"][:, 0] - expected["P2"]).max() > 1e-2


def test_volumes_cannot_be_inflated():
    with pytest.raises(ModelError, match="three-dimensional already"):
        inflate(inflate(source()))
    with pytest.raises(ModelError, match="'centre' or 'mean'"):
        inflate(source(), "middle")


# Into a model


@pytest.mark.parametrize("normalize", [False, True])
def test_dividing_the_modulator_or_not_is_made_up_for(normalize):
    weights = source(normalize_modulator=normalize)
    target = dataclasses.replace(weights.architecture, normalize_modulator=not normalize)
    image = seeded_image(40, 52)
    assert_same(features(adapt(weights, target), image), features(weights, image))


def test_a_global_context_is_added_with_a_gate_of_zero():
    weights = source(global_context="none")
    target = dataclasses.replace(weights.architecture, global_context="tile")
    image = seeded_image(40, 52)
    assert_same(features(adapt(weights, target), image), features(weights, image))


def test_an_encoder_goes_into_a_unet_with_the_names_of_its_card(tmp_path):
    path = tmp_path / "encoder.keras"
    weights = source()
    model_of(weights).save(path)
    names = ["blue", "green", "red", "nir"]
    card = Card.generic(ndim=2, in_channels=4, num_classes=3)
    channels = tuple(Channel(name=name) for name in names)
    options = {"embed_dim": 8, "depths": [1, 1, 1, 1], "focal_window": 5}
    unet = FocalUNet(
        card=card.model_copy(update={"channels": channels}), preset="nano", encoder=options
    )
    ours = {id(variable) for variable in unet.encoder.weights}
    others = [variable for variable in unet.weights if id(variable) not in ours]
    before = [np.asarray(variable) for variable in others]
    load_encoder(unet, path)
    expected = widen_focal_windows(adapt_channels(weights, 4, names), 5)
    image = seeded_image(32, 64, channels=4)
    found = {name: np.asarray(array) for name, array in unet.encoder(image).items()}
    assert_same(found, features(expected, image), 1e-6)
    assert len(others) > 20
    for variable, array in zip(others, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), array)


def test_weights_of_a_trained_unet_go_into_one_for_volumes(tmp_path):
    options = {"embed_dim": 8, "depths": [1, 1, 1, 1]}
    flat = FocalUNet(num_classes=3, in_channels=3, preset="nano", encoder=options)
    assign(flat.encoder, source())
    flat.save(tmp_path / "model.keras")
    deep = FocalUNet(num_classes=2, in_channels=1, ndim=3, preset="nano",
                     encoder={**options, "focal_window": [1, 3, 3]})  # fmt: skip
    load_encoder(deep, tmp_path / "model.keras", inflation="mean")
    volume = np.repeat(seeded_image(32, 32, channels=1)[:, None], 32, axis=1)
    expected = features(source(), np.repeat(volume[:, 0], 3, axis=-1))
    found = {name: np.asarray(array) for name, array in deep.encoder(volume).items()}
    assert_same(found, {name: np.repeat(array[:, None], found[name].shape[1], axis=1)
                        for name, array in expected.items()})  # fmt: skip


@pytest.mark.parametrize("conv_stem", [False, True])
def test_weights_of_a_fine_unet_go_into_one_for_volumes(tmp_path, conv_stem):
    options = {"embed_dim": 8, "depths": [1, 1, 1, 1], "conv_stem": conv_stem}
    keras.utils.set_random_seed(0)
    flat = FocalUNet(num_classes=3, in_channels=1, preset="nano_fine", encoder=options)
    flat.save(tmp_path / "model.keras")
    again = from_pretrained(tmp_path / "model.keras")
    assert again.patch_size == 2
    deep = FocalUNet(num_classes=2, in_channels=1, ndim=3, preset="nano_fine",
                     encoder={**options, "focal_window": [1, 3, 3]})  # fmt: skip
    load_encoder(deep, tmp_path / "model.keras")
    image = seeded_image(32, 32, channels=1)
    volume = np.repeat(image[:, None], 48, axis=1)
    expected = {name: np.asarray(array) for name, array in flat.encoder(image).items()}
    found = {name: np.asarray(array) for name, array in deep.encoder(volume).items()}
    assert [*found] == ["P1", "P2", "P3", "P4"]
    if not conv_stem:  # overlapping kernels see beyond the first and last planes
        middles = {name: array[:, array.shape[1] // 2] for name, array in found.items()}
        for name, array in expected.items():
            np.testing.assert_allclose(middles[name], array, atol=2e-5)


def test_presets_are_told_apart_by_their_patches():
    for name in ("nano", "nano_fine", "micro", "micro_fine"):
        assert Architecture.of_model(FocalNet(in_channels=1, preset=name)).preset == name


@pytest.mark.parametrize(
    ("options", "message"),
    [({"embed_dim": 16}, "embed_dim 8, the model embed_dim 16"),
     ({"depths": (1, 1, 2, 1)}, r"depths \(1, 1, 1, 1\), the model depths \(1, 1, 2, 1\)"),
     ({"patch_size": 2}, "patch_size 4, the model patch_size 2"),
     ({"conv_stem": True}, "conv_stem False"), ({"use_postln": True}, "use_postln False"),
     ({"layerscale": 0.1}, "layerscale"), ({"gate_activation": "softmax"}, "gate_activation None"),
     ({"context": "parallel"}, "context chained"), ({"num_classes": 4}, "have no classifier"),
     ({"focal_levels": 1}, "cannot become 1")],
    ids=str,
)  # fmt: skip
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path, options, message):
    path = tmp_path / "encoder.keras"
    model_of(source()).save(path)
    model = FocalNet(**{**SMALL, **options})
    before = [np.asarray(weight) for weight in model.weights]
    with pytest.raises(ModelError, match=message):
        load_encoder(model, path)
    for weight, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), array)


def test_every_weight_of_a_model_has_a_name(tmp_path):
    for options in (
        {"num_classes": 3},
        {"ndim": 3, "conv_stem": True, "layerscale": 0.1, "use_postln_in_modulation": True},
    ):
        model = FocalNet(**{**SMALL, **options})
        weights = weights_of_model(model)
        assert weights.num_parameters == model.count_params()
        assert len(weights.arrays) == len(model.weights)
        assert weights.architecture == Architecture.of_model(weights.architecture.build())


def test_a_missing_or_misshapen_weight_is_named():
    weights = source()
    model = model_of(weights)
    arrays = dict(weights.arrays)
    del arrays["stage2_block1.expand.bias"]
    with pytest.raises(ModelError, match=r"lack stage2_block1\.expand\.bias"):
        assign(model, dataclasses.replace(weights, arrays=arrays))
    arrays["stage2_block1.expand.bias"] = np.zeros(3, "f4")
    with pytest.raises(ModelError, match=r"expand\.bias has shape \(3,\); expected \(64,\)"):
        assign(model, dataclasses.replace(weights, arrays=arrays))
