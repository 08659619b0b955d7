"""Confusion matrices and the scores that follow from them.

Rows are the reference, columns the prediction: ``matrix[i, j]`` counts pixels of class
index ``i`` that were given class index ``j``. A class that occurs in neither has no score
(NaN) and is left out of means.

Regions that overlap are counted one by one: their matrices are ``(K, 2, 2)``, for each region
that of outside (0) and inside (1). Every score takes either.
"""

from __future__ import annotations

from typing import Any

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
    "predicted_pixels",
    "reference_pixels",
    "region_matrices",
    "scored_pixels",
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


def region_matrices(
    reference: NDArray[np.integer], predicted: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Count pairs of inside and outside, for each region.

    Args:
        reference: ``(*space, K)``: 1 inside, 0 outside; negative ones are not counted.
        predicted: The same of the prediction.

    Returns:
        Array ``(K, 2, 2)``.
    """
    regions = range(reference.shape[-1])
    return np.stack([confusion_matrix(reference[..., k], predicted[..., k], 2) for k in regions])


def scored_pixels(matrix: NDArray[np.int64]) -> int:
    """Return how many pixels were scored; of regions, in that where most were."""
    return int(matrix.sum() if matrix.ndim == 2 else matrix.sum((1, 2)).max())


def reference_pixels(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels of each class in the reference."""
    found: NDArray[np.int64] = matrix.sum(1) if matrix.ndim == 2 else matrix[:, 1].sum(1)
    return found


def predicted_pixels(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels of each class in the prediction."""
    found: NDArray[np.int64] = matrix.sum(0) if matrix.ndim == 2 else matrix[:, :, 1].sum(1)
    return found


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the share of pixels that are right; NaN without pixels.

    Of regions: of all answers, one for each pixel and region.
    """
    total = int(matrix.sum())
    right = np.trace(matrix, axis1=-2, axis2=-1).sum()
    return float(right / total) if total else float("nan")


def class_iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return intersection over union per class, ``TP / (TP + FP + FN)``."""
    right = _right(matrix)
    return _ratio(right, predicted_pixels(matrix) + reference_pixels(matrix) - right)


def class_dice(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Dice coefficient per class, ``2 TP / (2 TP + FP + FN)``."""
    return _ratio(2 * _right(matrix), predicted_pixels(matrix) + reference_pixels(matrix))


def class_precision(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's predicted pixels that are right, ``TP / (TP + FP)``."""
    return _ratio(_right(matrix), predicted_pixels(matrix))


def class_recall(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class's own pixels that were found, ``TP / (TP + FN)``."""
    return _ratio(_right(matrix), reference_pixels(matrix))


def mean_over_classes(scores: NDArray[np.float64]) -> float:
    """Return the mean of the scores that exist; NaN when none does."""
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def _right(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the true positives of each class."""
    right = np.diag(matrix) if matrix.ndim == 2 else matrix[:, 1, 1]
    return right.astype(np.float64)


def _ratio(top: NDArray[np.float64], bottom: NDArray[Any]) -> NDArray[np.float64]:
    out = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out
