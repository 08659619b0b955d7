"""Patch embedding: the stem and the downsampling steps of a FocalNet."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

from segfocal.layers.focal_modulation import LAYER_NORM_EPSILON
from segfocal.layers.sizes import PadToMultiple

__all__ = ["PatchEmbedding"]


@keras.saving.register_keras_serializable(package="segfocal")
class PatchEmbedding(keras.layers.Layer):
    """Cuts an array into patches and projects each to one vector, then normalises it.

    Sizes that are no multiple of the patch are padded with zeros at the end (as transformers
    does; timm drops the remainder).

    Args:
        channels: Length of the vectors.
        patch: Side lengths of a patch, one per spatial axis.
        overlapping: Convolve with kernels that reach over the patch, as the published large
            networks do (``use_conv_embed``): 7 with 2 zeros of padding around patches of 4,
            3 with 1 around patches of 2. An axis with patch 1 stays as it is.
    """

    def __init__(
        self, channels: int, patch: tuple[int, ...], overlapping: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.patch = tuple(int(side) for side in patch)
        self.overlapping = overlapping
        kernel = tuple(2 * side - 1 if overlapping else side for side in self.patch)
        self.margin = tuple(side // 2 if overlapping else 0 for side in self.patch)
        conv = keras.layers.Conv3D if len(self.patch) == 3 else keras.layers.Conv2D
        self.pad = PadToMultiple(self.patch, dtype=self.dtype_policy, name="pad")
        self.projection = conv(
            channels,
            kernel,
            strides=self.patch,
            padding="valid",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name="norm"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.pad.build(input_shape)
        # Sizes free: padding makes them what the convolution needs.
        free = (None,) * len(self.patch)
        self.projection.build((None, *free, input_shape[-1]))
        self.norm.build(self.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs: KerasTensor) -> KerasTensor:
        x = self.pad(inputs)
        if any(self.margin):
            x = ops.pad(x, [(0, 0), *((width, width) for width in self.margin), (0, 0)])
        return self.norm(self.projection(x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sides = (
            None if side is None else -(-side // length)
            for side, length in zip(input_shape[1:-1], self.patch, strict=True)
        )
        return (input_shape[0], *sides, self.channels)

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        return KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "patch": self.patch,
            "overlapping": self.overlapping,
        }
