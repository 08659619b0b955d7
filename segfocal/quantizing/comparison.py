"""What a quantized model loses: against the float model, and both against labels."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX
from segfocal.confusion import (
    accuracy,
    class_dice,
    class_iou,
    confusion_matrix,
    mean_over_classes,
    region_matrices,
)
from segfocal.data.spec import DatasetSpec
from segfocal.engine.job import Sides
from segfocal.engine.predictors import Predictor
from segfocal.engine.resolution import Resample
from segfocal.quantizing.calibration_tiles import Tile

__all__ = ["Scores", "against_labels", "against_other"]


@dataclass(frozen=True)
class Scores:
    """Scores of a label map.

    Attributes:
        accuracy: Share of pixels that are right.
        mean_iou, mean_dice: Means over the classes that occur.
    """

    accuracy: float
    mean_iou: float
    mean_dice: float

    @classmethod
    def of(cls, matrix: NDArray[np.int64]) -> Scores:
        """Return the scores of a confusion matrix."""
        iou, dice = class_iou(matrix), class_dice(matrix)
        return cls(accuracy(matrix), mean_over_classes(iou), mean_over_classes(dice))


def against_other(plain: Predictor, other: Predictor, tiles: list[Tile]) -> Scores:
    """Return the scores of a model's labels, as if those of another were the truth.

    Args:
        plain: The model that is taken for right, with a card.
        other: The model that is scored.
        tiles: What to run them on.
    """
    card = plain.card
    assert card is not None
    num_classes, overlapping = card.num_classes, card.task == "regions"
    matrix = np.zeros((num_classes, 2, 2) if overlapping else (num_classes,) * 2, np.int64)
    for values, valid in tiles:
        labels = []
        for predictor in (plain, other):
            found = predictor(values[None], valid[None])[0]
            if overlapping:
                labels.append(np.where(valid[..., None], found > 0.5, IGNORE_INDEX))
            else:
                labels.append(np.where(valid, found.argmax(-1), IGNORE_INDEX))
        if overlapping:
            matrix += region_matrices(labels[0], labels[1])
        else:
            matrix += confusion_matrix(labels[0], labels[1], num_classes)
    return Scores.of(matrix)


def against_labels(
    predictor: Predictor,
    spec: DatasetSpec,
    split: str,
    *,
    tile: Sides | None,
    resample: Resample,
) -> Scores:
    """Return the scores of a model on a split; see :func:`segfocal.evaluate`."""
    # Imports data and training code, which a quantization without spec does not need.
    from segfocal.evaluation import evaluate

    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(
            predictor, spec, split, out=folder, distances=False, tile=tile, resample=resample
        )
        return Scores.of(found.matrix)
