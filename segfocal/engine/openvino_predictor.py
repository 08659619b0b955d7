"""An exported model run by OpenVINO, without TensorFlow or Keras.

Every tile is a call of its own, whatever the batch, so that a result cannot depend on the
batch. Two calls run side by side, each on half of the cores: that is as fast as, and for light
networks up to twice as fast as, one call on all of them. On many cores more may be faster still:
:func:`segfocal.measure_speed` tells, and the environment variable ``SEGFOCAL_LANES`` sets it.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal

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
from segfocal.engine.openvino_graph import with_planar_softmax
from segfocal.errors import ModelError

__all__ = [
    "OpenVINOPredictor",
    "Precision",
    "lanes_asked",
    "load_openvino",
    "require_precision",
    "usable_cores",
]

Precision = Literal["float32", "bfloat16"]

# Left to itself, OpenVINO would choose bfloat16 on processors that have it: 7e-3 off.
_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}

LANES, MOST_LANES = 2, 256
"""Calls side by side, where nothing else is asked for and there are as many cores; and at most."""


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


def require_precision(precision: Precision) -> None:
    """Raise ``ModelError`` unless the processor computes in a precision, as OpenVINO sees it."""
    if precision == "float32":
        return
    core = load_openvino().Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError(
            "this processor does not compute in bfloat16; expected one that does, or the "
            "precision float32"
        )


class OpenVINOPredictor:
    """A model exported to OpenVINO or ONNX, on the CPU.

    Args:
        path: The ``.xml``, with its ``.bin`` beside it, or the ``.onnx``.
        precision: What it computes in; ``"bfloat16"`` is some 1e-2 off and faster on processors
            that have it. A quantized model keeps its int8 layers.
        conversion: Given for a model that stands for the Keras model it was made from.

    Attributes:
        tile_by_tile: A batch need not be padded.
        any_thread: It may be called from another thread than the one that made it.
        batch_matters: The batch makes no difference to the result.
        precision: What it computes in: ``"float32"``, ``"bfloat16"``, or ``"int8"`` where its
            layers are quantized.
        work: Multiply-accumulate operations per pixel by part, where the file says them.
        lanes: Calls that run side by side, each on its share of the cores, as of the next
            :meth:`prepare`; more take more memory. The result is the same.

    Raises:
        ModelError: It is missing, damaged, holds no card, OpenVINO is not installed, the
            processor lacks the precision, or ``SEGFOCAL_LANES`` is no number.
    """

    tile_by_tile = True
    any_thread = True
    batch_matters = False

    def __init__(
        self,
        path: str | Path,
        precision: Precision = "float32",
        conversion: Conversion | None = None,
    ) -> None:
        path = Path(path)
        facts = read_exported_facts(path)
        self.card: Card = facts.card
        self.ndim: int = facts.card.ndim
        self.output_stride: int = facts.output_stride or 1
        self.global_context: str | None = facts.global_context
        self.work = facts.work
        self._model_hash, self._conversion = facts.model_hash, conversion
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
        require_precision(precision)
        self.lanes = lanes_asked()
        self._hint = _HINTS[precision]
        self.precision = facts.precision if precision == "float32" else precision
        self._tile: tuple[int, ...] | None = None
        self._requests: list[Any] = []
        self._turn = Lock()

    @cached_property
    def hash(self) -> str:
        """sha256 of the files; of a conversion the Keras model's hash."""
        if self._conversion is not None and self._model_hash is not None:
            return self._model_hash
        return hash_files(*self._files)

    @property
    def engine(self) -> str:
        """``"openvino 2026.4.1 float32"``; of a quantized model with ``int8``."""
        name = f"openvino {self._openvino.get_version().split('-')[0]} {self.precision}"
        made = "" if self._conversion is None else f", converted by {self._conversion.converter}"
        return name + made

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        # Sweeps that share a model run in threads of their own, and the requests are the model's.
        with self._turn:
            return self._run(values, valid)

    def _run(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        if values.shape[1:] != self._tile:
            self.prepare(values.shape[1:])
        results: NDArray[np.float32] | None = None
        for start in range(0, len(values), len(self._requests)):
            running = list(enumerate(self._requests[: len(values) - start], start))
            for place, request in running:
                one = slice(place, place + 1)
                request.start_async({"image": values[one], "valid": valid[one]}, share_inputs=True)
            for place, request in running:
                request.wait()
                found = request.get_tensor(PROBABILITIES).data
                if results is None:
                    results = np.empty((len(values), *found.shape[1:]), np.float32)
                results[place] = found[0]
        assert results is not None
        return results

    @property
    def network(self) -> Any:
        """The ``openvino.Model``, of free batch and size; not to be changed."""
        return self._model

    def prepare(self, tile: tuple[int, ...]) -> None:
        """Compile the network for tiles ``(*sides, channels)``; the first call does it by itself.

        A network of fixed shape is faster, and a sweep has one shape.
        """
        path = self._files[0]
        with loading(path, "OpenVINO"):
            model = with_planar_softmax(self._model.clone())
            model.reshape({"image": [1, *tile], "valid": [1, *tile[:-1]]})
            options = {"INFERENCE_PRECISION_HINT": self._hint, "NUM_STREAMS": self.lanes}
            compiled = self._core.compile_model(model, "CPU", options)
            self._requests = [compiled.create_infer_request() for _ in range(self.lanes)]
        self._tile = tile


def usable_cores() -> int:
    """Return how many cores this process may run on, which in a container are fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lanes_asked() -> int:
    """Return how many calls are to run side by side: ``SEGFOCAL_LANES``, else two.

    Raises:
        ModelError: It is no number, or none that makes sense.
    """
    asked = os.environ.get("SEGFOCAL_LANES")
    if not asked:
        return min(LANES, usable_cores())
    if not asked.isdecimal() or not 1 <= int(asked) <= MOST_LANES:
        raise ModelError(
            f"SEGFOCAL_LANES is {asked!r}; expected a number of calls from 1 to {MOST_LANES}"
        )
    return int(asked)


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
