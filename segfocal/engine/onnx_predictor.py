"""An exported model run by ONNX Runtime, without TensorFlow or Keras.

Every tile is a call of its own: ONNX Runtime rounds a batch of one otherwise than larger ones,
and larger ones are not faster.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.exported_model import (
    PROBABILITIES,
    Conversion,
    check_signature,
    hash_files,
    loading,
    read_exported_facts,
)
from segfocal.errors import ModelError

__all__ = ["ONNXPredictor"]

_FATAL = 4


class ONNXPredictor:
    """A model exported to ONNX, on the CPU in float32.

    Args:
        path: The ``.onnx`` file.
        conversion: Given for a model that stands for the Keras model it was made from.

    Attributes:
        tile_by_tile: A batch need not be padded.
        any_thread: It may be called from another thread than the one that made it.
        batch_matters: The batch makes no difference to the result.

    Raises:
        ModelError: It is missing, damaged, holds no card, or ONNX Runtime is not installed.
    """

    tile_by_tile = True
    any_thread = True
    batch_matters = False

    def __init__(self, path: str | Path, conversion: Conversion | None = None) -> None:
        self._path = Path(path)
        facts = read_exported_facts(self._path)
        self._model_hash, self._conversion = facts.model_hash, conversion
        self.card: Card = facts.card
        self.ndim: int = facts.card.ndim
        self.output_stride: int = facts.output_stride or 1
        self.global_context: str | None = facts.global_context
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError(
                f"ONNX Runtime is not installed ({error}); install the extra: pip install "
                "'segfocal[onnx]'"
            ) from error
        onnxruntime.disable_telemetry_events()
        made = "" if conversion is None else f", converted by {conversion.converter}"
        self.engine = f"onnxruntime {onnxruntime.__version__} float32{made}"
        with loading(self._path, "ONNX Runtime"):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = _FATAL  # errors come as exceptions
            self._session = onnxruntime.InferenceSession(
                self._path, options, providers=["CPUExecutionProvider"]
            )
            inputs = {port.name for port in self._session.get_inputs()}
            outputs = {port.name for port in self._session.get_outputs()}
        check_signature(self._path, inputs, outputs)

    @cached_property
    def hash(self) -> str:
        """sha256 of the file; of a conversion the Keras model's hash."""
        if self._conversion is not None and self._model_hash is not None:
            return self._model_hash
        return hash_files(self._path)

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        return np.concatenate(
            [
                self._session.run([PROBABILITIES], {"image": image, "valid": usable})[0]
                for image, usable in zip(
                    np.split(values, len(values)), np.split(valid, len(valid)), strict=True
                )
            ]
        )
