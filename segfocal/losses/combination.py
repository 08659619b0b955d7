"""Losses made from other losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

__all__ = ["AtScale", "WeightedSum"]


@keras.saving.register_keras_serializable(package="segfocal")
class WeightedSum(keras.losses.Loss):
    """The sum of several losses of the same labels and logits, each with a factor.

    Args:
        losses: The losses.
        weights: A factor for each; left out, 1.
        name: Name of the loss.

    Example:
        ``WeightedSum([DiceCrossEntropy(), Boundary()], [1.0, 0.1])``
    """

    def __init__(
        self,
        losses: Sequence[keras.losses.Loss],
        weights: Sequence[float] | None = None,
        name: str = "weighted_sum",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.losses = list(losses)
        self.weights = [1.0] * len(self.losses) if weights is None else [float(w) for w in weights]
        if not self.losses or len(self.losses) != len(self.weights):
            raise ValueError(
                f"{len(self.losses)} losses and {len(self.weights)} weights; expected as many of "
                "one as of the other, and at least one"
            )

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        total = 0.0
        for loss, weight in zip(self.losses, self.weights, strict=True):
            total = total + weight * loss.call(y_true, y_pred)
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses],
            "weights": self.weights,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WeightedSum:
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(**{**config, "losses": losses})


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
