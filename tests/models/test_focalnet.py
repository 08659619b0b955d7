from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.models import PRESETS, FocalNet

# Computed from the published configurations; the counts with head are those that timm reports.
PUBLISHED = {
    "tiny_srf": (27_656_580, 28_427_116),
    "tiny_lrf": (27_877_392, 28_647_928),
    "small_srf": (49_120_680, 49_891_216),
    "small_lrf": (49_571_904, 50_342_440),
    "base_srf": (87_121_096, 88_148_144),
    "base_lrf": (87_722_720, 88_749_768),
}


@pytest.mark.parametrize(
    "preset",
    [
        name if name.startswith("tiny") else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_parameter_counts_are_the_published_ones(preset):
    bare, with_head = PUBLISHED[preset]
    assert FocalNet(preset=preset).count_params() == bare
    assert FocalNet(preset=preset, num_classes=1000).count_params() == with_head


def features(model, image, valid=None):
    inputs = {"image": image} if valid is None else {"image": image, "valid": valid}
    return {name: np.asarray(array) for name, array in model(inputs).items()}


@pytest.mark.parametrize("space", [(64, 96), (65, 33), (1, 1), (32, 33, 34)])
def test_features_shrink_by_powers_of_two_and_widen(space):
    model = FocalNet(in_channels=2, preset="nano", ndim=len(space))
    found = features(model, np.zeros((1, *space, 2), "float32"))
    assert list(found) == ["P2", "P3", "P4", "P5"]
    for level in range(2, 6):
        sides = space
        for factor in (4, *(2,) * (level - 2)):
            sides = tuple(-(-side // factor) for side in sides)
        assert found[f"P{level}"].shape == (1, *sides, 24 * 2 ** (level - 2))


def test_a_change_outside_the_valid_part_changes_nothing_far_away():
    keras.utils.set_random_seed(0)
    model = FocalNet(in_channels=1, preset="nano")
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel"):  # far from the small initial values
            weight.assign(rng.normal(0, 0.3, weight.shape))
    image = rng.normal(size=(1, 32, 192, 1)).astype("float32")
    valid = np.ones((1, 32, 192), bool)
    valid[:, :, 160:] = False
    changed = image.copy()
    changed[:, :, 160:] += 5
    near = features(model, image, valid)["P2"][:, :, :8]
    np.testing.assert_allclose(
        near, features(model, changed, valid)["P2"][:, :, :8], rtol=1e-4, atol=1e-4
    )
    assert np.abs(near - features(model, changed)["P2"][:, :, :8]).max() > 1e-2


def test_the_image_alone_means_that_everything_is_valid():
    model = FocalNet(in_channels=3, preset="nano", num_classes=10)
    image = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype("float32")
    alone = np.asarray(model(image))
    both = np.asarray(model({"image": image, "valid": np.ones((2, 40, 40), bool)}))
    np.testing.assert_array_equal(alone, both)
    assert alone.shape == (2, 10)


def test_saving_and_loading_keeps_every_weight(tmp_path):
    model = FocalNet(in_channels=3, preset="nano", ndim=3, focal_window=(1, 3, 3), use_postln=True,
                     layerscale=0.1, depths=(1, 1, 1, 1))  # fmt: skip
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16, 3)).astype("float32")
    model.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras")
    assert again.get_config() == model.get_config()
    for name, array in features(model, image).items():
        np.testing.assert_array_equal(features(again, image)[name], array)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(PRESETS)):
        FocalNet(preset="huge")
