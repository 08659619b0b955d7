"""Layers that let a network with downsampling take images of any size."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

__all__ = ["CropLike", "Double", "PadToMultiple"]


@keras.saving.register_keras_serializable(package="segfocal")
class PadToMultiple(keras.layers.Layer):
    """Appends zeros at the end of each spatial axis up to a multiple of ``multiple``.

    The convention of the published segmentation networks and of transformers: bottom, right
    (and last planes), never top or left, so that pixel 0 stays where it is.

    Args:
        multiple: One number per spatial axis.
    """

    def __init__(self, multiple: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = tuple(int(number) for number in multiple)

    def call(self, inputs: KerasTensor) -> KerasTensor:
        sides = ops.shape(inputs)[1:-1]
        missing = [(-side) % number for side, number in zip(sides, self.multiple, strict=True)]
        if all(isinstance(amount, int) and amount == 0 for amount in missing):
            return inputs
        return ops.pad(inputs, [(0, 0), *((0, amount) for amount in missing), (0, 0)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sides = (
            None if side is None else side + (-side) % number
            for side, number in zip(input_shape[1:-1], self.multiple, strict=True)
        )
        return (input_shape[0], *sides, input_shape[-1])

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        return KerasTensor(self.compute_output_shape(inputs.shape), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="segfocal")
class CropLike(keras.layers.Layer):
    """Cuts the end of each spatial axis of ``inputs`` to the size of ``reference``."""

    def call(self, inputs: KerasTensor, reference: KerasTensor) -> KerasTensor:
        sides = ops.shape(reference)[1:-1]
        return inputs[(slice(None), *(slice(0, side) for side in sides))]

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], reference_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *reference_shape[1:-1], inputs_shape[-1])

    def compute_output_spec(self, inputs: KerasTensor, reference: KerasTensor) -> KerasTensor:
        shape = self.compute_output_shape(inputs.shape, reference.shape)
        return KerasTensor(shape, dtype=inputs.dtype)


@keras.saving.register_keras_serializable(package="segfocal")
class Double(keras.layers.Layer):
    """Doubles every spatial axis.

    The same as Keras's ``UpSampling2D(2)`` and ``UpSampling3D(2)`` in one layer, and with
    ``"linear"`` what ``UpSampling2D(2, interpolation="bilinear")`` does, in three dimensions
    too (half-pixel centres, the edge repeated). Stacking and reshaping takes no arithmetic on
    integer tensors, of which TensorFlow on CPU complains on standard error where
    ``keras.ops.repeat`` needs it.

    Args:
        interpolation: ``"nearest"`` or ``"linear"``.
    """

    def __init__(self, interpolation: str = "nearest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if interpolation not in ("nearest", "linear"):
            raise ValueError(f"interpolation={interpolation!r}; expected 'nearest' or 'linear'")
        self.interpolation = interpolation

    def call(self, inputs: KerasTensor) -> KerasTensor:
        x = inputs
        for axis in range(1, len(inputs.shape) - 1):
            pair = [x, x] if self.interpolation == "nearest" else _between(x, axis)
            shape = list(ops.shape(x))
            shape[0] = -1
            shape[axis] = 2 * shape[axis]
            x = ops.reshape(ops.stack(pair, axis=axis + 1), shape)
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sides = (None if side is None else 2 * side for side in input_shape[1:-1])
        return (input_shape[0], *sides, input_shape[-1])

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        return KerasTensor(self.compute_output_shape(inputs.shape), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "interpolation": self.interpolation}


def _between(x: KerasTensor, axis: int) -> list[KerasTensor]:
    """Return the two pixels that take the place of each: a quarter towards its neighbours."""

    def part(*bounds: int | None) -> KerasTensor:
        return x[(*(slice(None),) * axis, slice(*bounds))]

    before = ops.concatenate([part(0, 1), part(0, -1)], axis=axis)
    after = ops.concatenate([part(1, None), part(-1, None)], axis=axis)
    return [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
