"""What labels say about each pixel, in one form for all losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX

__all__ = ["SegmentationLoss", "Targets", "Task", "class_targets", "mean", "region_targets"]

Task = Literal["classes", "regions"]

IMPOSSIBLE = -1e9
"""Stands for the logarithm of 0: infinity would make gradients NaN."""


@dataclass(frozen=True)
class Targets:
    """Probabilities and what is known of the truth, float32.

    Attributes:
        probabilities: ``(batch, *space, num_classes)``.
        inside: Same shape: 1 where the pixel is known to be of the class.
        known: Same shape: 1 where it is known whether the pixel is of the class.
        surprise: Minus the logarithm of the probability that was given to the truth, ``(batch,
            *space)``; of regions ``(batch, *space, regions)``.
        counted: Same shape: 1 where something is known.
    """

    probabilities: KerasTensor
    inside: KerasTensor
    known: KerasTensor
    surprise: KerasTensor
    counted: KerasTensor


def class_targets(y_true: KerasTensor, y_pred: KerasTensor, ignore_class: int) -> Targets:
    """Return the targets of exclusive classes, from class indices or from possible classes."""
    logits = ops.cast(y_pred, "float32")
    log_probabilities = ops.log_softmax(logits, axis=-1)
    labels = ops.cast(y_true, "int32")
    if len(labels.shape) == len(logits.shape):
        possible = labels != 0
        number = ops.sum(ops.cast(possible, "int32"), axis=-1)
        counted = (number > 0) & (number < logits.shape[-1])
        allowed = possible | ops.expand_dims(~counted, -1)
        surprise = -ops.logsumexp(ops.where(allowed, log_probabilities, IMPOSSIBLE), axis=-1)
        some = ops.expand_dims(counted, -1)
        inside = ops.cast(possible & ops.expand_dims(number == 1, -1), "float32")
        # A class that is not possible is known not to be there; a possible one is known to be
        # there when it is the only one.
        known = ops.cast(some & ~possible, "float32") + inside
    else:
        counted = labels != ignore_class
        known = ops.expand_dims(ops.cast(counted, "float32"), -1)
        inside = ops.one_hot(ops.where(counted, labels, 0), logits.shape[-1], dtype="float32")
        inside = inside * known
        surprise = -ops.sum(inside * log_probabilities, axis=-1)
        known = ops.broadcast_to(known, ops.shape(inside))
    return Targets(
        ops.exp(log_probabilities), inside, known, surprise, ops.cast(counted, "float32")
    )


def region_targets(y_true: KerasTensor, y_pred: KerasTensor, ignore_class: int) -> Targets:
    """Return the targets of regions that may overlap."""
    logits = ops.cast(y_pred, "float32")
    labels = ops.cast(y_true, "int32")
    known = ops.cast(labels != ignore_class, "float32")
    inside = ops.cast(labels == 1, "float32") * known
    # log(1 + exp(x)) - x y, in the form that does not overflow.
    surprise = ops.softplus(logits) - logits * inside
    return Targets(ops.sigmoid(logits), inside, known, surprise, known)


def mean(values: KerasTensor, weights: KerasTensor) -> KerasTensor:
    """Return the mean of what has weight 1; 0 when nothing has."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)


class SegmentationLoss(keras.losses.Loss):
    """A loss that follows from :class:`Targets`.

    Args:
        ignore_class: Class index of pixels that do not count.
        task: ``"classes"`` or ``"regions"``.
        name: Name of the loss.
    """

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if task not in ("classes", "regions"):
            raise ValueError(f"task {task!r}; expected 'classes' or 'regions'")
        self.ignore_class = ignore_class
        self.task = task

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        make = class_targets if self.task == "classes" else region_targets
        return self.cost(make(y_true, y_pred, self.ignore_class))

    def cost(self, targets: Targets) -> KerasTensor:
        """Return the loss, a scalar."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class, "task": self.task}
