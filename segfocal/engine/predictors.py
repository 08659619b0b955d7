"""Predictors: what the sweep runs tiles through.

A predictor turns a batch of tiles into class probabilities. The sweep knows nothing else of
a model, so that a Keras model, an exported model and a plain function are the same to it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.card_files import SAVED_MODEL
from segfocal.engine.callable_predictor import CallablePredictor
from segfocal.engine.keras_predictor import KerasPredictor, load_keras_model
from segfocal.engine.onnx_predictor import ONNXPredictor
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.errors import ModelError

__all__ = [
    "CallablePredictor",
    "KerasPredictor",
    "Predictor",
    "as_predictor",
    "load_exported",
    "load_model",
]

_KERAS_PREDICTORS: WeakKeyDictionary[Any, KerasPredictor] = WeakKeyDictionary()


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

    @property
    def hash(self) -> str | None:
        """sha256 of config and weights, or of the files; None for a plain function."""

    @property
    def engine(self) -> str:
        """What computes it, with version and precision: ``"tensorflow 2.21.0 float32"``."""

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Return probabilities ``(batch, *tile, num_classes)``.

        Args:
            values: ``(batch, *tile, channels)`` in scan units; unspecified where not valid.
            valid: ``(batch, *tile)``.
        """


def load_model(path: str | Path) -> Any:
    """Load a model saved or exported by segfocal.

    Args:
        path: A ``.keras`` file, an OpenVINO ``.xml`` with its ``.bin`` beside it, or an
            ``.onnx`` file. The last two load neither TensorFlow nor Keras; an ``.onnx`` file
            is run by ONNX Runtime, or by OpenVINO where only that is installed.

    Returns:
        The :class:`~segfocal.models.FocalUNet`, or for an exported model an object that
        :func:`~segfocal.predict` and its like take as a model.

    Raises:
        ModelError: The file is missing, damaged, not a segfocal model, or what runs it is
            not installed.
    """
    path = Path(path)
    if path.suffix.lower() in (".xml", ".onnx"):
        return load_exported(path)
    if (path / SAVED_MODEL).is_file():
        raise ModelError(
            f"{path}: is a SavedModel, which is for other programs; expected a .keras, .onnx or "
            ".xml file"
        )
    return load_keras_model(path)


def load_exported(path: Path) -> ONNXPredictor | OpenVINOPredictor:
    """Load an ``.xml`` or ``.onnx`` file with the runtime that is installed."""
    if path.suffix.lower() == ".xml":
        return OpenVINOPredictor(path)
    if find_spec("onnxruntime") is None and find_spec("openvino") is not None:
        return OpenVINOPredictor(path)
    return ONNXPredictor(path)


def as_predictor(model: Any) -> Predictor:
    """Return the predictor for a path, a Keras model, a predictor or a plain function.

    A list or tuple of models is their ensemble.

    Raises:
        ModelError: It is none of these, or the models do not go together.
    """
    if isinstance(model, list | tuple):
        from segfocal.engine.averaging import EnsemblePredictor

        return EnsemblePredictor([as_predictor(one) for one in model])
    if isinstance(model, str | Path):
        model = load_model(model)
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
