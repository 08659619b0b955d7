"""The steps of an export that need Keras: load, convert, load again, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segfocal.engine.keras_predictor import KerasPredictor
from segfocal.engine.predictors import load_model
from segfocal.exporting.float32_model import as_float32, require_exportable
from segfocal.exporting.network import exported_network
from segfocal.exporting.onnx_file import write_onnx
from segfocal.exporting.openvino_files import write_openvino
from segfocal.exporting.saved_model import write_saved_model
from segfocal.exporting.verification import Difference, Exported, compare
from segfocal.io import PendingOutput

__all__ = ["Written", "write_and_compare"]


@dataclass(frozen=True)
class Written:
    """What ran the written file, and how far its results are from Keras's."""

    engine: str
    difference: Difference


def write_and_compare(
    model: Any,
    pending: PendingOutput,
    format: Literal["saved_model", "onnx", "openvino"],
    say: Callable[[str], None],
) -> Written:
    """Write a model to the place of a pending output, and compare what was written.

    Raises:
        ModelError: The model cannot be exported, or what was written differs.
    """
    if isinstance(model, str | Path):
        model = load_model(model)
    require_exportable(model)
    model_hash = KerasPredictor(model).hash
    model = as_float32(model)
    say("converting")
    written: Exported
    if format == "saved_model":
        written = write_saved_model(model, pending.main, model_hash)
    elif format == "onnx":
        written = write_onnx(model, pending.main, model_hash)
    else:
        written = write_openvino(model, pending, model_hash)
    say("comparing with Keras")
    difference = compare(exported_network(model), model.card, written, pending.destination)
    return Written(written.engine, difference)
