"""An exported model run by ONNX Runtime, without TensorFlow or Keras."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.exported_model import (
    PROBABILITIES,
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

    Raises:
        ModelError: It is missing, damaged, holds no card, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        facts = read_exported_facts(self._path)
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
        self.engine = f"onnxruntime {onnxruntime.__version__} float32"
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
        """sha256 of the file."""
        return hash_files(self._path)

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        (result,) = self._session.run([PROBABILITIES], {"image": values, "valid": valid})
        return result
