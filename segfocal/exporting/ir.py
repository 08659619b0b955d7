"""Writing OpenVINO's files with the facts of a model inside."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from segfocal.card_files import ModelFacts
from segfocal.engine.exported_model import hash_files
from segfocal.engine.openvino_predictor import load_openvino
from segfocal.errors import OutputExistsError
from segfocal.io.pending import PendingOutput, writing

__all__ = ["refuse_to_replace_weights", "write_ir"]


def refuse_to_replace_weights(out: Path, *, overwrite: bool) -> None:
    """Raise where the ``.bin`` beside a new ``.xml`` would replace a file of something else.

    Args:
        out: The ``.xml``. Where it exists too, it is what is refused or replaced.
        overwrite: Replace it all the same.

    Raises:
        OutputExistsError: There is such a file.
    """
    weights = out.with_suffix(".bin")
    if os.path.lexists(weights) and not os.path.lexists(out) and not overwrite:
        raise OutputExistsError(
            f"{weights}: exists already, without {out.name}; pass overwrite=True or --overwrite to "
            "replace it"
        )


def write_ir(network: Any, facts: ModelFacts, pending: PendingOutput) -> None:
    """Write ``.xml`` and ``.bin`` of an OpenVINO model to the place of a pending output.

    Args:
        network: The ``openvino.Model``.
        facts: Its facts; ``weights_hash`` is added.
        pending: The entered pending output of the ``.xml``.

    Raises:
        OutputError: They cannot be written.
    """
    openvino = load_openvino()
    weights = pending.main.with_suffix(".bin")
    # A full disk is a RuntimeError of OpenVINO: "iostream error".
    with writing(pending.destination, RuntimeError):
        # Twice: the hash of the weights, known after the first time, stands in the other file.
        openvino.serialize(network, pending.scratch("without_facts.xml"), weights)
        for key, value in replace(facts, weights_hash=hash_files(weights)).texts().items():
            network.set_rt_info(value, ["segfocal", key])
        openvino.serialize(network, pending.main, weights)
