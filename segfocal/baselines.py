"""Trivial classifiers that a segmentation network has to beat.

Both know what the network knows of the training split, and are scored on the same pixels.
"""

from __future__ import annotations

from contextlib import ExitStack

import keras
import numpy as np
from numpy.typing import NDArray

from segfocal.confusion import confusion_matrix
from segfocal.data.plan import Plan
from segfocal.data.reading import BLOCK, RegionReader, blocks, open_regions
from segfocal.data.spec import DatasetSpec

__all__ = ["majority_class", "single_pixel_classifier"]

PIXELS_PER_BLOCK = 60_000
HIDDEN = 64
BATCH = 1024
STEPS = 1500


def majority_class(spec: DatasetSpec, plan: Plan, split: str = "test") -> NDArray[np.int64]:
    """Return the confusion matrix of always answering the commonest training class."""
    commonest = int(np.argmax(plan.class_pixels))
    matrix = np.zeros((spec.num_classes, spec.num_classes), np.int64)
    with ExitStack() as stack:
        for reader in open_regions(spec, split, stack):
            for block in blocks(reader.window, BLOCK[spec.ndim]):
                labels = reader.read(block)[2]
                counts = np.bincount(labels[labels >= 0], minlength=spec.num_classes)
                matrix[:, commonest] += counts
    return matrix


def single_pixel_classifier(
    spec: DatasetSpec, plan: Plan, split: str = "test"
) -> NDArray[np.int64]:
    """Return the confusion matrix of a classifier that sees one pixel at a time.

    A multilayer perceptron with two hidden layers of 64 units on the standardised channels,
    trained on pixels of the training split in the shares in which they occur.
    """
    keras.utils.set_random_seed(plan.seed)
    mean = np.array([channel.mean for channel in plan.card.channels], np.float32)
    std = np.array([channel.std for channel in plan.card.channels], np.float32)
    with ExitStack() as stack:
        values, labels = _training_pixels(
            spec,
            open_regions(spec, "train", stack, normalizations=plan.card.normalizations),
            plan.seed,
        )
        model = keras.Sequential(
            [
                keras.Input((len(mean),)),
                keras.layers.Dense(HIDDEN, activation="relu"),
                keras.layers.Dense(HIDDEN, activation="relu"),
                keras.layers.Dense(spec.num_classes),
            ]
        )
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, STEPS)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(plan.seed)
        chosen = rng.integers(len(values), size=STEPS * BATCH)
        pixels = np.nan_to_num((values[chosen] - mean) / std)
        model.fit(pixels, labels[chosen], BATCH, shuffle=False, verbose=0)

        matrix = np.zeros((spec.num_classes, spec.num_classes), np.int64)
        for reader in open_regions(spec, split, stack, normalizations=plan.card.normalizations):
            for block in blocks(reader.window, BLOCK[spec.ndim]):
                values, _, labels = reader.read(block)
                counted = labels >= 0
                if not counted.any():
                    continue
                pixels = np.nan_to_num((values[counted] - mean) / std)
                # Called, not `predict`: blocks differ in length, and each would be compiled.
                found = keras.ops.convert_to_numpy(model(pixels)).argmax(-1)
                matrix += confusion_matrix(labels[counted], found, spec.num_classes)
    return matrix


def _training_pixels(
    spec: DatasetSpec, readers: list[RegionReader], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    all_values, all_labels = [], []
    for reader in readers:
        for block in blocks(reader.window, BLOCK[spec.ndim]):
            values, _, labels = reader.read(block)
            counted = np.flatnonzero(labels >= 0)
            chosen = rng.choice(counted, min(len(counted), PIXELS_PER_BLOCK), replace=False)
            all_values.append(values.reshape(-1, values.shape[-1])[chosen])
            all_labels.append(labels.reshape(-1)[chosen])
    return np.concatenate(all_values), np.concatenate(all_labels)
