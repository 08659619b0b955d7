"""The boundary loss, and the distances it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.card import IGNORE_INDEX
from segfocal.losses.targets import SegmentationLoss, Targets, Task, mean

__all__ = ["Boundary", "distances_within"]


@keras.saving.register_keras_serializable(package="segfocal")
class Boundary(SegmentationLoss):
    """Probability in the wrong place, by its distance to the boundary (Kervadec et al. 2019).

    The mean over counted pixels and classes of ``(p - y) d``, where d is the distance to the
    class for pixels outside and minus the distance to the other classes for pixels inside. Both
    factors have the same sign, so that the loss is 0 for the truth and never negative; the
    published form, without y, differs by a constant. Distances are Euclidean, computed from the
    labels on the device; beyond ``radius`` they count as ``radius``, and they are divided by it.
    It says little about classes that are missed wholly: add it to another loss with
    :class:`~segfocal.losses.WeightedSum`.

    Args:
        radius: Distance up to which farther is worse, in units of ``spacing``. Time grows with it.
        spacing: Pixel size along each axis; left out, 1.
        ignore_class, task, name: See :class:`~segfocal.losses.targets.SegmentationLoss`.

    Call arguments:
        y_true, y_pred: See :mod:`segfocal.losses`.
    """

    def __init__(
        self,
        radius: float = 10.0,
        spacing: Sequence[float] | None = None,
        ignore_class: int = IGNORE_INDEX,
        task: Task = "classes",
        name: str = "boundary",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_class, task, name, **kwargs)
        if radius <= 0 or (spacing is not None and min(spacing) <= 0):
            raise ValueError(f"radius {radius}, spacing {spacing}; expected more than 0")
        self.radius = radius
        self.spacing = None if spacing is None else tuple(spacing)

    def cost(self, targets: Targets) -> KerasTensor:
        ndim = len(targets.inside.shape) - 2
        spacing = self.spacing or (1.0,) * ndim
        outside = targets.known - targets.inside
        to_class = distances_within(targets.inside > 0, self.radius, spacing)
        to_others = distances_within(outside > 0, self.radius, spacing)
        distance = (outside * to_class - targets.inside * to_others) / self.radius
        wrong = targets.probabilities - targets.inside
        return mean(wrong * ops.stop_gradient(distance), targets.known)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius, "spacing": self.spacing}


def distances_within(there: KerasTensor, radius: float, spacing: Sequence[float]) -> KerasTensor:
    """Return the Euclidean distance to the nearest True pixel, at most ``radius``.

    One axis after the other, the least sum of what was found and the square of a shift (as in
    Felzenszwalb and Huttenlocher 2012), over all shifts up to the radius.

    Args:
        there: Boolean ``(batch, *space, classes)``.
        radius: Where to stop, in units of ``spacing``.
        spacing: Pixel size along each axis.
    """
    far = float(radius) ** 2
    squared = ops.where(there, 0.0, far)
    for axis, size in enumerate(spacing, start=1):
        reach = math.floor(radius / size)
        sides = [(0, 0)] * len(there.shape)
        sides[axis] = (reach, reach)
        padded = ops.pad(squared, sides, constant_values=far)
        length = ops.shape(squared)[axis]
        for shift in range(-reach, reach + 1):
            if shift:
                take = [slice(None)] * len(there.shape)
                take[axis] = slice(reach + shift, reach + shift + length)
                squared = ops.minimum(squared, padded[tuple(take)] + (shift * size) ** 2)
    return ops.sqrt(squared)
