"""An exported model run by OpenVINO, without TensorFlow or Keras."""

from __future__ import annotations

import importlib
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

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

__all__ = ["OpenVINOPredictor", "load_openvino"]

_OPTIONS = {
    # OpenVINO would choose bfloat16 on processors that have it: 7e-3 off.
    "INFERENCE_PRECISION_HINT": "f32",
    # One batch at a time on all cores.
    "PERFORMANCE_HINT": "LATENCY",
}


def load_openvino() -> Any:
    """Import OpenVINO with its telemetry switched off.

    Raises:
        ModelError: It is not installed.
    """
    # Importing openvino reports that to its vendor, unless this package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ModelError(
            f"OpenVINO is not installed ({error}); install the extra: pip install "
            "'segfocal[openvino]'"
        ) from error


class OpenVINOPredictor:
    """A model exported to OpenVINO or ONNX, on the CPU in float32.

    Args:
        path: The ``.xml``, with its ``.bin`` beside it, or the ``.onnx``.

    Raises:
        ModelError: It is missing, damaged, holds no card, or OpenVINO is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        facts = read_exported_facts(path)
        self.card: Card = facts.card
        self.ndim: int = facts.card.ndim
        self.output_stride: int = facts.output_stride or 1
        self.global_context: str | None = facts.global_context
        self._files = [path]
        if facts.format == "openvino":
            self._files.append(_weights_beside(path, facts.weights_hash))
        self._openvino = load_openvino()
        with loading(path, "OpenVINO"):
            self._core = self._openvino.Core()
            self._model = self._core.read_model(path)
            inputs = {name for port in self._model.inputs for name in port.names}
            outputs = {name for port in self._model.outputs for name in port.names}
        check_signature(path, inputs, outputs)
        self._shape: tuple[int, ...] | None = None
        self._compiled: Any = None

    @cached_property
    def hash(self) -> str:
        """sha256 of the files."""
        return hash_files(*self._files)

    @property
    def engine(self) -> str:
        """``"openvino 2026.4.1 float32"``."""
        return f"openvino {self._openvino.get_version().split('-')[0]} float32"

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        if values.shape != self._shape:
            # A network of fixed shape is faster; a sweep has one shape.
            self._compiled = self._compile(values.shape, valid.shape)
            self._shape = values.shape
        result = self._compiled({"image": values, "valid": valid})[PROBABILITIES]
        return np.array(result, np.float32)  # a copy: the next call writes to the same memory

    def _compile(self, image: tuple[int, ...], valid: tuple[int, ...]) -> Any:
        path = self._files[0]
        with loading(path, "OpenVINO"):
            model = self._model.clone()
            model.reshape({"image": list(image), "valid": list(valid)})
            return self._core.compile_model(model, "CPU", _OPTIONS)


def _weights_beside(path: Path, expected: str | None) -> Path:
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(
            f"{path}: {weights.name} with its weights is not beside it; keep the two together or "
            "export the model again"
        )
    if expected is not None and hash_files(weights) != expected:
        raise ModelError(
            f"{path}: {weights.name} beside it is damaged or of another model; copy the two "
            "together or export the model again"
        )
    return weights
