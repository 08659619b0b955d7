"""Focal modulation against an oracle written with loops, in float64."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest

from segfocal.layers import FocalModulation
from segfocal.layers.focal_modulation import focal_kernels

erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def depthwise(x, kernel):
    """Same-size zero-padded depthwise correlation, one tap at a time."""
    sides = kernel.shape[:-2]
    out = np.zeros_like(x)
    for tap in itertools.product(*(range(side) for side in sides)):
        for place in np.ndindex(*x.shape[1:-1]):
            source = tuple(p + t - side // 2 for p, t, side in zip(place, tap, sides, strict=True))
            if all(0 <= s < n for s, n in zip(source, x.shape[1:-1], strict=True)):
                out[(slice(None), *place)] += x[(slice(None), *source)] * kernel[tap][:, 0]
    return out


def box_mean(context, chosen, window):
    """Mean of chosen positions in the box around each position, shifted inward at borders."""
    out = np.zeros_like(context)
    for place in np.ndindex(*context.shape[:-1]):
        box = []
        for at, side, length in zip(place, window, context.shape, strict=False):
            start = max(0, min(at - side // 2, length - side))
            box.append(slice(start, min(start + side, length)))
        inside = context[tuple(box)][chosen[tuple(box)]]
        out[place] = inside.mean(0) if len(inside) else 0
    return out


def oracle(layer, x, valid=None):
    def dense(inputs, name):
        part = getattr(layer, name)
        return inputs @ np.float64(part.kernel) + np.float64(part.bias)

    x = x.astype(np.float64)
    query, start = dense(x, "query_projection"), dense(x, "context_projection")
    gates = dense(x, "gate_projection")
    if layer.gate_activation == "softmax":
        gates = np.exp(gates) / np.exp(gates).sum(-1, keepdims=True)
    context, gathered = start, 0
    for level, focal in enumerate(layer.focal_layers):
        kernel = np.float64(focal.kernel)
        context = gelu(depthwise(context if layer.context == "chained" else start, kernel))
        gathered = gathered + context * gates[..., level : level + 1]
    if layer.global_context != "none":
        for sample in range(len(x)):
            chosen = np.ones(x.shape[1:-1], bool) if valid is None else valid[sample, ..., 0] > 0
            window = layer.local_window or x.shape[1:-1]
            mean = box_mean(context[sample], chosen, window)
            gathered[sample] += gelu(mean) * gates[sample, ..., layer.focal_levels :]
    if layer.normalize_modulator:
        gathered = gathered / gates.shape[-1]
    modulated = query * dense(gathered, "modulator_projection")
    if layer.post_norm is not None:
        centred = modulated - modulated.mean(-1, keepdims=True)
        modulated = centred / np.sqrt(modulated.var(-1, keepdims=True) + 1e-5)
        modulated = modulated * np.float64(layer.post_norm.gamma) + np.float64(layer.post_norm.beta)
    return dense(modulated, "output_projection")


def shaken(layer, shape, seed=0):
    """Build a layer and give every weight, biases too, a random value."""
    layer.build((None, *shape))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in layer.weights])
    return layer


@pytest.mark.parametrize("shape", [(7, 9, 4), (5, 4, 6, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"focal_levels": 3},
        {"focal_window": 5, "focal_factor": 4, "focal_levels": 1},
        {"gate_activation": "softmax", "context": "parallel"},
        {"context": "parallel"},
        {"global_context": "none"},
        {"global_context": "frozen"},
        {"global_context": "local", "local_window": 4},
        {"global_context": "local", "local_window": 5, "gate_activation": "softmax"},
        {"normalize_modulator": True},
        {"use_postln_in_modulation": True},
        {"normalize_modulator": True, "global_context": "none", "gate_activation": "softmax"},
    ],
    ids=str,
)
def test_every_option_equals_the_oracle(shape, options):
    layer = shaken(FocalModulation(ndim=len(shape) - 1, **options), shape)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    expected = oracle(layer, x)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(x)),
        expected,
        rtol=2e-4,
        atol=2e-4 * np.abs(expected).max(),
    )


@pytest.mark.parametrize("window", [(1, 3, 5), (3, 3, 1)])
def test_a_kernel_per_axis_equals_the_oracle(window):
    layer = shaken(FocalModulation(ndim=3, focal_window=window), (4, 5, 6, 3))
    x = np.random.default_rng(1).normal(size=(1, 4, 5, 6, 3)).astype("float32")
    expected = oracle(layer, x)
    np.testing.assert_allclose(layer(x), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(6, 5, 4), (4, 3, 5, 2)])
@pytest.mark.parametrize(
    "options", [{}, {"global_context": "local", "local_window": 3}], ids=["tile", "local"]
)
def test_invalid_positions_do_not_enter_the_mean(shape, options):
    layer = shaken(FocalModulation(ndim=len(shape) - 1, **options), shape)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, *shape)).astype("float32")
    valid = (rng.random((3, *shape[:-1], 1)) > 0.4).astype("float32")
    valid[2] = 0
    expected = oracle(layer, x, valid)
    np.testing.assert_allclose(
        layer(x, valid=valid), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max()
    )
    assert np.abs(expected - oracle(layer, x)).max() > 1e-2, "the mask makes no difference here"


def test_a_box_as_large_as_the_image_is_the_tile():
    shape = (9, 6, 3)
    tile = shaken(FocalModulation(), shape)
    local = shaken(FocalModulation(global_context="local", local_window=(9, 6)), shape)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(local(x), tile(x), rtol=1e-5, atol=1e-4)


def test_a_frozen_mean_is_used_as_it_is_given():
    shape = (6, 7, 3)
    tile = shaken(FocalModulation(), shape)
    frozen = shaken(FocalModulation(global_context="frozen"), shape)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, *shape)).astype("float32")
    everywhere = np.ones((2, *shape[:-1], 1), "float32")
    _, sums = frozen(x, counted=everywhere)
    means = np.asarray(sums) / (6 * 7)
    np.testing.assert_allclose(frozen(x, scan_mean=means), tile(x), rtol=1e-5, atol=1e-4)
    # Given the mean, a change far away changes nothing.
    changed = x.copy()
    changed[:, 0, 0] += 3
    near, far = (np.asarray(frozen(array, scan_mean=means)) for array in (x, changed))
    np.testing.assert_array_equal(near[:, -1, -1], far[:, -1, -1])
    assert np.abs(near[:, 0, 0] - far[:, 0, 0]).max() > 1e-2


@pytest.mark.parametrize("shape", [(6, 7, 3), (4, 5, 3, 2)])
def test_sums_of_the_last_context_run_over_counted_positions(shape):
    layer = shaken(FocalModulation(ndim=len(shape) - 1), shape)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, *shape)).astype("float32")
    counted = (rng.random((2, *shape[:-1], 1)) > 0.5).astype("float32")
    result, sums = layer(x, counted=counted)
    np.testing.assert_array_equal(result, layer(x))
    context = np.float64(x) @ np.float64(layer.context_projection.kernel)
    context += np.float64(layer.context_projection.bias)
    for focal in layer.focal_layers:
        context = gelu(depthwise(context, np.float64(focal.kernel)))
    expected = (context * counted).sum(tuple(range(1, len(shape))))
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_without_global_context_the_layer_is_local():
    layer = shaken(FocalModulation(focal_levels=2, global_context="none"), (30, 30, 3))
    x = np.random.default_rng(1).normal(size=(1, 30, 30, 3)).astype("float32")
    changed = x.copy()
    changed[0, 15, 15] += 1
    rows, cols = np.nonzero(np.abs(np.asarray(layer(x)) - np.asarray(layer(changed)))[0].max(-1))
    # Kernels 3 and 5 in a chain reach 1 + 2 pixels.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (12, 18, 12, 18)


def test_kernels_grow_by_the_focal_factor_except_along_an_axis_of_one():
    assert focal_kernels(3, 3, 2, 2) == [(3, 3), (5, 5), (7, 7)]
    assert focal_kernels((1, 3, 5), 2, 4, 3) == [(1, 3, 5), (1, 7, 9)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"focal_window": 4},
        {"focal_window": (3, 3, 3)},
        {"focal_levels": 0},
        {"ndim": 1},
        {"gate_activation": "sigmoid"},
        {"context": "serial"},
        {"global_context": "image"},
        {"local_window": 5},
    ],
)
def test_wrong_options_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        FocalModulation(**wrong)


@pytest.mark.parametrize("window", [None, 0, (3, 3, 3)])
def test_a_local_context_needs_the_sides_of_its_box(window):
    with pytest.raises(ValueError, match="expected 2 positive numbers with 'local'"):
        FocalModulation(global_context="local", local_window=window)


def test_the_config_rebuilds_the_layer():
    layer = FocalModulation(
        focal_window=(1, 3, 5), focal_levels=3, focal_factor=4, ndim=3, gate_activation="softmax",
        context="parallel", global_context="local", local_window=(1, 8, 9),
        normalize_modulator=True, use_postln_in_modulation=True, name="modulation",
    )  # fmt: skip
    again = FocalModulation.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.kernels == layer.kernels


def test_half_precision_stays_finite_and_close():
    x = np.random.default_rng(1).normal(size=(1, 16, 16, 8)).astype("float32")
    exact = shaken(FocalModulation(), (16, 16, 8))
    valid = np.ones((1, 16, 16, 1), "float32")
    for policy in ("mixed_float16", "mixed_bfloat16"):
        half = FocalModulation(dtype=policy)
        half.build((None, 16, 16, 8))
        half.set_weights(exact.get_weights())
        found = np.asarray(keras.ops.cast(half(x, valid=valid), "float32"))
        expected = np.asarray(exact(x))
        assert np.isfinite(found).all()
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
