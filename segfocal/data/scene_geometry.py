"""Rotation, zoom and elastic deformation of 2-D patches, by albumentations 2.0.8.

Its limits are dealt with here: it asks the network for updates on import unless told not to,
invents class 0 at borders unless told what to fill with, and keeps a random state, so that a
transform is made for each patch and threads share none. Its intensity transforms clip
floats to 0..1 and are not used: see :mod:`segfocal.data.intensity`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bend_scene"]

SMOOTHNESS = 1 / 8
"""Standard deviation of the Gaussian that smooths an elastic field, in sides of the patch."""


def bend_scene(
    values: NDArray[np.float32],
    code: NDArray[np.int32],
    *,
    angles: Sequence[float],
    zoom: float,
    elastic: float,
    spacing: Sequence[float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a patch rotated, zoomed and deformed; 0 where it comes from beyond the patch.

    Args:
        values: ``(rows, cols, channels)``, interpolated linearly.
        code: ``(rows, cols)``, of which the nearest is taken.
        angles: Degrees; the first counts.
        zoom: Above 1 things become larger.
        elastic: Standard deviation of the displacement in pixels.
        spacing: Not looked at: pixels of scenes are taken as square.
        rng: Source of chance for the elastic field.
    """
    library = _albumentations()
    # A border of zeros, in image and mask; OpenCV knows no int32, float32 holds every code.
    border = {"border_mode": 0, "fill": 0, "fill_mask": 0, "p": 1.0}
    steps = []
    if angles[0] or zoom != 1:
        steps.append(library.Affine(rotate=(angles[0], angles[0]), scale=(zoom, zoom), **border))
    if elastic:
        sigma = max(1.0, SMOOTHNESS * min(code.shape))  # albumentations takes no less
        # Even noise between -1 and 1 has a deviation of 1 / sqrt(3), of which a Gaussian leaves
        # 1 / (2 sigma sqrt(pi)); 1.7 times as much near borders, whose values are repeated.
        alpha = elastic * np.sqrt(3) * 2 * sigma * np.sqrt(np.pi) / 1.7
        steps.append(
            library.ElasticTransform(
                alpha=float(alpha), sigma=sigma, noise_distribution="uniform", **border
            )
        )
    seed = int(rng.integers(2**31))
    if not steps:
        return values, code
    changed = library.Compose(steps, seed=seed)(image=values, mask=code.astype(np.float32))
    return changed["image"].reshape(values.shape), changed["mask"].astype(np.int32)


def _albumentations() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations
