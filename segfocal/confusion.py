"""Confusion matrices and the scores that follow from them.

Rows are the reference, columns the prediction: ``matrix[i, j]`` counts pixels of class
index ``i`` that were given class index ``j``. A class that occurs in neither has no score
(NaN) and is left out of means.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "accuracy",
    "class_dice",
    "class_iou",
    "class_precision",
    "class_recall",
    "confusion_matrix",
    "mean_over_classes",
]


def confusion_matrix(
    reference: NDArray[np.integer], predicted: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Count pairs of class indices.

    Args:
        reference: Class indices, any shape; negative ones are not counted.
        predicted: Class indices of the same shape; negative ones are not counted.
        num_classes: Number of classes K.

    Returns:
        Array ``(K, K)``.
    """
    counted = (reference >= 0) & (predicted >= 0)
    pairs = reference[counted].astype(np.int64) * num_classes + predicted[counted]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the share of pixels that are right; NaN without pixels."""
    total = int(matrix.sum())
    return float(np.trace(matrix) / total) if total else float("nan")


def class_iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return intersection over union per class, ``TP / (TP + FP + FN)``."""
    right = np.diag(matrix).astype(np.float64)
    return _ratio(right, matrix.sum(0) + matrix.sum(1) - right)


def class_dice(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Dice coefficient per class, ``2 TP / (2 TP + FP + FN)``."""
    right = np.diag(matrix).astype(np.float64)
    return _ratio(2 * right, matrix.sum(0) + matrix.sum(1))


def class_precision(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's predicted pixels that are right, ``TP / (TP + FP)``."""
    return _ratio(np.diag(matrix).astype(np.float64), matrix.sum(0))


def class_recall(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's own pixels that were found, ``TP / (TP + FN)``."""
    return _ratio(np.diag(matrix).astype(np.float64), matrix.sum(1))


def mean_over_classes(scores: NDArray[np.float64]) -> float:
    """Return the mean of the scores that exist; NaN when none does."""
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out
