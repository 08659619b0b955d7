"""MeanIoU against scikit-learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from segfocal.losses import DiceCrossEntropy
from segfocal.metrics import MeanIoU

CLASSES = 5


def batches(count, space=(2, 6, 7), ignored=-1):
    rng = np.random.default_rng(0)
    for _ in range(count):
        labels = rng.integers(0, CLASSES - 1, space).astype("int32")  # the last class is absent
        logits = rng.normal(0, 1, (*space, CLASSES)) + 2 * np.eye(CLASSES)[labels]
        logits[..., CLASSES - 1] = -50
        labels[rng.random(space) < 0.2] = ignored
        yield labels, logits.astype("float32")


def expected(pairs, ignored=-1):
    labels = np.concatenate([labels.ravel() for labels, _ in pairs])
    found = np.concatenate([logits.argmax(-1).ravel() for _, logits in pairs])
    return jaccard_score(labels[labels != ignored], found[labels != ignored], average="macro")


@pytest.mark.parametrize("space", [(2, 6, 7), (1, 3, 4, 5)])
@pytest.mark.parametrize("ignored", [-1, 200])
def test_several_batches_count_as_one_large_image(space, ignored):
    pairs = list(batches(4, space, ignored))
    metric = MeanIoU(CLASSES, ignore_class=ignored)
    for labels, logits in pairs:
        metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(expected(pairs, ignored), rel=1e-6)
    per_batch = np.mean([expected([pair], ignored) for pair in pairs])
    assert abs(per_batch - float(metric.result())) > 1e-4, "the mean of batches would pass too"


def test_the_matrix_has_the_reference_in_its_rows():
    metric = MeanIoU(3)
    scores = np.eye(3, dtype="float32")[[1, 1, 0, 2]]
    metric.update_state(np.array([0, 0, 1, -1]), scores)
    assert np.asarray(metric.matrix).tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_only_classes_that_occur_enter_the_mean():
    metric = MeanIoU(4)
    # Class 0: 1 of 2, class 1: 1 of 2 (one pixel of class 0 is taken for it), 2 and 3: nowhere.
    metric.update_state(np.array([[0, 0, 1]]), np.eye(4, dtype="float32")[[[0, 1, 1]]])
    assert float(metric.result()) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_ignored_pixels_alone_count_nothing():
    metric = MeanIoU(3)
    metric.update_state(np.full((1, 4), -1), np.ones((1, 4, 3), "float32"))
    assert np.asarray(metric.matrix).sum() == 0
    assert float(metric.result()) == 0


def test_of_several_possible_classes_none_is_counted():
    pairs = list(batches(2))
    indices, sets = MeanIoU(CLASSES), MeanIoU(CLASSES)
    for labels, logits in pairs:
        indices.update_state(labels, logits)
        possible = np.where((labels >= 0)[..., None], np.eye(CLASSES)[labels], 1)
        possible[labels == -1, 0] = 0  # all, or all but one
        sets.update_state(possible, logits)
    np.testing.assert_array_equal(np.asarray(sets.matrix), np.asarray(indices.matrix))
    assert np.asarray(sets.matrix).sum() > 0


def test_reset_forgets_what_was_seen():
    first, second = batches(2)
    metric = MeanIoU(CLASSES)
    metric.update_state(*first)
    metric.reset_state()
    assert np.asarray(metric.matrix).sum() == 0
    metric.update_state(*second)
    assert float(metric.result()) == pytest.approx(expected([second]), rel=1e-6)


def test_a_compiled_fit_reports_the_score_of_its_epoch():
    pairs = list(batches(3))
    labels = np.concatenate([labels for labels, _ in pairs])
    logits = np.concatenate([logits for _, logits in pairs])
    # The model hands its input through, and a learning rate of 0 keeps it so.
    image = keras.Input((None, None, CLASSES))
    outputs = keras.layers.Dense(CLASSES, kernel_initializer="identity")(image)
    model = keras.Model(image, outputs)
    model.compile(keras.optimizers.SGD(0.0), DiceCrossEntropy(), metrics=[MeanIoU(CLASSES)])
    history = model.fit(logits, labels, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    score = expected(pairs)
    assert history["mean_iou"] == pytest.approx([score, score], rel=1e-6)


def test_the_config_rebuilds_the_metric():
    metric = MeanIoU(6, ignore_class=9, name="score")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert isinstance(again, MeanIoU)
    assert again.get_config() == metric.get_config()
    assert (again.num_classes, again.ignore_class, again.name) == (6, 9, "score")
