"""Writing a TensorFlow SavedModel, and running it for the comparison."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from segfocal.card_files import SAVED_MODEL_FACTS, read_facts
from segfocal.engine.exported_model import PROBABILITIES
from segfocal.exporting.float32_model import converting
from segfocal.exporting.network import exported_network, facts_of, signature
from segfocal.io.pending import writing
from segfocal.models import FocalUNet

__all__ = ["SavedModel", "write_saved_model"]


class SavedModel:
    """A SavedModel, loaded again."""

    engine = "tensorflow SavedModel float32"

    def __init__(self, folder: Path) -> None:
        self.card = read_facts(folder).card
        self._layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        return np.asarray(self._layer({"image": values, "valid": valid})[PROBABILITIES])


def write_saved_model(model: FocalUNet, folder: Path, model_hash: str) -> SavedModel:
    """Write a SavedModel with its facts and return it, loaded again.

    The endpoints ``serve`` and ``serving_default`` are the same network.
    """
    with writing(folder.name), converting("a SavedModel"):
        exported_network(model).export(
            str(folder),
            format="tf_saved_model",
            verbose=False,
            input_signature=signature(model),
        )
        facts = facts_of(model, "saved_model", model_hash)
        place = folder / SAVED_MODEL_FACTS
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(facts.texts(), indent=2, ensure_ascii=False), "utf-8")
        return SavedModel(folder)
