"""Writing an OpenVINO model: an ``.xml`` and a ``.bin``."""

from __future__ import annotations

from segfocal.card_files import ModelFacts
from segfocal.engine.exported_model import PROBABILITIES, hash_files
from segfocal.engine.openvino_predictor import OpenVINOPredictor, load_openvino
from segfocal.exporting.float32_model import converting
from segfocal.exporting.saved_model import write_saved_model
from segfocal.io.pending import PendingOutput, writing
from segfocal.models import FocalUNet

__all__ = ["write_openvino"]


def write_openvino(model: FocalUNet, pending: PendingOutput, model_hash: str) -> OpenVINOPredictor:
    """Write ``.xml`` and ``.bin`` and return them, loaded again.

    OpenVINO's runtime reads the SavedModel itself: its converter is not used, whose only
    further work is to report to its vendor.
    """
    weights = pending.main.with_suffix(".bin")
    saved = pending.scratch("saved_model")
    write_saved_model(model, saved, model_hash)
    openvino = load_openvino()
    with writing(pending.destination), converting("OpenVINO"):
        converted = openvino.Core().read_model(saved)
        # Twice: the hash of the weights, known after the first time, stands in the other file.
        openvino.serialize(converted, pending.scratch("without_facts.xml"), weights)
        facts = ModelFacts(
            "openvino",
            model.card,
            model.output_stride,
            PROBABILITIES,
            model_hash,
            hash_files(weights),
            model.global_context,
        )
        for key, value in facts.texts().items():
            converted.set_rt_info(value, ["segfocal", key])
        openvino.serialize(converted, pending.main, weights)
    return OpenVINOPredictor(pending.main)
