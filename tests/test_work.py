"""The work that a config says is that of the layers of the model."""

from __future__ import annotations

import math

import pytest

import segfocal as sf
from segfocal.inspection import inspect
from segfocal.models.cost import multiply_accumulates
from segfocal.work import read_work, work_per_pixel


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "nano"},
        {"preset": "tiny_lrf", "encoder": {"depths": (1, 1, 1, 1)}},
        {"preset": "large_fl3", "encoder": {"embed_dim": 16, "depths": (1, 1, 2, 1)}},
        {"preset": "nano", "encoder": {"global_context": "none", "mlp_ratio": 2.0}},
        {"preset": "nano", "encoder": {"focal_levels": 3, "focal_window": 5}},
        {"preset": "nano", "upsampling": "transposed"},
        {"preset": "nano_fine"},
        {"preset": "micro_fine", "ndim": 3, "upsampling": "transposed"},
        {"preset": "nano", "encoder": {"patch_size": 2, "conv_stem": True}},
        {"preset": "nano", "ndim": 3, "encoder": {"focal_window": (1, 3, 3)}},
        {"preset": "micro", "ndim": 3, "upsampling": "transposed"},
    ],
)
def test_the_config_says_what_the_layers_count(options):
    model = sf.FocalUNet(5, 4, **options)
    side = (64,) * model.card.ndim
    counted = multiply_accumulates(model, side)
    found = work_per_pixel(model.get_config())
    for part, number in counted.items():
        assert found[part] * math.prod(side) == pytest.approx(number, rel=1e-12)


def test_info_tells_the_work_of_a_keras_file(exports, tmp_path):
    _ = exports.model
    work = inspect(exports.keras)["gmacs_per_mpx"]
    expected = multiply_accumulates(exports.model, (64, 64))
    assert work == {part: round(n / 64**2 / 1e3, 3) for part, n in expected.items()}
    assert read_work(tmp_path / "no.keras") is None
    assert work_per_pixel({**exports.model.get_config(), "encoder": {"class_name": "X"}}) is None


@pytest.mark.parametrize("format", ["onnx", "openvino", "saved_model"])
def test_info_tells_the_same_of_an_exported_file(exports, format):
    found = inspect(exports.path(format))
    assert found["gmacs_per_mpx"] == inspect(exports.keras)["gmacs_per_mpx"]
