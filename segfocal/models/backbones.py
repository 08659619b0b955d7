"""Encoders of a FocalUNet: a FocalNet, or any Keras model that gives the same pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import KerasTensor

from segfocal.models.focalnet import FocalNet

__all__ = ["FEATURES", "connect", "resolve_encoder"]

FEATURES = ("P2", "P3", "P4", "P5")
"""Features 4, 8, 16 and 32 times smaller than the image: what an encoder returns that is no
FocalNet."""

FINE_FEATURES = ("P1", "P2", "P3", "P4")
"""What a FocalNet with patches of 2 returns."""


def resolve_encoder(
    encoder: Mapping[str, Any] | keras.Model | None,
    in_channels: int,
    preset: str,
    ndim: int,
    dtype: Any,
) -> keras.Model:
    """Return a FocalNet made with options, or the model that was given.

    Raises:
        ValueError: The model does not return the features for images of so many channels.
    """
    if not isinstance(encoder, keras.Model):
        return FocalNet(
            in_channels=in_channels,
            preset=preset,
            ndim=ndim,
            name="encoder",
            dtype=dtype,
            **(encoder or {}),
        )
    side = 64
    names = FINE_FEATURES if getattr(encoder, "patch_size", 4) == 2 else FEATURES
    image = keras.Input((side,) * ndim + (in_channels,))
    try:
        found = connect(
            encoder, {"image": image, "valid": keras.Input((side,) * ndim, dtype="bool")}
        )
        shapes = {name: tuple(found[name].shape[1:-1]) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"encoder {encoder.name!r} does not suit: {error}; expected a model that takes "
            f"(batch, {'*, ' * ndim}{in_channels}) and returns a dict of features P2 to P5"
        ) from error
    for name in names:
        factor = 2 ** int(name[1:])
        if shapes[name] != (side // factor,) * ndim:
            raise ValueError(
                f"encoder {encoder.name!r} makes {name} of shape {shapes[name]} from an image of "
                f"{(side,) * ndim}; expected {(side // factor,) * ndim}"
            )
    return encoder


def connect(encoder: keras.Model, inputs: Mapping[str, KerasTensor]) -> dict[str, KerasTensor]:
    """Call an encoder with those of the inputs that it takes."""
    wanted = encoder.input
    if isinstance(wanted, Mapping):
        return encoder({name: inputs[name] for name in wanted})
    return encoder(inputs["image"])
