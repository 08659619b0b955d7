"""The decoder of a U-Net as a graph: light, and a local operator.

Going up, the deeper feature is projected to the width of the level, upsampled and added to
the projected skip; one 3×3 convolution follows. Normalisation is over channels only, so the
decoder adds nothing that depends on the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import KerasTensor

from segfocal.layers import Double, exact_gelu
from segfocal.layers.focal_modulation import LAYER_NORM_EPSILON

__all__ = ["LEVELS", "Upsampling", "decode", "level_widths"]

LEVELS = ("p4", "p3", "p2", "p1", "p0")
"""Levels of the decoder, in the order in which they are computed."""

Upsampling = Literal["nearest", "linear", "transposed"]


def level_widths(embed_dim: int) -> dict[str, int]:
    """Return the channels of each level for an encoder with so many at P2.

    Full resolution gets a quarter of them: three quarters of the decoder's work lie there.
    """
    return {
        "p0": max(8, embed_dim // 4),
        "p1": max(8, embed_dim // 2),
        "p2": embed_dim,
        "p3": embed_dim,
        "p4": 2 * embed_dim,
    }


def decode(
    image: KerasTensor,
    features: Mapping[str, KerasTensor],
    embed_dim: int,
    *,
    upsampling: Upsampling = "nearest",
    dropout: float = 0.0,
    dtype: Any = None,
) -> KerasTensor:
    """Connect the decoder's layers and return the feature at full resolution.

    Args:
        image: ``(batch, *space, channels)``, sides multiples of 32: what the levels P0 and P1
            are made from.
        features: ``P2`` .. ``P5`` of the encoder.
        embed_dim: Channels of P2.
        upsampling: ``"nearest"``, ``"linear"``, or ``"transposed"`` convolution, trained.
        dropout: Rate of dropping whole channels of the result while training.
        dtype: Keras dtype policy.

    Returns:
        ``(batch, *space, channels of p0)``.
    """
    ndim = len(image.shape) - 2
    widths = level_widths(embed_dim)

    def norm(x: KerasTensor, name: str) -> KerasTensor:
        layer = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=f"{name}_norm"
        )
        return layer(x)

    def conv_block(x: KerasTensor, width: int, name: str, stride: int = 1) -> KerasTensor:
        conv = keras.layers.Conv3D if ndim == 3 else keras.layers.Conv2D
        x = conv(
            width,
            3,
            strides=stride,
            padding="same",
            data_format="channels_last",
            dtype=dtype,
            name=name,
        )(x)
        if not name.endswith("p0"):
            # At full resolution normalisation costs more than the convolution.
            x = norm(x, name)
        return exact_gelu(x)

    def upsample(x: KerasTensor, level: str) -> KerasTensor:
        if upsampling != "transposed":
            return Double(upsampling, dtype=dtype, name=f"double_{level}")(x)
        conv = keras.layers.Conv3DTranspose if ndim == 3 else keras.layers.Conv2DTranspose
        return conv(
            x.shape[-1],
            2,
            strides=2,
            data_format="channels_last",
            dtype=dtype,
            name=f"double_{level}",
        )(x)

    skips = {"p0": conv_block(image, widths["p0"], "stem_p0")}
    skips["p1"] = conv_block(skips["p0"], widths["p1"], "stem_p1", stride=2)
    for level in ("p2", "p3", "p4"):
        skips[level] = norm(features[level.upper()], f"skip_{level}")
    x = norm(features["P5"], "skip_p5")
    for level in LEVELS:
        width = widths[level]
        deep = keras.layers.Dense(width, dtype=dtype, name=f"up_{level}")(x)
        skip = keras.layers.Dense(width, dtype=dtype, name=f"skip_{level}")(skips[level])
        x = conv_block(upsample(deep, level) + skip, width, f"decoder_{level}")
    if dropout:
        drop = keras.layers.SpatialDropout3D if ndim == 3 else keras.layers.SpatialDropout2D
        x = drop(dropout, data_format="channels_last", dtype=dtype, name="dropout")(x)
    return x
