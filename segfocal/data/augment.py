"""Augmentation of training patches, behind one function.

Geometry of images goes through albumentations 2.0.8, whose limits are dealt with here: it
asks the network for updates on import unless told not to, clips float images to 0..1 in its
intensity transforms (which are therefore not used), invents pixels and class 0 at borders
unless they are mirrored, and spreads NaN. Volumes are flipped with numpy: albumentations has
no 3-D rotation, and its cube symmetries swap axes of different spacing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["augment_patch"]

MAX_GAIN = 0.1
MAX_SHIFT = 0.1

Arrays = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]


def augment_patch(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    labels: NDArray[np.int32],
    *,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    mirror_axes: Sequence[int],
    rng: np.random.Generator,
) -> Arrays:
    """Return a randomly changed copy of one training sample.

    Geometry: flips along ``mirror_axes``; square images are also turned by quarters and
    sometimes rotated and zoomed. Intensity: per channel a gain of up to 10 % around the mean
    and a shift of up to a tenth of the standard deviation.

    Args:
        values: ``(*space, channels)``, scan units.
        valid: ``(*space,)``.
        labels: Class indices ``(*space,)``.
        mean: Mean per channel, which also fills invalid pixels.
        std: Standard deviation per channel.
        mirror_axes: Axes that may be flipped.
        rng: Source of chance; the same state gives the same result.
    """
    values = np.where(valid[..., None], values, mean)
    if labels.ndim == 2 and set(mirror_axes) == {0, 1} and labels.shape[0] == labels.shape[1]:
        seed = int(rng.integers(2**31))
        values, valid, labels = _square_geometry(values, valid, labels, seed)
    else:
        for axis in mirror_axes:
            if rng.random() < 0.5:
                values = np.flip(values, axis)
                valid, labels = np.flip(valid, axis), np.flip(labels, axis)
    per_channel = (values.shape[-1],)
    gain = rng.uniform(1 - MAX_GAIN, 1 + MAX_GAIN, per_channel).astype(np.float32)
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, per_channel).astype(np.float32)
    values = (values - mean) * gain + mean + shift * std
    return np.ascontiguousarray(values, np.float32), valid.copy(), labels.copy()


def _square_geometry(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    labels: NDArray[np.int32],
    seed: int,
) -> Arrays:
    transform = _square_transform()
    transform.set_random_seed(seed)
    changed = transform(image=values, masks=[valid.astype(np.uint8), labels])
    kept_valid, changed_labels = changed["masks"]
    return changed["image"], kept_valid.astype(np.bool_), changed_labels.astype(np.int32)


@lru_cache(maxsize=1)
def _square_transform() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations.Compose(
        [
            albumentations.D4(p=1.0),
            albumentations.Affine(
                scale=(0.8, 1.25),
                rotate=(-45, 45),
                border_mode=4,  # cv2.BORDER_REFLECT_101: no invented pixels
                p=0.3,
            ),
        ]
    )
