"""The network as it is fitted: with its heads, losses and metrics."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from segfocal.data.plan import Plan
from segfocal.errors import ModelError
from segfocal.losses import AtScale, DiceBinaryCrossEntropy, DiceCrossEntropy, tasks_of
from segfocal.metrics import MeanIoU, MeanRegionIoU
from segfocal.models import FocalUNet
from segfocal.training.optimizer import default_optimizer
from segfocal.training.replicas import Replicas

__all__ = ["checked_loss", "compiled", "fitted_network", "require_finite", "step_optimizer"]


def fitted_network(model: FocalUNet, plan: Plan) -> keras.Model:
    """Return a network of the model's layers, with the additional heads of the plan.

    The model itself is not compiled, so that its file holds no optimizer.
    """
    if plan.deep_supervision:
        return model.supervised(plan.deep_supervision)
    return keras.Model(model.input, model.output, name=f"{model.name}_fitted")


def checked_loss(loss: keras.losses.Loss | None, task: str) -> keras.losses.Loss:
    """Return a loss, or the default one of a task.

    Raises:
        ModelError: It is for the other task.
    """
    if loss is None:
        return DiceCrossEntropy() if task == "classes" else DiceBinaryCrossEntropy()
    if not tasks_of(loss) <= {task}:
        others = " and ".join(sorted(tasks_of(loss)))
        raise ModelError(
            f"the loss {loss.name} is for the task {others}; expected one for {task}: pass "
            f"task={task!r} to it"
        )
    return loss


def step_optimizer(
    fitted: keras.Model, model: FocalUNet, plan: Plan, encoder_rate: float
) -> keras.optimizers.Optimizer:
    """Return the default optimizer; below 1, ``encoder_rate`` is the encoder's share."""
    if encoder_rate == 1:
        return default_optimizer(plan)
    encoder = {id(variable) for variable in model.encoder.trainable_variables}
    slow = [k for k, one in enumerate(fitted.trainable_variables) if id(one) in encoder]
    return default_optimizer(plan, slow, encoder_rate)


def compiled(
    fitted: keras.Model,
    plan: Plan,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    replicas: Replicas,
) -> tuple[str, ...]:
    """Compile a network with the loss at each of its heads; return their names, if several."""
    outputs: tuple[str, ...] = ()
    losses: Any = replicas.whole_batch(loss)
    weights = None
    metric = MeanIoU if plan.card.task == "classes" else MeanRegionIoU
    metrics: Any = [replicas.whole_batch_metric(metric, plan.card.num_classes)]
    if plan.deep_supervision:
        outputs = tuple(fitted.output)
        losses = {
            name: replicas.whole_batch(AtScale(loss, 2**i) if i else loss)
            for i, name in enumerate(outputs)
        }
        shares = [0.5**i for i in range(len(outputs))]
        weights = {name: share / sum(shares) for name, share in zip(outputs, shares, strict=True)}
        metrics = {outputs[0]: metrics}
    replicas.sum_before_clipping(optimizer)
    fitted.compile(
        optimizer=optimizer,
        loss=losses,
        loss_weights=weights,
        metrics=metrics,
        # XLA does not compile what replicas tell each other.
        jit_compile=False if replicas.mirrored else "auto",
    )
    # Built here, the optimizer's variables do not come into being inside the compiled
    # step, which TensorFlow would then trace twice.
    fitted.optimizer.build(fitted.trainable_variables)
    return outputs


def require_finite(model: keras.Model) -> None:
    """Raise ``ModelError`` when a weight is no number."""
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ModelError(
                f"training diverged: {weight.path} is not finite; expected numbers: lower the "
                "learning rate, and look for extreme values in the scans; nothing was saved"
            )
