"""Losses of segmentation networks. All leave out pixels of ``ignore_class``."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX

__all__ = ["DiceCrossEntropy"]


@keras.saving.register_keras_serializable(package="segfocal")
class DiceCrossEntropy(keras.losses.Loss):
    """Cross-entropy plus soft Dice loss over exclusive classes, in float32.

    Cross-entropy is the mean over counted pixels. Dice is ``1 - 2 sum(p y) / (sum(p) +
    sum(y))`` with sums over all counted pixels of the batch, and the mean over the classes
    that occur in the batch's labels. A batch without counted pixels costs 0.

    Args:
        ignore_class: Class index of pixels that do not count.
        dice_weight: Factor of the Dice term.
        name: Name of the loss.

    Call arguments:
        y_true: Class indices ``(batch, *space)``.
        y_pred: Logits ``(batch, *space, num_classes)``.
    """

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        dice_weight: float = 1.0,
        name: str = "dice_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.ignore_class = ignore_class
        self.dice_weight = dice_weight

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        logits = ops.cast(y_pred, "float32")
        index = ops.cast(y_true, "int32")
        counted = index != self.ignore_class
        weight = ops.expand_dims(ops.cast(counted, "float32"), -1)
        truth = ops.one_hot(ops.where(counted, index, 0), logits.shape[-1], dtype="float32")
        truth = truth * weight
        pixels = ops.maximum(ops.sum(weight), 1.0)

        log_probabilities = ops.log_softmax(logits, axis=-1)
        cross_entropy = -ops.sum(truth * log_probabilities) / pixels

        everything = tuple(range(len(logits.shape) - 1))
        probabilities = ops.exp(log_probabilities) * weight
        both = ops.sum(probabilities * truth, axis=everything)
        either = ops.sum(probabilities, axis=everything) + ops.sum(truth, axis=everything)
        present = ops.cast(ops.sum(truth, axis=everything) > 0, "float32")
        dice = 1.0 - 2.0 * both / ops.maximum(either, 1e-6)
        dice = ops.sum(dice * present) / ops.maximum(ops.sum(present), 1.0)
        return cross_entropy + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ignore_class": self.ignore_class,
            "dice_weight": self.dice_weight,
        }
