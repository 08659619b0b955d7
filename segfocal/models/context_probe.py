"""A network that measures what the last focal level of each block averages."""

from __future__ import annotations

import keras
from keras import KerasTensor, ops

from segfocal.models.encoding import block_channels, encode
from segfocal.models.focal_unet import FocalUNet
from segfocal.models.focalnet import FocalNet

__all__ = ["context_blocks", "context_probe"]


def context_blocks(model: FocalUNet) -> list[int]:
    """Return the number of channels of each block whose mean a frozen model takes, in order."""
    return block_channels(_encoder(model).get_config())


def context_probe(model: FocalUNet, known: int | None = None) -> keras.Model:
    """Return a model that sums up the contexts of a frozen model's blocks.

    It has a copy of the encoder's weights. Inputs: ``image`` and ``valid`` as the model's, and
    ``counted`` ``(batch, *space)`` boolean: the pixels whose positions enter the sums (a
    position counts when it holds at least one). Outputs: ``sums`` ``(batch, channels)`` and
    ``counts`` ``(batch, 1)``, float32.

    Args:
        model: A model with ``global_context="frozen"``.
        known: Left out: all blocks, side by side (``counts`` ``(batch, blocks)``), each with the
            means of the tile standing in for those of the scan. A number: the block after the
            first ``known`` ones only, whose means are a further input ``context``
            ``(batch, sum of their channels)`` (absent for 0).

    Raises:
        ValueError: The model's contexts are not frozen.
    """
    network = _encoder(model)
    config = network.get_config()
    shape = model.input["image"].shape[1:]
    inputs = {
        "image": keras.Input(tuple(shape), name="image"),
        "valid": keras.Input(tuple(shape[:-1]), dtype="bool", name="valid"),
        "counted": keras.Input(tuple(shape[:-1]), dtype="bool", name="counted"),
    }
    if known:
        size = sum(block_channels(config)[:known])
        inputs["context"] = keras.Input((size,), name="context")
    pad = model.get_layer("pad")

    def padded(mask: KerasTensor) -> KerasTensor:
        return pad(ops.cast(ops.expand_dims(mask, -1), "float32")) > 0.5

    usable = padded(inputs["valid"])
    image = model.get_layer("standardize")(pad(inputs["image"]), usable)
    encoded = encode(
        config,
        image,
        ops.squeeze(usable, -1),
        context=inputs.get("context"),
        counted=ops.squeeze(padded(inputs["counted"]), -1),
        blocks=None if known is None else known + 1,
    )
    if known is None:
        sums = ops.concatenate(encoded.sums, axis=-1)
        counts = ops.concatenate(encoded.counts, axis=-1)
    else:
        sums, counts = encoded.sums[-1], encoded.counts[-1]
    probe = keras.Model(inputs, {"sums": sums, "counts": counts}, name="context_probe")
    # Copied: a functional model in which one layer is called in two ways cannot be built.
    for layer in probe.layers:
        if layer.name.startswith("stage"):
            layer.set_weights(network.get_layer(layer.name).get_weights())
    return probe


def _encoder(model: FocalUNet) -> FocalNet:
    network = model.encoder
    if not isinstance(network, FocalNet) or network.global_context != "frozen":
        raise ValueError(
            f"the model's global context is {model.global_context!r}; expected 'frozen': pass "
            'model.with_global_context("frozen")'
        )
    return network
