"""Keras metrics over the counts of everything seen since the last reset."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX

__all__ = ["MeanIoU", "MeanRegionIoU"]


class _Counts(keras.metrics.Metric):
    """What metrics over counts of classes have in common; see :class:`MeanIoU`."""

    def __init__(
        self,
        num_classes: int,
        ignore_class: int = IGNORE_INDEX,
        name: str = "mean_iou",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.add_counts()

    def add_counts(self) -> None:
        """Add the variables that counts are kept in."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_class": self.ignore_class,
        }


@keras.saving.register_keras_serializable(package="segfocal")
class MeanIoU(_Counts):
    """Mean intersection over union of the classes that occur.

    Counts are summed over batches before the division, as for one large image; Keras's own
    ``MeanIoU`` wants class indices where this takes logits or probabilities.

    Args:
        num_classes: Number of classes K.
        ignore_class: Class index of pixels that do not count.
        name: Name of the metric.
    """

    def add_counts(self) -> None:
        self.matrix = self.add_variable(
            shape=(self.num_classes, self.num_classes), initializer="zeros", name="matrix"
        )

    def update_state(
        self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: object = None
    ) -> None:
        """Count a batch of scores ``(batch, *space, num_classes)``.

        Labels are class indices ``(batch, *space)``, or possible classes, of which pixels with
        a single one are counted; see :mod:`segfocal.losses`.
        """
        labels = ops.cast(y_true, "int32")
        if len(labels.shape) == len(y_pred.shape):
            single = ops.sum(ops.cast(labels != 0, "int32"), axis=-1) == 1
            labels = ops.where(single, ops.argmax(labels, axis=-1), self.ignore_class)
        truth = ops.reshape(ops.cast(labels, "int32"), (-1,))
        guess = ops.reshape(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), (-1,))
        counted = truth != self.ignore_class
        pairs = ops.where(counted, truth * self.num_classes + guess, 0)
        # A sum over segments, not bincount: JAX cannot compile one whose length it must find.
        counts = ops.segment_sum(
            ops.cast(counted, "float32"), pairs, num_segments=self.num_classes**2
        )
        self.matrix.assign_add(
            ops.cast(ops.reshape(counts, (self.num_classes, self.num_classes)), self.dtype)
        )

    def result(self) -> KerasTensor:
        right = ops.diagonal(self.matrix)
        union = ops.sum(self.matrix, axis=0) + ops.sum(self.matrix, axis=1) - right
        present = ops.cast(union > 0, self.dtype)
        iou = right / ops.maximum(union, 1.0)
        return ops.sum(iou * present) / ops.maximum(ops.sum(present), 1.0)


@keras.saving.register_keras_serializable(package="segfocal")
class MeanRegionIoU(_Counts):
    """Mean intersection over union of regions that may overlap, of those that occur.

    A region holds a pixel where its probability is above one half, that is where its logit is
    above 0. Counts are summed over batches before the division.

    Args:
        num_classes: Number of regions K.
        ignore_class: Label of pixels that do not count for a region.
        name: Name of the metric.
    """

    def add_counts(self) -> None:
        self.both = self.add_variable(shape=(self.num_classes,), initializer="zeros", name="both")
        self.either = self.add_variable(
            shape=(self.num_classes,), initializer="zeros", name="either"
        )

    def update_state(
        self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: object = None
    ) -> None:
        """Count a batch of logits ``(batch, *space, K)`` and labels of the same shape.

        Labels are 1 inside, 0 outside and ``ignore_class`` where it is not known.
        """
        labels = ops.cast(y_true, "int32")
        known = labels != self.ignore_class
        inside, found = known & (labels == 1), known & (y_pred > 0)
        axes = tuple(range(len(labels.shape) - 1))
        for variable, pixels in ((self.both, inside & found), (self.either, inside | found)):
            # Counted in float32: half precision ends at 65504.
            count = ops.sum(ops.cast(pixels, "float32"), axis=axes)
            variable.assign_add(ops.cast(count, self.dtype))

    def result(self) -> KerasTensor:
        present = ops.cast(self.either > 0, self.dtype)
        iou = self.both / ops.maximum(self.either, 1.0)
        return ops.sum(iou * present) / ops.maximum(ops.sum(present), 1.0)
