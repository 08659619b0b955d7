"""Losses of overlap: Dice with cross-entropy, generalised Dice, Tversky."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX
from segfocal.losses.targets import SegmentationLoss, Targets, Task, mean

__all__ = ["DiceBinaryCrossEntropy", "DiceCrossEntropy", "GeneralisedDice", "Tversky"]

TINY = 1e-6


@keras.saving.register_keras_serializable(package="segfocal")
class DiceCrossEntropy(SegmentationLoss):
    """Cross-entropy plus soft Dice loss over exclusive classes, in float32.

    Cross-entropy is the mean over counted pixels. Dice is ``1 - 2 sum(p y) / (sum(p) +
    sum(y))`` with sums over all counted pixels of the batch, and the mean over the classes
    that occur in the batch's labels. A batch without counted pixels costs 0.

    Where a pixel has several possible classes, cross-entropy is that of their sum (the marginal
    loss of Shi et al. 2021), and the pixel enters the Dice of the classes that it cannot have.

    Args:
        ignore_class: Class index of pixels that do not count.
        dice_weight: Factor of the Dice term.
        name: Name of the loss.

    Call arguments:
        y_true: Class indices ``(batch, *space)``, or possible classes ``(batch, *space,
            num_classes)``; see :mod:`segfocal.losses`.
        y_pred: Logits ``(batch, *space, num_classes)``.
    """

    _task: Task = "classes"

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        dice_weight: float = 1.0,
        name: str = "dice_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, self._task, name, **kwargs)
        self.dice_weight = dice_weight

    def cost(self, targets: Targets) -> KerasTensor:
        cross_entropy = mean(targets.surprise, targets.counted)
        return cross_entropy + self.dice_weight * _tversky(targets, 0.5, 0.5)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "dice_weight": self.dice_weight}
        config.pop("task")
        return config


@keras.saving.register_keras_serializable(package="segfocal")
class DiceBinaryCrossEntropy(DiceCrossEntropy):
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

    _task: Task = "regions"

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        dice_weight: float = 1.0,
        name: str = "dice_binary_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, dice_weight, name, **kwargs)


@keras.saving.register_keras_serializable(package="segfocal")
class Tversky(SegmentationLoss):
    """``1 - TP / (TP + a FP + b FN)`` of soft counts over all counted pixels of the batch.

    The mean over the classes that occur in the batch's labels (Salehi et al. 2017). With ``a =
    b = 1/2`` it is Dice; ``b > a`` makes missed pixels cost more than invented ones. With
    ``gamma`` above 1 it is the focal Tversky loss, ``(1 - index) ** (1 / gamma)`` (Abraham and
    Khan 2019).

    Args:
        false_positives: The factor a.
        false_negatives: The factor b.
        gamma: 1 or more.
        ignore_class, task, name: See :class:`~segfocal.losses.targets.SegmentationLoss`.

    Call arguments:
        y_true, y_pred: See :mod:`segfocal.losses`.
    """

    def __init__(
        self,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        gamma: float = 1.0,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str = "tversky",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, task, name, **kwargs)
        if false_positives < 0 or false_negatives <= 0 or gamma < 1:
            raise ValueError(
                f"false_positives {false_positives}, false_negatives {false_negatives}, gamma "
                f"{gamma}; expected at least 0, more than 0, and at least 1"
            )
        self.false_positives = false_positives
        self.false_negatives = false_negatives
        self.gamma = gamma

    def cost(self, targets: Targets) -> KerasTensor:
        return _tversky(targets, self.false_positives, self.false_negatives, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "gamma": self.gamma,
        }


@keras.saving.register_keras_serializable(package="segfocal")
class GeneralisedDice(SegmentationLoss):
    """One Dice of all classes, each weighted by ``1 / (its pixels)^2`` (Sudre et al. 2017).

    ``1 - 2 sum_k w_k TP_k / sum_k w_k (2 TP_k + FP_k + FN_k)``, soft counts over all counted
    pixels of the batch. Small classes count as much as large ones; classes that do not occur in
    the batch's labels have no weight.

    Args:
        ignore_class, task, name: See :class:`~segfocal.losses.targets.SegmentationLoss`.

    Call arguments:
        y_true, y_pred: See :mod:`segfocal.losses`.
    """

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str = "generalised_dice",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, task, name, **kwargs)

    def cost(self, targets: Targets) -> KerasTensor:
        both, found, there = _sums(targets)
        present = ops.cast(there > 0, "float32")
        weights = present / ops.maximum(there, 1.0) ** 2
        # Divided by the largest, which changes nothing else, weights cannot vanish.
        weights = weights / ops.maximum(ops.max(weights), 1e-30)
        dice = 2.0 * ops.sum(weights * both) / ops.maximum(ops.sum(weights * (found + there)), TINY)
        return (1.0 - dice) * ops.max(present)


def _sums(targets: Targets) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Return soft true positives, soft found pixels and pixels that are there, per class."""
    everything = tuple(range(len(targets.inside.shape) - 1))
    found = targets.probabilities * targets.known
    return (
        ops.sum(found * targets.inside, axis=everything),
        ops.sum(found, axis=everything),
        ops.sum(targets.inside, axis=everything),
    )


def _tversky(
    targets: Targets, false_positives: float, false_negatives: float, gamma: float = 1.0
) -> KerasTensor:
    """Return the mean Tversky loss of the classes that occur."""
    both, found, there = _sums(targets)
    present = ops.cast(there > 0, "float32")
    either = both + false_positives * (found - both) + false_negatives * (there - both)
    loss = 1.0 - both / ops.maximum(either, TINY)
    if gamma != 1:
        # The slope of a root is infinite at 0.
        loss = ops.maximum(loss, TINY) ** (1.0 / gamma)
    return ops.sum(loss * present) / ops.maximum(ops.sum(present), 1.0)
