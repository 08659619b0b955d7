"""Writing OpenVINO's files with the facts of a model inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segfocal.card_files import ModelFacts
from segfocal.engine.exported_model import hash_files
from segfocal.engine.openvino_predictor import load_openvino
from segfocal.io.pending import PendingOutput

__all__ = ["write_ir"]


def write_ir(network: Any, facts: ModelFacts, pending: PendingOutput) -> None:
    """Write ``.xml`` and ``.bin`` of an OpenVINO model to the place of a pending output.

    Args:
        network: The ``openvino.Model``.
        facts: Its facts; ``weights_hash`` is added.
        pending: The entered pending output of the ``.xml``.
    """
    openvino = load_openvino()
    weights = pending.main.with_suffix(".bin")
    # Twice: the hash of the weights, known after the first time, stands in the other file.
    openvino.serialize(network, pending.scratch("without_facts.xml"), weights)
    for key, value in replace(facts, weights_hash=hash_files(weights)).texts().items():
        network.set_rt_info(value, ["segfocal", key])
    openvino.serialize(network, pending.main, weights)
