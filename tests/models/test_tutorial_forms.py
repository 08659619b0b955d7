"""The forms of the Keras tutorial, as README has them, on real images that scikit-learn ships."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.layers import FocalBlock
from segfocal.models import FocalNet

TUTORIAL = {"gate_activation": "softmax", "context": "parallel"}


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits: images ``(1797, 8, 8, 1)`` in [0, 1] and their numbers."""
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    return found.images[..., None].astype("float32") / 16, found.target.astype("int32")


@pytest.mark.parametrize("options", [{}, TUTORIAL], ids=["published", "tutorial"])
def test_a_residual_block_is_a_model_for_any_image(options, digits):
    keras.utils.set_random_seed(0)
    images, _ = digits
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Dense(16),
            FocalBlock(focal_window=3, focal_levels=2, **options),
            keras.layers.Dense(1),
        ]
    )
    noisy = images + np.random.default_rng(0).normal(0, 0.3, images.shape).astype("float32")
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    losses = model.fit(noisy, images, batch_size=64, epochs=4, verbose=0).history["loss"]
    # Better than leaving the image as it is: the noise's variance.
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.09
    larger = np.asarray(model(np.zeros((1, 20, 31, 1), "float32")))
    assert larger.shape == (1, 20, 31, 1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, TUTORIAL], ids=["published", "tutorial"])
def test_a_classifier_of_ten_classes_learns_from_images_of_224(options, digits):
    keras.utils.set_random_seed(0)
    images, numbers = digits
    chosen = slice(0, 64)
    large = np.kron(images[chosen], np.ones((1, 28, 28, 3), "float32"))
    assert large.shape[1:] == (224, 224, 3)
    model = FocalNet(in_channels=3, num_classes=10, preset="nano", **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    history = model.fit(large, numbers[chosen], batch_size=16, epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["accuracy"][-1] > 0.3
