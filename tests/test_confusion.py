"""Confusion matrices and scores against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from segfocal.confusion import (
    accuracy,
    class_dice,
    class_iou,
    class_precision,
    class_recall,
    confusion_matrix,
    mean_over_classes,
    predicted_pixels,
    reference_pixels,
    region_matrices,
    scored_pixels,
)

CLASSES = 5


@pytest.fixture(params=[(400,), (20, 20), (4, 10, 10)], ids=str)
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, CLASSES, request.param)
    predicted = np.where(
        rng.random(request.param) < 0.5, reference, rng.integers(0, CLASSES, request.param)
    )
    return reference, predicted


def test_counts_are_scikit_learns(pair):
    reference, predicted = pair
    expected = metrics.confusion_matrix(reference.ravel(), predicted.ravel(), labels=range(CLASSES))
    assert confusion_matrix(reference, predicted, CLASSES).tolist() == expected.tolist()


def test_scores_are_scikit_learns(pair):
    reference, predicted = (array.ravel() for array in pair)
    matrix = confusion_matrix(reference, predicted, CLASSES)
    iou = metrics.jaccard_score(reference, predicted, average=None)
    dice = metrics.f1_score(reference, predicted, average=None)
    np.testing.assert_allclose(class_iou(matrix), iou, rtol=1e-12)
    np.testing.assert_allclose(class_dice(matrix), dice, rtol=1e-12)
    assert accuracy(matrix) == pytest.approx(metrics.accuracy_score(reference, predicted))
    assert mean_over_classes(class_iou(matrix)) == pytest.approx(iou.mean())


def test_rows_are_the_reference():
    assert confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [
        [0, 2],
        [1, 0],
    ]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_negative_indices_on_either_side_are_not_counted(dtype):
    reference = np.array([0, 1, -1, -1, 2, -3], dtype)
    predicted = np.array([0, -1, 1, -1, 1, 0], dtype)
    assert confusion_matrix(reference, predicted, 3).tolist() == [
        [1, 0, 0],
        [0, 0, 0],
        [0, 1, 0],
    ]


def test_small_integer_types_do_not_overflow():
    reference = np.full(3, 100, np.int8)
    assert confusion_matrix(reference, reference, 101)[100, 100] == 3


def test_matrices_of_parts_add_up_to_the_matrix_of_the_whole(pair):
    reference, predicted = pair
    parts = zip(np.array_split(reference, 3), np.array_split(predicted, 3), strict=True)
    total = sum(confusion_matrix(r, p, CLASSES) for r, p in parts)
    assert total.tolist() == confusion_matrix(reference, predicted, CLASSES).tolist()


def test_precision_and_recall_are_those_of_scikit_learn(pair):
    reference, predicted = pair
    counted = reference.ravel() >= 0
    truth, found = reference.ravel()[counted], predicted.ravel()[counted]
    matrix = confusion_matrix(reference, predicted, CLASSES)
    precision, recall, _, _ = metrics.precision_recall_fscore_support(
        truth, found, labels=range(CLASSES), zero_division=np.nan
    )
    np.testing.assert_allclose(class_precision(matrix), precision)
    np.testing.assert_allclose(class_recall(matrix), recall)


def test_a_class_that_occurs_nowhere_has_no_score_and_does_not_enter_the_mean():
    # Class 1 is in the reference only, class 2 nowhere, class 3 in the prediction only.
    reference, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 3, 0])
    matrix = confusion_matrix(reference, predicted, 4)
    np.testing.assert_array_equal(class_iou(matrix), [2 / 4, 0, math.nan, 0])
    np.testing.assert_array_equal(class_dice(matrix), [4 / 6, 0, math.nan, 0])
    assert mean_over_classes(class_iou(matrix)) == 0.5 / 3


def test_without_pixels_there_are_no_scores():
    matrix = confusion_matrix(np.array([-1, -1]), np.array([0, 1]), 2)
    assert matrix.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(class_iou(matrix)).all()
    assert math.isnan(accuracy(matrix))
    assert math.isnan(mean_over_classes(class_dice(matrix)))


@pytest.mark.parametrize("shape", [(400,), (20, 30), (7, 8, 9)])
def test_regions_are_counted_as_scikit_learn_counts_labels(shape):
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, 2, (*shape, 4)).astype("int8") for _ in range(2))
    truth[..., 3] = found[..., 3] = 0  # in neither
    pair = [one.reshape(-1, 4) for one in (truth, found)]
    matrix = region_matrices(truth, found)
    np.testing.assert_array_equal(matrix, metrics.multilabel_confusion_matrix(*pair))
    for score, theirs in (
        (class_iou, metrics.jaccard_score),
        (class_dice, metrics.f1_score),
        (class_precision, metrics.precision_score),
        (class_recall, metrics.recall_score),
    ):
        expected = theirs(*pair, average=None, zero_division=0)
        np.testing.assert_allclose(score(matrix)[:3], expected[:3])
        assert np.isnan(score(matrix)[3])
    assert accuracy(matrix) == pytest.approx((truth == found).mean())
    assert reference_pixels(matrix).tolist() == pair[0].sum(0).tolist()
    assert predicted_pixels(matrix).tolist() == pair[1].sum(0).tolist()
    assert scored_pixels(matrix) == np.prod(shape)


def test_of_a_region_only_known_pixels_are_counted():
    truth = np.array([[1, -1], [0, 1], [1, 1], [0, -1]])
    found = np.array([[1, 1], [1, 0], [-1, 1], [0, 0]])
    assert region_matrices(truth, found).tolist() == [[[1, 1], [0, 1]], [[0, 0], [1, 1]]]
    assert scored_pixels(region_matrices(truth, found)) == 3
