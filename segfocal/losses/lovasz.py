"""The Lovász loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX
from segfocal.losses.targets import SegmentationLoss, Targets, Task

__all__ = ["Lovasz"]


@keras.saving.register_keras_serializable(package="segfocal")
class Lovasz(SegmentationLoss):
    """The convex extension of 1 - IoU, ``Lovász-Softmax`` (Berman et al. 2018).

    Errors ``|y - p|`` of all counted pixels of the batch are sorted, and each is weighted by
    what its pixel would add to the Jaccard loss; the mean over the classes that occur. Regions
    are treated the same, with sigmoid probabilities. Sorting takes more time than other losses
    do; usually it is added to cross-entropy.

    Args:
        ignore_class, task, name: See :class:`~segfocal.losses.targets.SegmentationLoss`.

    Call arguments:
        y_true, y_pred: See :mod:`segfocal.losses`.
    """

    def __init__(
        self,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str = "lovasz",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, task, name, **kwargs)

    def cost(self, targets: Targets) -> KerasTensor:
        inside, known, probabilities = (
            ops.transpose(ops.reshape(part, (-1, part.shape[-1])))
            for part in (targets.inside, targets.known, targets.probabilities)
        )
        # Unknown pixels have no error and add to neither side of the quotient below.
        errors = ops.abs(inside - probabilities) * known
        order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
        errors, inside, known = (
            ops.take_along_axis(part, order, axis=-1) for part in (errors, inside, known)
        )
        there = ops.sum(inside, axis=-1, keepdims=True)
        intersection = there - ops.cumsum(inside, axis=-1)
        union = there + ops.cumsum(known - inside, axis=-1)
        jaccard = 1.0 - intersection / ops.maximum(union, 1.0)
        steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
        present = ops.cast(there[:, 0] > 0, "float32")
        loss = ops.sum(errors * ops.stop_gradient(steps), axis=-1)
        return ops.sum(loss * present) / ops.maximum(ops.sum(present), 1.0)
