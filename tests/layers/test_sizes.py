from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.layers import CropLike, Double, PadToMultiple, PatchEmbedding, Standardize


@pytest.mark.parametrize(("side", "padded"), [(1, 4), (3, 4), (4, 4), (5, 8)])
def test_zeros_are_appended_up_to_the_multiple(side, padded):
    x = np.random.default_rng(0).random((1, side, 6, 2)).astype("float32")
    expected = np.zeros((1, padded, 6, 2), "float32")
    expected[:, :side] = x
    np.testing.assert_array_equal(PadToMultiple((4, 3))(x), expected)


@pytest.mark.parametrize("space", [(5, 7), (3, 5, 7)])
def test_padding_and_cropping_undo_each_other_in_a_graph_of_unknown_size(space):
    inputs = keras.Input((None,) * len(space) + (2,))
    padded = PadToMultiple((4,) * len(space))(inputs)
    model = keras.Model(inputs, [padded, CropLike()(padded, inputs)])
    x = np.random.default_rng(0).random((2, *space, 2)).astype("float32")
    padded, cropped = model.predict_on_batch(x)
    assert all(side % 4 == 0 for side in padded.shape[1:-1])
    np.testing.assert_array_equal(cropped, x)


def test_a_patch_is_projected_to_one_normalised_vector():
    layer = PatchEmbedding(6, (2, 2))
    x = np.random.default_rng(0).random((1, 5, 4, 3)).astype("float32")
    found = np.asarray(layer(x))
    kernel, bias = (np.asarray(w) for w in (layer.projection.kernel, layer.projection.bias))
    patch = np.zeros((2, 2, 3))
    patch[:1] = x[0, 4:, 2:]  # the last row is padded with zeros
    vector = np.tensordot(patch, kernel, 3) + bias
    vector = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    np.testing.assert_allclose(found[0, 2, 1], vector, atol=1e-4)


def test_standardising_takes_any_value_where_invalid():
    layer = Standardize((10.0, -2.0), (2.0, 4.0))
    x = np.array([[[[12.0, 2.0], [np.nan, np.inf]]]], "float32")
    found = np.asarray(layer(x, np.array([[[[True], [False]]]])))
    np.testing.assert_allclose(found, [[[[1, 1], [0, 0]]]])


def test_standardising_wants_one_number_per_channel():
    with pytest.raises(ValueError, match="2 values of mean for 3 channels"):
        Standardize((1.0, 2.0), (1.0, 2.0)).build((None, 4, 4, 3))


def test_standardising_large_values_survives_half_precision():
    layer = Standardize((1e6,), (1e5,), dtype="mixed_float16")
    x = np.full((1, 2, 2, 1), 1.2e6, "float32")
    found = np.asarray(keras.ops.cast(layer(x, np.ones((1, 2, 2, 1), bool)), "float32"))
    np.testing.assert_allclose(found, 2.0, rtol=1e-3)


@pytest.mark.parametrize("space", [(5, 6), (33, 31), (5, 6, 7), (9, 10, 11)])
def test_overlapping_patches_are_a_strided_convolution_with_zeros_around(space):
    """Also guards against graph rewriting, which loses paddings before 3-D convolutions."""
    for side in (2, 4):
        inputs = keras.Input((None,) * len(space) + (2,))
        layer = PatchEmbedding(3, (side,) * len(space), overlapping=True)
        model = keras.Model(inputs, layer(inputs))
        x = np.random.default_rng(0).normal(size=(1, *space, 2)).astype("float32")
        kernel, bias = (np.asarray(w) for w in (layer.projection.kernel, layer.projection.bias))
        assert kernel.shape[0] == 2 * side - 1
        # Room for the kernel at both ends, and for the padding up to whole patches.
        wide = np.pad(x[0], [(side // 2, 2 * side)] * len(space) + [(0, 0)])
        counts = tuple(-(-length // side) for length in space)
        expected = np.zeros((*counts, 3))
        for place in np.ndindex(*counts):
            window = tuple(slice(side * i, side * i + 2 * side - 1) for i in place)
            vector = np.tensordot(wide[window], kernel, len(space) + 1) + bias
            expected[place] = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
        np.testing.assert_allclose(model.predict_on_batch(x)[0], expected, atol=2e-3)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_doubling_images_is_what_keras_does(interpolation):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    mode = "bilinear" if interpolation == "linear" else "nearest"
    expected = keras.layers.UpSampling2D(2, interpolation=mode)(x)
    np.testing.assert_allclose(Double(interpolation)(x), expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_doubling_volumes_is_doubling_each_axis(interpolation):
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 5, 2)).astype("float32")
    expected = x
    mode = "bilinear" if interpolation == "linear" else "nearest"
    double = keras.layers.UpSampling2D((2, 1), interpolation=mode)
    for axis in (1, 2, 3):
        moved = np.moveaxis(expected, axis, 1)
        flat = moved.reshape(1, moved.shape[1], -1, 2)
        doubled = np.asarray(double(flat)).reshape(1, -1, *moved.shape[2:])
        expected = np.moveaxis(doubled, 1, axis)
    np.testing.assert_allclose(Double(interpolation)(x), expected, atol=1e-5)
