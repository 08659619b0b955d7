"""A segfocal Keras model as a predictor."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.card_files import read_card
from segfocal.engine.keras_archive import check_classes
from segfocal.errors import ModelError
from segfocal.quiet import load_keras

__all__ = ["KerasPredictor", "load_keras_model", "with_probabilities"]


class KerasPredictor:
    """A segfocal Keras model.

    Args:
        model: A model with a card whose output is logits ``(batch, *tile, num_classes)``. One
            with frozen context needs :meth:`with_context` before it can be called.
    """

    def __init__(self, model: Any) -> None:
        self.card: Card = model.card
        self.ndim: int = self.card.ndim
        self.output_stride: int = model.output_stride
        self.global_context: str | None = getattr(model, "global_context", None)
        # Not the model itself: as_predictor keeps predictors for as long as models live.
        self._model = with_probabilities(model)
        self._context: NDArray[np.float32] | None = None
        config = {key: value for key, value in model.get_config().items() if key != "name"}
        self._config = json.dumps([type(model).__name__, config], sort_keys=True, default=str)

    def with_context(self, context: NDArray[np.float32]) -> KerasPredictor:
        """Return the predictor of a frozen model with the means of a scan ``(context_size,)``."""
        twin = copy.copy(self)
        twin._context = context
        return twin

    @property
    def hash(self) -> str:
        """sha256 of config and weights, 64 hexadecimal digits.

        The same for a model, its saved file and a copy loaded from it: names, which Keras may
        number, do not enter. Computed at each access, for the model may be trained on.
        """
        import keras

        digest = hashlib.sha256(self._config.encode())
        for weight in self._model.weights:
            values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
            digest.update(f"{values.dtype.name}{values.shape}".encode())
            digest.update(values.reshape(-1).view(np.uint8).data)
        if self._context is not None:
            digest.update(self._context.tobytes())
        return digest.hexdigest()

    @property
    def engine(self) -> str:
        """Backend with its version, and the precision: ``"tensorflow 2.21.0 float32"``."""
        import keras

        backend = keras.backend.backend()
        version = getattr(sys.modules.get(backend), "__version__", "")
        layers = [layer for layer in self._model.layers if layer.weights]
        precision = "+".join(sorted({layer.compute_dtype for layer in layers}))
        return " ".join(filter(None, (backend, version, precision)))

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        # One compiled function for one batch shape; `predict` would build a data pipeline
        # for every call.
        batch = {"image": values, "valid": valid}
        if self._context is not None:
            batch["context"] = np.tile(self._context, (len(values), 1))
        return np.asarray(self._model.predict_on_batch(batch), np.float32)


def with_probabilities(model: Any) -> Any:
    """Return a Keras model from the inputs of ``model`` to probabilities, sharing its weights."""
    import keras

    options = {"dtype": "float32", "name": "probabilities"}
    if model.card.task == "regions":  # they overlap: a probability of its own for each
        layer = keras.layers.Activation("sigmoid", **options)
    else:
        layer = keras.layers.Softmax(**options)
    return keras.Model(model.input, layer(model.output), name="segfocal")


def load_keras_model(path: str | Path) -> Any:
    """Load a :class:`~segfocal.models.FocalUNet` from a ``.keras`` file.

    Raises:
        ModelError: The file is missing, damaged, or not a segfocal model.
    """
    read_card(path)  # before Keras is loaded: a wrong path should not cost seconds
    load_keras()
    import keras

    import segfocal.models as models

    check_classes(path)
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds, for damage as well as for versions
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: Keras cannot load this model: {first}") from error
    if not isinstance(model, models.FocalUNet):
        raise ModelError(f"{path}: holds a {type(model).__name__}; expected a segfocal.FocalUNet")
    return model
