"""Writing an OpenVINO model: an ``.xml`` and a ``.bin``."""

from __future__ import annotations

from segfocal.engine.openvino_predictor import OpenVINOPredictor, load_openvino
from segfocal.exporting.float32_model import converting
from segfocal.exporting.ir import write_ir
from segfocal.exporting.network import facts_of
from segfocal.exporting.saved_model import write_saved_model
from segfocal.io.pending import PendingOutput, writing
from segfocal.models import FocalUNet

__all__ = ["write_openvino"]


def write_openvino(model: FocalUNet, pending: PendingOutput, model_hash: str) -> OpenVINOPredictor:
    """Write ``.xml`` and ``.bin`` and return them, loaded again.

    OpenVINO's runtime reads the SavedModel itself: its converter is not used, whose only
    further work is to report to its vendor.
    """
    saved = pending.scratch("saved_model")
    write_saved_model(model, saved, model_hash)
    openvino = load_openvino()
    with writing(pending.destination), converting("OpenVINO"):
        facts = facts_of(model, "openvino", model_hash)
        write_ir(openvino.Core().read_model(saved), facts, pending)
    return OpenVINOPredictor(pending.main)
