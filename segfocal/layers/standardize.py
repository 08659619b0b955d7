"""Standardisation inside the network, so that exported models take raw pixel values."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, ops

__all__ = ["Standardize"]


@keras.saving.register_keras_serializable(package="segfocal")
class Standardize(keras.layers.Layer):
    """Subtracts a mean and divides by a standard deviation per channel; invalid becomes 0.

    The numbers are weights that no optimizer changes: they are set from a model's card and
    travel with it into every export.

    Args:
        mean: One number per channel, in the scan's units.
        std: One positive number per channel.

    Call arguments:
        inputs: Array ``(batch, *space, channels)``, any values (NaN too) where not valid.
        valid: Boolean array ``(batch, *space, 1)``.
    """

    def __init__(
        self, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), **kwargs: Any
    ) -> None:
        # No cast of inputs to half precision: 16-bit scans have values that it cannot hold.
        super().__init__(autocast=False, **kwargs)
        self.mean_values = tuple(float(number) for number in mean)
        self.std_values = tuple(float(number) for number in std)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        for name, values in (("mean", self.mean_values), ("std", self.std_values)):
            if len(values) != channels:
                raise ValueError(f"{len(values)} values of {name} for {channels} channels")
        self.mean = self.add_weight(
            name="mean",
            shape=(channels,),
            initializer=_fixed(self.mean_values),
            trainable=False,
            dtype="float32",
            autocast=False,
        )
        self.std = self.add_weight(
            name="std",
            shape=(channels,),
            initializer=_fixed(self.std_values),
            trainable=False,
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, inputs: KerasTensor, valid: KerasTensor) -> KerasTensor:
        scaled = (ops.cast(inputs, "float32") - self.mean) / self.std
        return ops.cast(ops.where(valid, scaled, 0.0), self.compute_dtype)

    def compute_output_spec(self, inputs: KerasTensor, valid: KerasTensor) -> KerasTensor:
        return KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean_values, "std": self.std_values}


def _fixed(values: tuple[float, ...]) -> Any:
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype=dtype)
