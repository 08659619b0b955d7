"""What a loss is for: exclusive classes, or regions that overlap."""

from __future__ import annotations

import keras

from segfocal.losses.combination import AtScale, WeightedSum
from segfocal.losses.targets import SegmentationLoss, Task

__all__ = ["tasks_of"]


def tasks_of(loss: keras.losses.Loss) -> set[Task]:
    """Return the tasks that a loss and its parts are for; none where it does not say.

    The labels of both tasks may have the same shape, so that a loss for the other one would train
    something without an error.
    """
    if isinstance(loss, SegmentationLoss):
        return {loss.task}
    if isinstance(loss, WeightedSum):
        return {task for part in loss.losses for task in tasks_of(part)}
    return tasks_of(loss.loss) if isinstance(loss, AtScale) else set()
