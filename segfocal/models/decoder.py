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
from segfocal.presets import level_widths

__all__ = ["Upsampling", "decode"]

Upsampling = Literal["nearest", "linear", "transposed"]


def decode(
    image: KerasTensor,
    features: Mapping[str, KerasTensor],
    *,
    upsampling: Upsampling = "nearest",
    dropout: float = 0.0,
    dtype: Any = None,
) -> KerasTensor:
    """Connect the decoder's layers and return the feature at full resolution.

    Args:
        image: ``(batch, *space, channels)``, sides multiples of the encoder's stride: what the
            levels finer than its features are made from.
        features: Four of the encoder, ``P2`` .. ``P5`` or ``P1`` .. ``P4``.
        upsampling: ``"nearest"``, ``"linear"``, or ``"transposed"`` convolution, trained.
        dropout: Rate of dropping whole channels of the result while training.
        dtype: Keras dtype policy.

    Returns:
        ``(batch, *space, channels of p0)``.
    """
    ndim = len(image.shape) - 2
    numbers = sorted(int(name[1:]) for name in features)
    widths = level_widths(int(features[f"P{numbers[0]}"].shape[-1]), numbers[0])

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
    for number in range(1, numbers[0]):
        level = f"p{number}"
        skips[level] = conv_block(skips[f"p{number - 1}"], widths[level], f"stem_{level}", stride=2)
    for number in numbers[:-1]:
        skips[f"p{number}"] = norm(features[f"P{number}"], f"skip_p{number}")
    x = norm(features[f"P{numbers[-1]}"], f"skip_p{numbers[-1]}")
    for level, width in widths.items():
        deep = keras.layers.Dense(width, dtype=dtype, name=f"up_{level}")(x)
        skip = keras.layers.Dense(width, dtype=dtype, name=f"skip_{level}")(skips[level])
        x = conv_block(upsample(deep, level) + skip, width, f"decoder_{level}")
    if dropout:
        drop = keras.layers.SpatialDropout3D if ndim == 3 else keras.layers.SpatialDropout2D
        x = drop(dropout, data_format="channels_last", dtype=dtype, name="dropout")(x)
    return x
