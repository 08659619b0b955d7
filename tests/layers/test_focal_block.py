from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.layers import FocalBlock, exact_gelu


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def built(shape, **options):
    block = FocalBlock(ndim=len(shape) - 1, **options)
    block.build((None, *shape))
    rng = np.random.default_rng(0)
    for weight in block.weights:
        if "norm" not in weight.path:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return block


@pytest.mark.parametrize("shape", [(6, 7, 4), (3, 4, 5, 4)])
@pytest.mark.parametrize("use_postln", [False, True])
@pytest.mark.parametrize("layerscale", [None, 0.5])
def test_the_block_is_put_together_as_published(shape, use_postln, layerscale):
    block = built(shape, use_postln=use_postln, layerscale=layerscale, drop_path=0.5)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    scale_1 = 1.0 if layerscale is None else np.asarray(block.scale_1)
    scale_2 = 1.0 if layerscale is None else np.asarray(block.scale_2)

    def mlp(h):
        return np.asarray(block.reduce(exact_gelu(block.expand(h))))

    def modulation(h):
        return np.asarray(block.modulation(h))

    if use_postln:
        h = x + scale_1 * normalised(modulation(x))
        expected = h + scale_2 * normalised(mlp(h))
    else:
        h = x + scale_1 * modulation(normalised(x))
        expected = h + scale_2 * mlp(normalised(h))
    np.testing.assert_allclose(block(x), expected, rtol=1e-3, atol=1e-4)


def test_valid_reaches_the_modulation():
    block = built((6, 6, 4))
    x = np.random.default_rng(1).normal(size=(1, 6, 6, 4)).astype("float32")
    half = np.ones((1, 6, 6, 1), "float32")
    half[:, :3] = 0
    everything = np.ones_like(half)
    np.testing.assert_allclose(block(x), block(x, valid=everything), atol=1e-5)
    assert np.abs(np.asarray(block(x)) - np.asarray(block(x, valid=half))).max() > 1e-3


def test_drop_path_drops_whole_samples_and_only_in_training():
    keras.utils.set_random_seed(0)
    block = built((4, 4, 4), drop_path=0.5)
    x = np.random.default_rng(1).normal(size=(64, 4, 4, 4)).astype("float32")
    kept = np.asarray(block(x, training=False))
    trained = np.asarray(block(x, training=True))
    untouched = (np.abs(trained - x).max((1, 2, 3)) == 0).sum()
    # Both branches of a sample are dropped with probability 1/4.
    assert 4 < untouched < 32
    np.testing.assert_array_equal(kept, np.asarray(block(x, training=False)))


def test_the_config_rebuilds_the_block():
    block = FocalBlock(
        focal_window=5, focal_levels=3, ndim=3, mlp_ratio=2.0, use_postln=True, layerscale=1e-4,
        dropout=0.1, drop_path=0.2, context="parallel", name="block",
    )  # fmt: skip
    assert FocalBlock.from_config(block.get_config()).get_config() == block.get_config()
