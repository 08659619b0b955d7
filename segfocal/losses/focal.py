"""The focal loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX
from segfocal.losses.targets import SegmentationLoss, Targets, Task, mean

__all__ = ["Focal"]


@keras.saving.register_keras_serializable(package="segfocal")
class Focal(SegmentationLoss):
    """Cross-entropy in which pixels that are right already count little (Lin et al. 2017).

    The mean over counted pixels of ``-(1 - p)^gamma log p``, p being the probability of the
    truth; over pixels and regions with ``task="regions"``.

    Args:
        gamma: 0 (plain cross-entropy), or 1 and more.
        ignore_class, task, name: See :class:`~segfocal.losses.targets.SegmentationLoss`.

    Call arguments:
        y_true, y_pred: See :mod:`segfocal.losses`.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str = "focal",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, task, name, **kwargs)
        if gamma != 0 and gamma < 1:
            raise ValueError(f"gamma {gamma}; expected 0, or 1 and more")
        self.gamma = gamma

    def cost(self, targets: Targets) -> KerasTensor:
        surprise = targets.surprise
        if self.gamma:
            # expm1 keeps the digits of 1 - p where p is nearly 1.
            wrong = ops.maximum(-ops.expm1(-surprise), 0.0)
            surprise = wrong**self.gamma * surprise
        return mean(surprise, targets.counted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
