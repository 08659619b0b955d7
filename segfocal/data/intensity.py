"""Changes of intensity for standardised channels, in numpy, for any number of channels.

As in nnU-Net (batchgeneratorsv2): noise, blur, gain, contrast, low resolution, gamma. Statistics
of a patch are of its valid pixels; what is not valid is 0 before, and of no matter after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segfocal.data.augmentation import Augmentation, Change
from segfocal.data.volume_geometry import in_plane_axes

__all__ = ["change_intensity"]

FLOOR = 1e-6

Image = NDArray[np.float32]
Valid = NDArray[np.bool_]


def change_intensity(
    values: Image,
    valid: Valid,
    settings: Augmentation,
    spacing: Sequence[float],
    rng: np.random.Generator,
) -> Image:
    """Return a patch with other intensities.

    Args:
        values: Standardised ``(*space, channels)``, 0 where not valid.
        valid: ``(*space,)``.
        settings: What is done how often.
        spacing: Size of a pixel along each axis: across planes that lie far apart, nothing is
            blurred.
        rng: Source of chance.
    """
    # In memory channel by channel, as each is changed on its own.
    values = np.moveaxis(np.array(np.moveaxis(values, -1, 0), order="C"), 0, -1)
    # What lies inside is all there is, most often: then nothing is picked out of it.
    inside = ... if valid.all() else valid
    chance = rng.random(8)
    if chance[0] < settings.noise.probability:
        spread = np.sqrt(rng.uniform(*settings.noise.range))
        values += np.float32(spread) * rng.standard_normal(values.shape, np.float32)

    planar = in_plane_axes(spacing)
    steps: tuple[tuple[Change, float, Callable[[Image, float], Image]], ...] = (
        (settings.blur, 0.5, lambda x, sigma: _blurred(x, sigma, planar)),
        (settings.gain, 1, lambda x, factor: x * np.float32(factor)),
        (settings.shift, 1, lambda x, addend: x + np.float32(addend)),
        (settings.contrast, 1, lambda x, factor: _contrast(x, inside, factor)),
        (settings.low_resolution, 0.5, lambda x, share: _low_resolution(x, share, planar)),
        (settings.gamma_inverted, 1, lambda x, exponent: -_gamma(-x, inside, exponent)),
        (settings.gamma, 1, lambda x, exponent: _gamma(x, inside, exponent)),
    )
    for (change, share, apply), drawn in zip(steps, chance[1:], strict=True):
        if drawn >= change.probability:
            continue
        for channel in range(values.shape[-1]):
            number = rng.uniform(*change.range)
            if rng.random() < share:
                values[..., channel] = apply(values[..., channel], float(number))
    return values


def _blurred(image: Image, sigma: float, planar: Sequence[int]) -> Image:
    sigmas = [sigma if axis in planar else 0.0 for axis in range(image.ndim)]
    result: Image = ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=3)
    return result


def _contrast(image: Image, inside: Valid | EllipsisType, factor: float) -> Image:
    kept = image[inside]
    if not kept.size:
        return image
    mean = kept.mean()
    return np.clip((image - mean) * np.float32(factor) + mean, kept.min(), kept.max())


def _low_resolution(image: Image, share: float, planar: Sequence[int]) -> Image:
    """Take the nearest of fewer pixels, and interpolate between those linearly."""
    for axis in planar:
        length = image.shape[axis]
        few = max(1, round(length * share))
        if few == length:
            continue
        # Centres of the few pixels in those of the many, and the other way around.
        kept = ((2 * np.arange(few) + 1) * length // (2 * few)).astype(np.intp)
        image = np.take(image, kept, axis)
        place = np.clip((np.arange(length) + 0.5) * few / length - 0.5, 0, few - 1)
        below = place.astype(np.intp)
        weight = (place - below).astype(np.float32).reshape(-1, *(1,) * (image.ndim - axis - 1))
        above = np.minimum(below + 1, few - 1)
        image = np.take(image, below, axis) * (1 - weight) + np.take(image, above, axis) * weight
    return image


def _gamma(image: Image, inside: Valid | EllipsisType, exponent: float) -> Image:
    kept = image[inside]
    if not kept.size:
        return image
    low, high = kept.min(), kept.max()
    if high - low < FLOOR:
        return image
    mean, std = kept.mean(), kept.std()
    # Noise and blur gave pixels that are not valid other values: they may lie below.
    bent = np.clip((image - low) / (high - low), 0, 1) ** np.float32(exponent)
    after = bent[inside]
    return (bent - after.mean()) * (std / max(after.std(), FLOOR)) + mean
