"""What holds for every loss, on every backend's operations: ignoring, finiteness, configs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.losses import (
    AtScale,
    Boundary,
    DiceBinaryCrossEntropy,
    DiceCrossEntropy,
    Focal,
    GeneralisedDice,
    Lovasz,
    Tversky,
    WeightedSum,
)

CLASSES = 4

LOSSES = {
    "dice": lambda task, **more: (
        DiceCrossEntropy(**more) if task == "classes" else DiceBinaryCrossEntropy(**more)
    ),
    "focal": lambda task, **more: Focal(task=task, **more),
    "tversky": lambda task, **more: Tversky(task=task, **more),
    "focal tversky": lambda task, **more: Tversky(0.4, 0.6, 4 / 3, task=task, **more),
    "generalised": lambda task, **more: GeneralisedDice(task=task, **more),
    "lovasz": lambda task, **more: Lovasz(task=task, **more),
    "boundary": lambda task, **more: Boundary(4.0, task=task, **more),
}

every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())
every_task = pytest.mark.parametrize("task", ["classes", "regions"])


def sample(task, space=(2, 5, 6), ignored=-1, seed=0):
    rng = np.random.default_rng(seed)
    shape = space if task == "classes" else (*space, CLASSES)
    labels = rng.integers(0, CLASSES - 1 if task == "classes" else 2, shape).astype("int32")
    labels[rng.random(shape) < 0.3] = ignored
    return labels, rng.normal(0, 2, (*space, CLASSES)).astype("float32")


def gradient(loss, labels, logits):
    """Return the gradient by the logits, through one step of size 1 of a bias per logit."""
    image = keras.Input(logits.shape[1:], dtype="float32")

    class Bias(keras.layers.Layer):
        def build(self, shape):
            self.bias = self.add_weight(shape=logits.shape, initializer="zeros")

        def call(self, inputs):
            return inputs + self.bias

    model = keras.Model(image, Bias()(image))
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    value = float(model.train_on_batch(logits, labels))
    return value, -np.asarray(model.get_weights()[0])


@every_task
@every_loss
def test_a_batch_that_is_ignored_wholly_costs_nothing_and_has_no_gradient(make, task):
    labels, logits = sample(task)
    value, slope = gradient(make(task), np.full_like(labels, -1), logits)
    assert value == 0
    assert (slope == 0).all()


@every_task
@every_loss
@pytest.mark.parametrize("ignored", [-1, 255])
def test_logits_of_ignored_pixels_make_no_difference(make, task, ignored):
    labels, logits = sample(task, ignored=ignored)
    hidden = labels == ignored if task == "regions" else (labels == ignored)[..., None]
    loss = make(task, ignore_class=ignored)
    changed = np.where(hidden, 50 - 9 * logits, logits)
    assert float(loss(labels, changed)) == float(loss(labels, logits)) > 0
    _, slope = gradient(loss, labels, logits)
    assert (slope[np.broadcast_to(hidden, slope.shape)] == 0).all()


@every_task
@every_loss
def test_gradients_are_those_of_finite_differences(make, task):
    labels, logits = sample(task, (1, 3, 4))
    loss = make(task)
    _, slope = gradient(loss, labels, logits)
    step, rng = 2e-3, np.random.default_rng(1)
    for _ in range(4):
        way = rng.normal(size=logits.shape).astype("float32")
        ahead, behind = (float(loss(labels, logits + s * way)) for s in (step, -step))
        assert (slope * way).sum() == pytest.approx((ahead - behind) / (2 * step), abs=5e-4)
    assert np.abs(slope).max() > 3e-3


@every_task
@every_loss
@pytest.mark.parametrize("magnitude", [1e3, 6e4])
def test_large_half_precision_logits_stay_finite(make, task, magnitude):
    labels, logits = sample(task)
    half = (np.sign(logits) * magnitude).astype("float16")
    half[0, 0, 0] = 0
    value, slope = gradient(make(task), labels, half)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


@every_task
@every_loss
def test_the_truth_costs_nothing_and_its_opposite_more_than_noise(make, task):
    labels, noise = sample(task)
    there = np.eye(CLASSES)[labels] if task == "classes" else labels
    certain = (40.0 * (2 * there - 1)).astype("float32")
    loss = make(task)
    assert float(loss(labels, certain)) == pytest.approx(0, abs=1e-4)
    assert float(loss(labels, -certain)) > float(loss(labels, 0.01 * noise)) > 1e-3


@every_task
@every_loss
def test_the_config_rebuilds_the_loss(make, task):
    loss = make(task, ignore_class=7, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.ignore_class, again.task, again.name) == (7, task, "mine")
    labels, logits = sample(task, ignored=7)
    assert float(again(labels, logits)) == float(loss(labels, logits))


@every_loss
def test_volumes_are_treated_like_images_of_one_plane(make):
    labels, logits = sample("classes", (2, 5, 6))
    loss = make("classes")
    flat = float(loss(labels[:, None], logits[:, None]))
    assert flat == pytest.approx(float(loss(labels, logits)), rel=1e-6)


@every_loss
def test_labels_as_sets_of_one_class_are_labels(make):
    labels, logits = sample("classes")
    sets = np.where((labels >= 0)[..., None], np.eye(CLASSES)[labels], 1)
    loss = make("classes")
    assert float(loss(sets, logits)) == pytest.approx(float(loss(labels, logits)), rel=1e-5)


def test_a_sum_adds_up_and_its_config_rebuilds_it():
    labels, logits = sample("classes")
    parts = [DiceCrossEntropy(), Boundary(3.0, (1.0, 2.0))]
    both = WeightedSum(parts, [1, 0.25])
    expected = float(parts[0](labels, logits)) + 0.25 * float(parts[1](labels, logits))
    assert float(both(labels, logits)) == pytest.approx(expected, rel=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(both))
    assert float(again(labels, logits)) == float(both(labels, logits))
    nested = AtScale(both, 2)
    again = keras.losses.deserialize(keras.losses.serialize(nested))
    half = logits[:, ::2, ::2]
    assert float(again(labels, half)) == float(nested(labels, half)) > 0


def test_at_a_scale_regions_are_taken_at_the_middle_of_each_position():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (2, 9, 11, CLASSES)).astype("int8")
    logits = rng.normal(size=(2, 5, 6, CLASSES)).astype("float32")
    loss = DiceBinaryCrossEntropy()
    # Positions whose middle lies beyond the labels are left out.
    expected = float(loss(labels[:, 1::2, 1::2], logits[:, :4, :5]))
    assert float(AtScale(loss, 2)(labels, logits)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Focal(gamma=0.5),
        lambda: Tversky(gamma=0.5),
        lambda: Tversky(false_negatives=0),
        lambda: Boundary(radius=0),
        lambda: Lovasz(task="region"),
        lambda: WeightedSum([]),
        lambda: WeightedSum([Focal()], [1, 2]),
    ],
)
def test_senseless_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        wrong()
