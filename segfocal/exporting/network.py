"""The network that is exported, its signature, and what its file says of it."""

from __future__ import annotations

from typing import Any

import keras

from segfocal.card_files import ModelFacts, ModelFormat
from segfocal.engine.exported_model import PROBABILITIES
from segfocal.engine.keras_predictor import with_probabilities
from segfocal.models import FocalUNet
from segfocal.work import work_per_pixel

__all__ = ["exported_network", "facts_of", "signature"]


def exported_network(model: FocalUNet) -> keras.Model:
    """Return the network that is exported: named inputs to a named output."""
    probabilities = with_probabilities(model)
    return keras.Model(model.input, {PROBABILITIES: probabilities.output}, name="segfocal")


def signature(model: FocalUNet) -> list[dict[str, Any]]:
    """Return the inputs of an exported network: everything free but the channels."""
    space = (None,) * model.card.ndim
    channels = len(model.card.network_channels)
    return [
        {
            "image": keras.InputSpec(shape=(None, *space, channels), dtype="float32", name="image"),
            "valid": keras.InputSpec(shape=(None, *space), dtype="bool", name="valid"),
        }
    ]


def facts_of(model: FocalUNet, format: ModelFormat, model_hash: str) -> ModelFacts:
    """Return what an exported file says of a model."""
    return ModelFacts(
        format,
        model.card,
        model.output_stride,
        PROBABILITIES,
        model_hash,
        global_context=model.global_context,
        work=work_per_pixel(model.get_config()),
    )
