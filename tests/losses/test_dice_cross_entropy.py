"""Losses against oracles written with loops, in float64."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from segfocal.losses import AtScale, DiceBinaryCrossEntropy, DiceCrossEntropy

CLASSES = 4


def oracle(labels, logits, ignored=-1, dice_weight=1.0):
    """Go through the pixels one by one."""
    classes = logits.shape[-1]
    entropy, pixels = 0.0, 0
    both, either, present = np.zeros(classes), np.zeros(classes), set()
    for place in np.ndindex(*labels.shape):
        label = int(labels[place])
        if label == ignored:
            continue
        scores = logits[place].astype(np.float64)
        scores = scores - scores.max()
        logs = scores - math.log(sum(math.exp(score) for score in scores))
        entropy -= logs[label]
        pixels += 1
        present.add(label)
        either += np.exp(logs)
        either[label] += 1
        both[label] += math.exp(logs[label])
    if not pixels:
        return 0.0
    dice = sum(1 - 2 * both[k] / either[k] for k in present) / len(present)
    return entropy / pixels + dice_weight * dice


def sample(space, ignored=-1):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES - 1, space).astype("int32")  # the last class is absent
    labels[rng.random(space) < 0.3] = ignored
    return labels, rng.normal(0, 2, (*space, CLASSES)).astype("float32")


@pytest.mark.parametrize("space", [(2, 5, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("dice_weight", [0.0, 1.0, 2.5])
def test_the_loss_is_cross_entropy_plus_dice_of_the_classes_that_occur(space, dice_weight):
    labels, logits = sample(space)
    found = float(DiceCrossEntropy(dice_weight=dice_weight)(labels, logits))
    assert found == pytest.approx(oracle(labels, logits, dice_weight=dice_weight), rel=1e-5)


@pytest.mark.parametrize("ignored", [-1, 3, 255])
def test_any_class_index_may_be_the_ignored_one(ignored):
    labels, logits = sample((2, 6, 6), ignored)
    assert (labels == ignored).any()
    found = float(DiceCrossEntropy(ignore_class=ignored)(labels, logits))
    assert found == pytest.approx(oracle(labels, logits, ignored), rel=1e-5)


def test_logits_of_ignored_pixels_make_no_difference():
    labels, logits = sample((2, 6, 6))
    changed = np.where((labels == -1)[..., None], 50 - 9 * logits, logits)
    loss = DiceCrossEntropy()
    assert float(loss(labels, changed)) == float(loss(labels, logits))
    assert float(loss(np.abs(labels), changed)) != float(loss(np.abs(labels), logits))


def test_certain_and_right_costs_nothing_certain_and_wrong_the_logit_and_one():
    labels = np.array([[[0, 1], [1, 0]]])
    logits = 100.0 * np.eye(2)[labels]
    assert float(DiceCrossEntropy()(labels, logits)) == pytest.approx(0, abs=1e-6)
    assert float(DiceCrossEntropy()(1 - labels, logits)) == pytest.approx(101, rel=1e-6)


def pixelwise_model(loss, ndim=2):
    """A model whose gradient reaches every logit, trained with steps of size 1."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None,) * ndim + (3,))
    model = keras.Model(image, keras.layers.Dense(CLASSES)(image))
    model.compile(keras.optimizers.SGD(1.0), loss)
    return model


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_batch_that_is_ignored_wholly_costs_exactly_nothing_and_moves_no_weight(ndim):
    space = (2,) + (4,) * ndim
    labels = np.full(space, -1, "int32")
    values = np.random.default_rng(0).normal(size=(*space, 3)).astype("float32")
    model = pixelwise_model(DiceCrossEntropy(), ndim)
    before = [np.array(weight) for weight in model.get_weights()]
    assert float(model.train_on_batch(values, labels)) == 0.0
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    model.train_on_batch(values, labels + 1)
    assert np.abs(model.get_weights()[0] - before[0]).max() > 0, "the steps move nothing at all"


def test_gradients_are_those_of_finite_differences():
    labels, _ = sample((1, 3, 4))
    values = np.random.default_rng(1).normal(size=(1, 3, 4, 3)).astype("float32")
    model = pixelwise_model(DiceCrossEntropy())
    kernel, bias = (np.float64(weight) for weight in model.get_weights())

    def cost(kernel):
        return oracle(labels, values @ kernel + bias)

    expected = np.zeros_like(kernel)
    for place in np.ndindex(*kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        expected[place] = (cost(kernel + step) - cost(kernel - step)) / 2e-5
    model.train_on_batch(values, labels)
    np.testing.assert_allclose(kernel - model.get_weights()[0], expected, atol=1e-5)


@pytest.mark.parametrize("magnitude", [1e3, 1e4, 6e4])
def test_large_half_precision_logits_stay_finite(magnitude):
    labels, logits = sample((2, 5, 6))
    half = (np.sign(logits) * magnitude).astype("float16")
    half[0, 0, 0] = 0
    found = float(DiceCrossEntropy()(labels, half))
    assert found == pytest.approx(oracle(labels, half.astype("float64")), rel=1e-5)


def test_training_on_large_inputs_in_half_precision_keeps_the_weights_finite():
    labels, _ = sample((2, 5, 6))
    model = pixelwise_model(DiceCrossEntropy())
    values = np.random.default_rng(1).choice([-1e4, 1e4], (2, 5, 6, 3)).astype("float32")
    for _ in range(3):
        assert np.isfinite(float(model.train_on_batch(values, labels)))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_the_config_rebuilds_the_loss():
    loss = DiceCrossEntropy(ignore_class=7, dice_weight=0.25, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, DiceCrossEntropy)
    assert again.get_config() == loss.get_config()
    assert (again.ignore_class, again.dice_weight, again.name) == (7, 0.25, "mine")


def region_oracle(labels, logits, ignored=-1):
    """Go through pixels and regions one by one."""
    regions = logits.shape[-1]
    entropy, counted = 0.0, 0
    both, either, present = np.zeros(regions), np.zeros(regions), set()
    for place in np.ndindex(*labels.shape):
        label, region = int(labels[place]), place[-1]
        if label == ignored:
            continue
        probability = 1 / (1 + math.exp(-float(logits[place])))
        entropy -= math.log(probability if label else 1 - probability)
        counted += 1
        either[region] += probability + label
        both[region] += probability * label
        if label:
            present.add(region)
    if not counted:
        return 0.0
    dice = sum(1 - 2 * both[k] / either[k] for k in present) / max(len(present), 1)
    return entropy / counted + dice


@pytest.mark.parametrize("ignored", [-1, 255])
def test_regions_cost_binary_cross_entropy_plus_dice(ignored):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, 5, 6, 3)).astype("int32")
    labels[..., 2] = 0  # a region that does not occur
    labels[rng.random(labels.shape) < 0.3] = ignored
    logits = rng.normal(0, 2, labels.shape).astype("float32")
    found = float(DiceBinaryCrossEntropy(ignore_class=ignored)(labels, logits))
    assert found == pytest.approx(region_oracle(labels, logits, ignored), rel=1e-5)


def test_regions_survive_huge_logits_and_batches_without_labels():
    loss = DiceBinaryCrossEntropy()
    logits = np.array([[[1e4, -1e4]]], "float32")
    assert float(loss(np.array([[[1, 0]]]), logits)) == pytest.approx(0, abs=1e-5)
    assert float(loss(np.array([[[0, 1]]]), logits)) == pytest.approx(1e4 + 1, rel=1e-3)
    assert float(loss(np.full((1, 1, 2), -1), logits)) == 0


@pytest.mark.parametrize("side", [12, 13, 15, 17])
@pytest.mark.parametrize("factor", [2, 4])
def test_smaller_logits_meet_the_labels_at_the_middle_of_their_positions(side, factor):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (2, side, 9)).astype("int32")
    small = -(-side // factor), -(-9 // factor)
    logits = rng.normal(0, 2, (2, *small, CLASSES)).astype("float32")
    loss = AtScale(DiceCrossEntropy(), factor)
    middle = factor // 2
    seen = labels[:, middle::factor, middle::factor]
    expected = oracle(seen, logits[:, : seen.shape[1], : seen.shape[2]])
    assert float(loss(labels, logits)) == pytest.approx(expected, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(labels, logits)) == pytest.approx(expected, rel=1e-5)
