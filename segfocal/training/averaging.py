"""The weights that are trained on, and the averages of them that are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["put_back", "take_averages", "trained_weights"]


def trained_weights(model: keras.Model) -> list[NDArray[Any]]:
    """Return copies of the weights that are trained on."""
    return [
        np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables
    ]


def put_back(model: keras.Model, weights: Sequence[NDArray[Any]]) -> None:
    """Set the weights that are trained on, bit by bit."""
    for variable, weight in zip(model.trainable_variables, weights, strict=True):
        variable.assign(weight)


def take_averages(model: keras.Model) -> None:
    """Set the weights to the averages that the optimizer keeps, if it does."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    # On JAX weight and average are one buffer now, which a step would delete for both.
    put_back(model, trained_weights(model))
