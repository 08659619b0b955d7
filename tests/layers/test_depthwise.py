from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segfocal.layers import DepthwiseConv3D
from segfocal.layers.depthwise import depthwise_conv


@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 7), (1, 3, 3), (3, 1, 1)])
def test_three_dimensional_equals_scipy(kernel):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 7, 8, 3)).astype("float32")
    layer = DepthwiseConv3D(kernel)
    found = np.asarray(layer(x))
    weights = np.asarray(layer.kernel)
    for sample in range(2):
        for channel in range(3):
            expected = ndimage.correlate(
                x[sample, ..., channel], weights[..., channel, 0], mode="constant"
            )
            np.testing.assert_allclose(found[sample, ..., channel], expected, atol=1e-5)


def test_two_dimensional_equals_scipy():
    x = np.random.default_rng(0).normal(size=(1, 9, 8, 2)).astype("float32")
    layer = depthwise_conv((5, 3))
    found, weights = np.asarray(layer(x)), np.asarray(layer.kernel)
    for channel in range(2):
        expected = ndimage.correlate(x[0, ..., channel], weights[..., channel, 0], mode="constant")
        np.testing.assert_allclose(found[0, ..., channel], expected, atol=1e-5)


def test_initial_kernels_have_pytorchs_spread():
    layer = DepthwiseConv3D((3, 3, 3))
    layer.build((None, 4, 4, 4, 512))
    weights = np.asarray(layer.kernel)
    bound = 1 / np.sqrt(27)
    assert np.abs(weights).max() <= bound
    assert weights.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("kernel", [(2, 3, 3), (3, 3), (0, 1, 1)])
def test_other_kernels_are_refused(kernel):
    with pytest.raises(ValueError, match="three odd numbers"):
        DepthwiseConv3D(kernel)
