"""A stem for other channels than the three it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from segfocal.errors import ModelError
from segfocal.weights.encoder_weights import EncoderWeights

__all__ = ["adapt_channels"]

_STEM = "stage1_embed.projection.kernel"

_COLORS = ("red", "green", "blue")
"""Order of the channels that published networks take."""


def adapt_channels(
    weights: EncoderWeights, in_channels: int, names: Sequence[str] | None = None
) -> EncoderWeights:
    """Return weights whose stem takes other channels.

    With K_c the stem's kernel for source channel c of M, S their sum and N new channels, each
    new channel gets ``A = M/N * K``, where K is the kernel of its colour when its name is
    ``red``, ``green`` or ``blue`` and the source has those three, and the mean S/M otherwise.
    Then ``(S - sum of A) / N`` is added to each, which is 0 when all three colours or none are
    there. So the new kernels always add up to S: an image with the same value in all channels
    gives the response it gave before, whatever the number of channels. Red, green and blue
    alone, in any order, give the response of the source to any image.

    Args:
        weights: Weights of an encoder or classifier.
        in_channels: Number of new channels.
        names: Their names; left out, channels are taken to be none of the three colours
            unless their number is the source's.

    Raises:
        ModelError: Another number of names than channels, or an empty one.
    """
    if names is not None and len(names) != in_channels:
        raise ModelError(f"{len(names)} channel names for {in_channels} channels")
    if names is not None and not all(str(name).strip() for name in names):
        raise ModelError(f"channel names {list(names)}: one is empty; expected a name for each")
    if in_channels < 1:
        raise ModelError(f"{in_channels} channels; expected at least 1")
    kernel = weights.arrays[_STEM].astype(np.float64)
    known = kernel.shape[-2]
    colors = [str(name).strip().lower() for name in names or ()]
    named = known == len(_COLORS) and any(color in _COLORS for color in colors)
    if in_channels == known and not named:
        return weights
    total = kernel.sum(axis=-2)
    parts = [
        kernel[..., _COLORS.index(color), :] if named and color in _COLORS else total / known
        for color in colors or [""] * in_channels
    ]
    adapted = np.stack(parts, axis=-2) * (known / in_channels)
    adapted += (total - adapted.sum(axis=-2))[..., None, :] / in_channels
    return dataclasses.replace(
        weights,
        architecture=dataclasses.replace(weights.architecture, in_channels=in_channels),
        arrays={**weights.arrays, _STEM: adapted.astype(np.float32)},
    )
