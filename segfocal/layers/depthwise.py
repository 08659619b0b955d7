"""Depthwise convolution in two and three dimensions, the same on every backend."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import KerasTensor, ops

__all__ = ["DepthwiseConv3D", "depthwise_conv"]


def depthwise_initializer(kernel: tuple[int, ...]) -> keras.initializers.Initializer:
    """Return PyTorch's default for a depthwise kernel: uniform in ±1/sqrt(taps).

    Keras's Glorot counts all channels as inputs of each filter and starts depthwise kernels
    smaller by the square root of their number.
    """
    bound = 1.0 / math.sqrt(math.prod(kernel))
    return keras.initializers.RandomUniform(-bound, bound)


def depthwise_conv(
    kernel: tuple[int, ...], dtype: Any = None, name: str | None = None
) -> keras.layers.Layer:
    """Return a depthwise convolution layer of stride 1, zero padding to same size, no bias.

    Args:
        kernel: Odd side lengths, two for images ``(batch, rows, cols, channels)`` or three
            for volumes ``(batch, planes, rows, cols, channels)``.
        dtype: Keras dtype policy.
        name: Name of the layer.
    """
    if len(kernel) == 3:
        return DepthwiseConv3D(kernel, dtype=dtype, name=name)
    return keras.layers.DepthwiseConv2D(
        kernel,
        padding="same",
        use_bias=False,
        data_format="channels_last",
        depthwise_initializer=depthwise_initializer(kernel),
        dtype=dtype,
        name=name,
    )


@keras.saving.register_keras_serializable(package="segfocal")
class DepthwiseConv3D(keras.layers.Layer):
    """Depthwise 3-D convolution, stride 1, zero padding to same size, no bias.

    Computed as a sum over the kernel's planes of 2-D depthwise convolutions, because
    TensorFlow has no grouped 3-D convolution on CPUs outside XLA. The result is the plain
    depthwise convolution; the kernel has shape ``(planes, rows, cols, channels, 1)``.

    Args:
        kernel_size: Three odd side lengths.
    """

    def __init__(self, kernel_size: tuple[int, int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size = tuple(int(side) for side in kernel_size)
        if len(self.kernel_size) != 3 or any(side < 1 or side % 2 == 0 for side in kernel_size):
            raise ValueError(f"kernel_size {kernel_size}; expected three odd numbers >= 1")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, input_shape[-1], 1),
            initializer=depthwise_initializer(self.kernel_size),
        )
        self.built = True

    def call(self, inputs: KerasTensor) -> KerasTensor:
        reach = self.kernel_size[0] // 2
        _, planes, rows, cols, channels = ops.shape(inputs)
        padded = ops.pad(inputs, [(0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)])
        total: KerasTensor | float = 0.0
        for tap in range(self.kernel_size[0]):
            # A stop counted from the end keeps the number of planes free.
            shifted = padded[:, tap : tap - 2 * reach or None]
            flat = ops.reshape(shifted, (-1, rows, cols, channels))
            total = total + ops.depthwise_conv(
                flat, self.kernel[tap], padding="same", data_format="channels_last"
            )
        return ops.reshape(total, (-1, planes, rows, cols, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        return KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size}
