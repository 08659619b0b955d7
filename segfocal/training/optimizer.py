"""The default optimizer, also with a lower learning rate for a trained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from segfocal.data.plan import Plan

__all__ = ["SlowerAdamW", "default_optimizer"]

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

NOT_DECAYED = ("bias", "gamma", "beta")


@keras.saving.register_keras_serializable(package="segfocal")
class SlowerAdamW(keras.optimizers.AdamW):
    """AdamW that learns some of the variables at a lower rate; their weights decay slower too.

    Args:
        slow: Numbers of these variables among those it is built for.
        slow_rate: Their share of the learning rate.
        **options: Of :class:`keras.optimizers.AdamW`.
    """

    def __init__(self, slow: Sequence[int] = (), slow_rate: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.slow, self.slow_rate = tuple(slow), slow_rate
        self._decayed: set[int] = set()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.built:
            mine = [variables[number] for number in self.slow]
            self._decayed = {
                number
                for number in self.slow
                if not any(name in variables[number].name for name in NOT_DECAYED)
            }
            # Keras lets weights decay at the full rate.
            self.exclude_from_weight_decay(var_list=mine, var_names=list(NOT_DECAYED))
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        number = self._get_variable_index(variable)
        if number in self.slow:
            learning_rate = learning_rate * self.slow_rate
            if number in self._decayed and self.weight_decay:
                rate = keras.ops.cast(learning_rate * self.weight_decay, variable.dtype)
                self.assign_sub(variable, variable * rate)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slow": list(self.slow), "slow_rate": self.slow_rate}


def default_optimizer(
    plan: Plan, slow: Sequence[int] = (), slow_rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """Return AdamW with warm-up, cosine decay, clipped gradients and averaged weights.

    Args:
        plan: Gives steps, learning rate and weight decay.
        slow: Numbers of the variables that learn at a lower rate.
        slow_rate: Their share of the learning rate.
    """
    warm_up = max(1, int(WARM_UP * plan.steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=plan.learning_rate / 100,
        decay_steps=max(1, plan.steps - warm_up),
        alpha=0.01,
        warmup_target=plan.learning_rate,
        warmup_steps=warm_up,
    )
    options: dict[str, Any] = {
        "learning_rate": schedule,
        "weight_decay": plan.weight_decay,
        "global_clipnorm": 1.0,
        "use_ema": True,
        # An average over about the last tenth of the run.
        "ema_momentum": max(0.5, 1.0 - 10.0 / plan.steps),
    }
    if slow:
        return SlowerAdamW(slow, slow_rate, **options)
    optimizer = keras.optimizers.AdamW(**options)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer
