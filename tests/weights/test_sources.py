"""What a checkpoint lacks or has too much is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recorded import PARITY, Recorded
from safetensors.numpy import save_file
from seeded import seeded_array

from segfocal.errors import ModelError
from segfocal.presets import PRESETS
from segfocal.weights import read_encoder
from segfocal.weights.architecture import Architecture, derive_architecture, torch_shapes
from segfocal.weights.encoder_weights import arrays_of_checkpoint
from segfocal.weights.sources import SourceTensor


@pytest.fixture
def tensors():
    return dict(Recorded(PARITY / "timm_tiny_srf.npz").tensors)


def read(folder, tensors, **config):
    save_file(tensors, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps({"model_type": "focalnet", **config}))
    return read_encoder(folder)


@pytest.mark.parametrize(
    "key",
    ["layers.2.blocks.3.modulation.h.bias", "layers.1.downsample.proj.weight", "stem.norm.bias",
     "layers.0.blocks.1.mlp.fc2.weight", "head.fc.bias", "norm.weight",
     "layers.3.blocks.0.modulation.focal_layers.1.0.weight"],
)  # fmt: skip
def test_every_weight_is_needed(tmp_path, tensors, key):
    del tensors[key]
    with pytest.raises(ModelError, match=r"lacks|different sets of focal kernels"):
        read(tmp_path, tensors)


@pytest.mark.parametrize(
    "key", ["layers.0.blocks.0.modulation.extra", "head.norm.weight", "norm0.weight", "pos_embed",
            "layers.0.downsample.extra.weight"]
)  # fmt: skip
def test_every_weight_has_a_use(tmp_path, tensors, key):
    tensors[key] = np.ones(3, "f4")
    with pytest.raises(ModelError, match=f"{key} has no place in a FocalNet as timm names it"):
        read(tmp_path, tensors)


def test_a_weight_that_other_blocks_lack_is_refused(tmp_path, tensors):
    tensors["layers.1.blocks.0.ls1.gamma"] = np.ones(16, "f4")
    with pytest.raises(ModelError, match=r"layers\.1\.blocks\.0\.ls1\.gamma not used"):
        read(tmp_path, tensors)


def test_a_shape_that_does_not_fit_is_named_with_the_one_expected(tmp_path, tensors):
    tensors["layers.2.blocks.3.mlp.fc1.weight"] = np.zeros((128, 30, 1, 1), "f4")
    expected = r"fc1\.weight has shape \(128, 30, 1, 1\); expected \(128, 32\) for stage3_block4"
    with pytest.raises(ModelError, match=expected):
        read(tmp_path, tensors)


def test_one_weight_under_two_names_is_refused(tmp_path, tensors):
    tensors["layers.0.blocks.0.norm1_post.weight"] = np.ones(8, "f4")
    with pytest.raises(ModelError, match="are the same weight"):
        read(tmp_path, tensors)


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(ModelError, match="are no FocalNet's"):
        read(tmp_path, {"conv1.weight": np.ones((4, 3, 7, 7), "f4")})


def test_prefixes_of_wrappers_are_taken_off(tmp_path, tensors):
    wrapped = {f"module.{key}": array for key, array in tensors.items()}
    plain, found = read_encoder_twice(tmp_path, tensors, wrapped)
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def read_encoder_twice(folder, *states):
    for number, state in enumerate(states):
        (folder / str(number)).mkdir()
        yield read(folder / str(number), state)


def test_networks_without_a_head_are_encoders(tmp_path, tensors):
    bare = {key: array for key, array in tensors.items() if not key.startswith(("head", "norm."))}
    norm = {key: array for key, array in tensors.items() if not key.startswith("head")}
    for weights in read_encoder_twice(tmp_path, bare, norm):
        assert weights.architecture.num_classes is None
        assert not [name for name in weights.arrays if name.startswith(("norm", "head"))]


def test_masked_image_models_are_read_without_their_decoder(tmp_path):
    recorded = Recorded(PARITY / "transformers_tiny_srf.npz")
    tensors = {key: array for key, array in recorded.tensors.items() if "classifier" not in key}
    tensors["focalnet.embeddings.mask_token"] = np.zeros((1, 1, 8), "f4")
    tensors["decoder.0.weight"] = np.zeros((3072, 64, 1, 1), "f4")
    tensors["decoder.0.bias"] = np.zeros(3072, "f4")
    assert read(tmp_path, tensors).architecture.num_classes is None


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 1e-3), ("patch_size", 16)]
)
def test_settings_that_change_the_network_are_refused(tmp_path, key, value):
    recorded = Recorded(PARITY / "transformers_tiny_srf.npz")
    with pytest.raises(ModelError, match=f"{key} is {value!r}; expected"):
        read(tmp_path, recorded.tensors, **{key: value})


def test_numbers_of_the_processor_are_the_normalization(tmp_path, tensors):
    assert read(tmp_path, tensors).normalization.mean == (0.485, 0.456, 0.406)
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = read(tmp_path, tensors).normalization
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].embed_dim >= 96])
def test_presets_are_recognised_by_their_shapes(name):
    preset = PRESETS[name]
    wanted = Architecture(
        in_channels=3,
        embed_dim=preset.embed_dim,
        depths=preset.depths,
        focal_levels=preset.focal_levels,
        focal_window=preset.focal_window,
        num_classes=1000,
        drop_path=preset.drop_path,
        conv_stem=preset.conv_stem,
        use_postln=preset.use_postln,
        layerscale=preset.layerscale or 0.0,
        use_postln_in_modulation=preset.use_postln_in_modulation,
    )
    weights = {
        key: SourceTensor(key, np.broadcast_to(np.float32(0), shape))  # takes no memory
        for key, shape in torch_shapes(wanted).items()
    }
    found = derive_architecture(
        weights, "here", use_postln=preset.use_postln, normalize_modulator=False
    )
    assert found == wanted
    assert found.preset == name


def test_the_fused_projection_is_query_then_context_then_gates():
    architecture = Architecture(3, 8, (1, 1, 1, 1), 2, 3)
    weights = {
        key: SourceTensor(key, seeded_array(key, shape))
        for key, shape in torch_shapes(architecture).items()
    }
    arrays = arrays_of_checkpoint(architecture, weights, "here")
    for part in ("weight", "bias"):
        fused = weights[f"stage2_block1.modulation.fused.{part}"].array
        ours = "kernel" if part == "weight" else "bias"
        parts = [
            arrays[f"stage2_block1.modulation.{name}_projection.{ours}"]
            for name in ("query", "context", "gate")
        ]
        assert [array.shape[-1] for array in parts] == [16, 16, 3]
        np.testing.assert_array_equal(np.concatenate(parts, axis=-1), fused.T)
