"""Counts of multiply-accumulate operations against those of TensorFlow's own profiler."""

from __future__ import annotations

import numpy as np
import pytest

from segfocal.models import FocalNet, FocalUNet
from segfocal.models.cost import multiply_accumulates

SPACE = (96, 128)
PRODUCTS = {"MatMul", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput"}


def profiled(model, space):
    """Return the multiplications that TensorFlow counts in the graph of a model."""
    tf = pytest.importorskip("tensorflow")
    from tensorflow.python.profiler.model_analyzer import profile
    from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

    image = tf.TensorSpec((1, *space, 3), "float32")
    valid = tf.TensorSpec((1, *space), "bool")
    graph = tf.function(lambda a, b: model({"image": a, "valid": b})).get_concrete_function(
        image, valid
    )
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(graph).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().order_by("float_ops").build()
    total = profile(frozen, options=options)
    counted = {}

    def walk(node):
        for child in node.children:
            walk(child)
        kind = {op.name: op.type for op in frozen.get_operations()}.get(node.name)
        if kind in PRODUCTS:
            counted[node.name] = node.float_ops // 2

    walk(total)
    return sum(counted.values())


@pytest.mark.parametrize("preset", ["nano", "nano_fine"])
@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_the_count_is_what_the_profiler_counts(preset, upsampling):
    model = FocalUNet(num_classes=5, in_channels=3, preset=preset, upsampling=upsampling)
    found = multiply_accumulates(model, SPACE)
    assert profiled(model, SPACE) == sum(found.values())


def test_tiny_stays_within_its_budget_on_a_tile_of_512():
    model = FocalUNet(num_classes=6, in_channels=3, preset="tiny_srf")
    found = multiply_accumulates(model, (512, 512))
    assert found["encoder"] == pytest.approx(23.0e9, rel=1e-3)
    assert sum(found.values()) <= 29.5e9


def test_padding_counts_as_the_network_computes_it():
    model = FocalUNet(num_classes=2, in_channels=1, preset="nano")
    assert multiply_accumulates(model, (33, 1)) == multiply_accumulates(model, (64, 32))
    encoder = FocalNet(in_channels=1, preset="nano")
    alone = multiply_accumulates(encoder, (64, 32))
    assert alone == {"encoder": multiply_accumulates(model, (64, 32))["encoder"], "decoder": 0}
    assert np.isclose(multiply_accumulates(encoder, (640, 320))["encoder"], 100 * alone["encoder"])
