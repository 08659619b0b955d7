"""Losses of segmentation networks. All leave out pixels of ``ignore_class``."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX

__all__ = ["AtScale", "DiceBinaryCrossEntropy", "DiceCrossEntropy"]


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

        dice = _dice(ops.exp(log_probabilities) * weight, truth)
        return cross_entropy + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ignore_class": self.ignore_class,
            "dice_weight": self.dice_weight,
        }


@keras.saving.register_keras_serializable(package="segfocal")
class DiceBinaryCrossEntropy(keras.losses.Loss):
    """Binary cross-entropy plus soft Dice loss over overlapping regions, in float32.

    The mean over regions of what :class:`DiceCrossEntropy` is over classes; a region may be
    unknown where another is known.

    Args:
        ignore_class: Value of a region's label where it does not count.
        dice_weight: Factor of the Dice term.
        name: Name of the loss.

    Call arguments:
        y_true: ``(batch, *space, regions)`` of 1 (inside), 0 (outside) and ``ignore_class``.
        y_pred: Logits ``(batch, *space, regions)``.
    """

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        dice_weight: float = 1.0,
        name: str = "dice_binary_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.ignore_class = ignore_class
        self.dice_weight = dice_weight

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        logits = ops.cast(y_pred, "float32")
        inside = ops.cast(y_true, "int32")
        weight = ops.cast(inside != self.ignore_class, "float32")
        truth = ops.cast(inside == 1, "float32")
        # log(1 + exp(x)) - x y, in the form that does not overflow.
        each = ops.softplus(logits) - logits * truth
        cross_entropy = ops.sum(each * weight) / ops.maximum(ops.sum(weight), 1.0)
        dice = _dice(ops.sigmoid(logits) * weight, truth)
        return cross_entropy + self.dice_weight * dice

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ignore_class": self.ignore_class,
            "dice_weight": self.dice_weight,
        }


@keras.saving.register_keras_serializable(package="segfocal")
class AtScale(keras.losses.Loss):
    """Another loss, of logits that are smaller than the labels (deep supervision).

    Labels are taken at the pixel nearest to the middle of each position of the logits.

    Args:
        loss: The loss.
        factor: How many times smaller the logits are along each axis.
        name: Name of the loss.

    Call arguments:
        y_true: ``(batch, *space)`` or ``(batch, *space, regions)``.
        y_pred: Logits ``(batch, *space / factor, num_classes)``; positions beyond the labels
            are left out.
    """

    def __init__(
        self, loss: keras.losses.Loss, factor: int, name: str = "at_scale", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.loss = loss
        self.factor = factor

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        space = range(1, len(y_pred.shape) - 1)
        take = (slice(None), *(slice(self.factor // 2, None, self.factor) for _ in space))
        labels = y_true[take]
        sides = ops.shape(labels)
        logits = y_pred[(slice(None), *(slice(0, sides[axis]) for axis in space))]
        return self.loss.call(labels, logits)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "factor": self.factor,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AtScale:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def _dice(probabilities: KerasTensor, truth: KerasTensor) -> KerasTensor:
    """Return the mean soft Dice loss of the classes (last axis) that occur in ``truth``."""
    everything = tuple(range(len(truth.shape) - 1))
    both = ops.sum(probabilities * truth, axis=everything)
    either = ops.sum(probabilities, axis=everything) + ops.sum(truth, axis=everything)
    present = ops.cast(ops.sum(truth, axis=everything) > 0, "float32")
    dice = 1.0 - 2.0 * both / ops.maximum(either, 1e-6)
    return ops.sum(dice * present) / ops.maximum(ops.sum(present), 1.0)
