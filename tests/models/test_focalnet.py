from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.models import PRESETS, FocalNet

# Computed from the published configurations; the counts with head are those that timm reports.
PUBLISHED = {
    "tiny_srf": (27_656_580, 28_427_116, 1000),
    "tiny_lrf": (27_877_392, 28_647_928, 1000),
    "small_srf": (49_120_680, 49_891_216, 1000),
    "small_lrf": (49_571_904, 50_342_440, 1000),
    "base_srf": (87_121_096, 88_148_144, 1000),
    "base_lrf": (87_722_720, 88_749_768, 1000),
    "large_fl3": (205_560_672, 239_134_898, 21842),
    "large_fl4": (205_741_176, 239_315_402, 21842),
    "xlarge_fl3": (364_029_024, 408_787_378, 21842),
    "xlarge_fl4": (364_269_688, 409_028_042, 21842),
    "huge_fl3": (683_741_792, 745_276_338, 21842),
    "huge_fl4": (686_455_032, 747_989_578, 21842),
}


@pytest.mark.parametrize(
    "preset",
    [
        name if name.startswith("tiny") else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_parameter_counts_are_the_published_ones(preset):
    bare, with_head, classes = PUBLISHED[preset]
    network = FocalNet(preset=preset, num_classes=classes)
    assert network.count_params() == with_head
    head = [layer for layer in network.layers if layer.name in ("norm", "head")]
    assert with_head - sum(layer.count_params() for layer in head) == bare


def test_every_published_preset_is_counted():
    assert {*PRESETS} - {*PUBLISHED} == {"nano", "micro", "nano_fine", "micro_fine"}


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


@pytest.mark.parametrize("space", [(64, 96), (65, 33), (1, 1), (16, 33, 34)])
def test_with_patches_of_two_features_begin_at_half_resolution(space):
    model = FocalNet(in_channels=2, preset="nano_fine", ndim=len(space))
    found = features(model, np.zeros((1, *space, 2), "float32"))
    assert list(found) == ["P1", "P2", "P3", "P4"]
    sides = space
    for level in range(1, 5):
        sides = tuple(-(-side // 2) for side in sides)
        assert found[f"P{level}"].shape == (1, *sides, 24 * 2 ** (level - 1))
    assert model.output_stride == 16


@pytest.mark.parametrize("size", [1, 3, 8])
def test_patches_of_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"patch_size={size}; expected 2 or 4"):
        FocalNet(in_channels=1, preset="nano", patch_size=size)


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


def test_options_override_the_preset_and_zero_takes_the_scales_away():
    shrunken = {"embed_dim": 8, "depths": (1, 1, 1, 1)}
    huge = FocalNet(preset="huge_fl3", **shrunken)
    block = huge.get_layer("stage1_block1")
    assert block.scale_1 is not None
    assert block.modulation.post_norm is not None
    plain = FocalNet(
        preset="huge_fl3",
        layerscale=0,
        conv_stem=False,
        use_postln_in_modulation=False,
        **shrunken,
    )
    assert plain.get_layer("stage1_block1").scale_1 is None
    again = FocalNet.from_config(plain.get_config())
    assert again.count_params() == plain.count_params() < huge.count_params()


@pytest.mark.parametrize("box", [None, (32,), 0])
def test_a_local_context_needs_its_box_in_pixels(box):
    with pytest.raises(ValueError, match="the 2 sides of a box in pixels with 'local'"):
        FocalNet(preset="nano", global_context="local", local_context=box)


def test_local_contexts_of_an_image_within_the_box_are_those_of_the_tile():
    keras.utils.set_random_seed(0)
    tile = FocalNet(in_channels=2, preset="nano")
    local = FocalNet(in_channels=2, preset="nano", global_context="local", local_context=64)
    for number, (mine, other) in enumerate(zip(tile.weights, local.weights, strict=True)):
        value = np.random.default_rng(number).normal(0, 0.3, mine.shape)
        mine.assign(value)
        other.assign(value)
    image = np.random.default_rng(0).normal(size=(1, 64, 50, 2)).astype("float32")
    for name, feature in features(tile, image).items():
        np.testing.assert_allclose(features(local, image)[name], feature, rtol=1e-3, atol=1e-3)
    # In a larger image they are not.
    image = np.random.default_rng(0).normal(size=(1, 128, 128, 2)).astype("float32")
    image[:, :64, :, 0] += 2
    one, other = features(tile, image)["P5"], features(local, image)["P5"]
    assert np.abs(one - other).max() > 1e-2 * np.abs(one).max()


def test_a_frozen_network_asks_for_the_means_of_the_scan():
    model = FocalNet(in_channels=2, preset="nano", global_context="frozen")
    image = np.zeros((1, 32, 32, 2), "float32")
    with pytest.raises(ValueError, match=r"third input \"context\".*segfocal.calibrate"):
        model(image)
    assert model.context_size == 24 + 48 + 2 * 96 + 192
    means = np.zeros((1, model.context_size), "float32")
    assert features_with(model, image, means)["P5"].shape == (1, 1, 1, 192)


def features_with(model, image, means):
    found = model({"image": image, "context": means})
    return {name: np.asarray(array) for name, array in found.items()}


@pytest.mark.parametrize("space", [(64, 33), (33, 34, 35)])
def test_compiled_and_eager_convolutional_stems_agree(space):
    model = FocalNet(
        in_channels=2, preset="large_fl3", ndim=len(space), embed_dim=8, depths=(1, 1, 1, 1),
        focal_window=3,
    )  # fmt: skip
    image = np.random.default_rng(0).normal(size=(1, *space, 2)).astype("float32")
    compiled = model.predict_on_batch({"image": image, "valid": np.ones((1, *space), bool)})
    for name, feature in features(model, image).items():
        np.testing.assert_allclose(compiled[name], feature, atol=1e-4)
