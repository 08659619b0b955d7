"""Predictors: what the sweep runs tiles through.

A predictor turns a batch of tiles into class probabilities. The sweep knows nothing else of
a model, so that a Keras model and a plain function are the same to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card, read_card
from segfocal.errors import ModelError
from segfocal.quiet import load_keras

__all__ = ["CallablePredictor", "KerasPredictor", "Predictor", "as_predictor", "load_model"]

_KERAS_PREDICTORS: WeakKeyDictionary[Any, KerasPredictor] = WeakKeyDictionary()

BatchFunction = Callable[[NDArray[np.float32]], Any]


class Predictor(Protocol):
    """A trained model as the sweep sees it."""

    @property
    def card(self) -> Card | None:
        """What the model expects; None for a plain function."""

    @property
    def ndim(self) -> int | None:
        """Number of spatial axes; None when any will do."""

    @property
    def output_stride(self) -> int:
        """Total downsampling; tile, halo and stride must be multiples of it."""

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Return probabilities ``(batch, *tile, num_classes)``.

        Args:
            values: ``(batch, *tile, channels)`` in scan units; unspecified where not valid.
            valid: ``(batch, *tile)``.
        """


class CallablePredictor:
    """A function from a batch of tiles to a batch of probabilities.

    Args:
        function: Takes ``(batch, *tile, channels)`` float32 and returns
            ``(batch, *tile, classes)``. Pixels that are not valid are given as 0.
    """

    card: Card | None = None
    ndim: int | None = None
    output_stride = 1

    def __init__(self, function: BatchFunction) -> None:
        self._function = function

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        result = np.asarray(self._function(np.where(valid[..., None], values, np.float32(0))))
        if result.shape[:-1] != valid.shape:
            raise ModelError(
                f"the function returned shape {result.shape} for tiles of shape {values.shape}; "
                f"expected {(*valid.shape, 'classes')}"
            )
        return result.astype(np.float32, copy=False)


class KerasPredictor:
    """A segfocal Keras model.

    Args:
        model: A model with a card whose output is logits ``(batch, *tile, num_classes)``.
    """

    def __init__(self, model: Any) -> None:
        import keras

        self.card: Card = model.card
        self.ndim: int = self.card.ndim
        self.output_stride: int = model.output_stride
        probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(model.output)
        self._model = keras.Model(model.input, probabilities)

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        # One compiled function for one batch shape; `predict` would build a data pipeline
        # for every call.
        batch = {"image": values, "valid": valid}
        return np.asarray(self._model.predict_on_batch(batch), np.float32)


def load_model(path: str | Path) -> Any:
    """Load a model saved by segfocal.

    Args:
        path: A ``.keras`` file.

    Returns:
        The :class:`~segfocal.models.FocalUNet`.

    Raises:
        ModelError: The file is missing, damaged, or not a segfocal model.
    """
    read_card(path)  # before Keras is loaded: a wrong path should not cost seconds
    load_keras()
    import keras

    import segfocal.models as models

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds, for damage as well as for versions
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: Keras cannot load this model: {first}") from error
    if not isinstance(model, models.FocalUNet):
        raise ModelError(f"{path}: holds a {type(model).__name__}; expected a segfocal.FocalUNet")
    return model


def as_predictor(model: Any) -> Predictor:
    """Return the predictor for a path, a Keras model, a predictor or a plain function.

    Raises:
        ModelError: It is none of these.
    """
    if isinstance(model, str | Path):
        return KerasPredictor(load_model(model))
    if isinstance(getattr(model, "card", None), Card) and hasattr(model, "output_stride"):
        if not hasattr(model, "predict_on_batch"):
            return model
        # Kept as long as the model lives: a new one would be compiled again for every scan.
        if model not in _KERAS_PREDICTORS:
            _KERAS_PREDICTORS[model] = KerasPredictor(model)
        return _KERAS_PREDICTORS[model]
    if isinstance(model, CallablePredictor):
        return model
    if hasattr(model, "predict_on_batch"):
        raise ModelError(
            f"{type(model).__name__} is a Keras model without a segfocal card; expected a "
            "FocalUNet, or a function from tiles to probabilities (pass model.predict_on_batch)"
        )
    if callable(model):
        return CallablePredictor(model)
    raise ModelError(
        f"{type(model).__name__} is no model; expected a path, a FocalUNet or a function from "
        "tiles to probabilities"
    )
