"""The graph of a FocalNet encoder: stages of focal blocks, each behind a patch embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from segfocal.layers import FocalBlock, PadToMultiple, PatchEmbedding

__all__ = ["Encoded", "block_channels", "encode"]

BLOCK_OPTIONS = (
    "focal_levels",
    "focal_window",
    "mlp_ratio",
    "gate_activation",
    "context",
    "global_context",
    "normalize_modulator",
    "use_postln_in_modulation",
    "use_postln",
    "layerscale",
)
"""Entries of a FocalNet's config that every block gets as they are."""


@dataclass
class Encoded:
    """What came out of the encoder.

    Attributes:
        features: ``P2`` .. ``P5`` (``P1`` .. ``P4`` with patches of 2), as far as the encoder was
            followed.
        valid: Which positions of the last feature hold a valid pixel, ``(batch, *space, 1)``.
        sums: Per block, the sum of its last context over counted positions
            ``(batch, channels)``.
        counts: Per block, the number of those positions ``(batch, 1)``.
    """

    features: dict[str, KerasTensor]
    valid: KerasTensor
    sums: list[KerasTensor]
    counts: list[KerasTensor]


def block_channels(config: Mapping[str, Any]) -> list[int]:
    """Return the number of channels of each block, in order."""
    return [
        config["embed_dim"] * 2**stage
        for stage, depth in enumerate(config["depths"])
        for _ in range(depth)
    ]


def encode(
    config: Mapping[str, Any],
    image: KerasTensor,
    valid: KerasTensor,
    *,
    dtype: Any = None,
    context: KerasTensor | None = None,
    counted: KerasTensor | None = None,
    blocks: int | None = None,
) -> Encoded:
    """Make the layers of an encoder and connect them.

    Args:
        config: As :meth:`FocalNet.get_config` returns it.
        image: ``(batch, *space, channels)``, standardised.
        valid: ``(batch, *space)`` boolean.
        dtype: Keras dtype policy of the layers.
        context: Means of a scan for all blocks side by side, ``(batch, sum of channels)``;
            may end after the blocks that are known.
        counted: ``(batch, *space)`` boolean: where to sum up contexts.
        blocks: Follow the encoder up to this many blocks.
    """
    ndim, depths = config["ndim"], config["depths"]
    options = {name: config[name] for name in BLOCK_OPTIONS}
    options["layerscale"] = options["layerscale"] or None
    rates = np.linspace(0.0, config["drop_path"], sum(depths)).tolist()
    masks = [ops.cast(ops.expand_dims(valid, -1), "float32")]
    if counted is not None:
        masks.append(ops.cast(ops.expand_dims(counted, -1), "float32"))
    # What stands at invalid pixels must not reach valid ones through the convolutions.
    x = ops.where(ops.expand_dims(valid, -1), image, 0.0)
    found = Encoded({}, masks[0], [], [])
    done, used, stride = 0, 0, 1
    for stage, depth in enumerate(depths):
        patch = (config["patch_size"] if stage == 0 else 2,) * ndim
        stride *= patch[0]
        channels = config["embed_dim"] * 2**stage
        name = f"stage{stage + 1}"
        # The published downsampling ends a stage; as the start of the next one it is
        # the same computation, and the feature before it has a name.
        x = PatchEmbedding(channels, patch, config["conv_stem"], dtype=dtype, name=f"{name}_embed")(
            x
        )
        masks = [_shrink(mask, patch) for mask in masks]
        for number in range(1, depth + 1):
            block = FocalBlock(
                **options,
                local_window=_local_window(config, stride),
                ndim=ndim,
                drop_path=rates[done],
                dtype=dtype,
                name=f"{name}_block{number}",
            )
            arguments = {"valid": masks[0]}
            if context is not None and used + channels <= context.shape[-1]:
                arguments["scan_mean"] = context[:, used : used + channels]
            if counted is None:
                x = block(x, **arguments)
            else:
                x, total = block(x, counted=masks[1], **arguments)
                found.sums.append(total)
                space = tuple(range(1, ndim + 1))
                found.counts.append(ops.sum(masks[1], axis=space))
            done, used = done + 1, used + channels
            if done == blocks:
                return found
        found.features[f"P{stride.bit_length() - 1}"] = x
    found.valid = masks[0]
    return found


def _local_window(config: Mapping[str, Any], stride: int) -> tuple[int, ...] | None:
    """Return the box of a stage in its own positions."""
    if config["global_context"] != "local":
        return None
    return tuple(-(-side // stride) for side in config["local_context"])


def _shrink(mask: KerasTensor, patch: tuple[int, ...]) -> KerasTensor:
    """Return which patches hold at least one pixel of a mask."""
    pool = keras.layers.MaxPooling3D if len(patch) == 3 else keras.layers.MaxPooling2D
    padded = PadToMultiple(patch, dtype="float32")(mask)
    return pool(patch, data_format="channels_last", dtype="float32")(padded)
