"""The networks that ours is compared with: MONAI's, and a plain U-Net in Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["MONAI", "U_NET", "keras_unet", "monai_network"]

MONAI = {
    "SwinUNETR": ("monai", "torch", "einops"),
    "DynUNet": ("monai", "torch"),
}
"""MONAI's networks, and the packages that each needs."""

U_NET = "Keras U-Net"

WIDTH = 64
"""Of the U-Net at full resolution, in 2-D as in Ronneberger et al. 2015; in 3-D half of it."""


def monai_network(name: str, tile: Sequence[int], channels: int, classes: int) -> Any:
    """Return one of MONAI's networks for a tile.

    SwinUNETR has the feature size of MONAI's own examples, 48. DynUNet halves the tile as
    nnU-Net does, down to 4 positions, in at most five steps; its widths are MONAI's.
    """
    from monai.networks import nets

    ndim = len(tile)
    if name == "SwinUNETR":
        return nets.SwinUNETR(
            in_channels=channels, out_channels=classes, feature_size=48, spatial_dims=ndim
        )
    steps = max(1, min(5, int(math.log2(min(tile) / 4))))
    return nets.DynUNet(
        spatial_dims=ndim, in_channels=channels, out_channels=classes,
        kernel_size=[3] * (steps + 1), strides=[1] + [2] * steps,
        upsample_kernel_size=[2] * steps,
    )  # fmt: skip


def keras_unet(tile: Sequence[int], channels: int, classes: int) -> Any:
    """Return the U-Net of Ronneberger et al. 2015 with padded convolutions, giving logits."""
    import keras

    ndim = len(tile)
    layers = keras.layers
    convolution = layers.Conv2D if ndim == 2 else layers.Conv3D
    pool = layers.MaxPooling2D if ndim == 2 else layers.MaxPooling3D
    transposed = layers.Conv2DTranspose if ndim == 2 else layers.Conv3DTranspose
    width = WIDTH if ndim == 2 else WIDTH // 2
    steps = 4

    def twice(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = convolution(filters, 3, padding="same", activation="relu")(x)
        return x

    image = keras.Input((*tile, channels))
    x, skips = image, []
    for level in range(steps):
        x = twice(x, width * 2**level)
        skips.append(x)
        x = pool(2)(x)
    x = twice(x, width * 2**steps)
    for level in reversed(range(steps)):
        x = transposed(width * 2**level, 2, strides=2)(x)
        x = twice(layers.Concatenate()([skips[level], x]), width * 2**level)
    return keras.Model(image, convolution(classes, 1)(x), name="unet")
