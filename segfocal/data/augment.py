"""Augmentation of training patches, behind one function.

A patch is standardised, bent (:mod:`~segfocal.data.scene_geometry`,
:mod:`~segfocal.data.volume_geometry`), turned, changed in intensity
(:mod:`~segfocal.data.intensity`) and brought back to the scan's units.

Validity and class indices travel in one array, their *code*, so that they cannot come apart:
0 is what lies beyond the patch, invalid and ignored. What is not valid has the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX
from segfocal.data.augmentation import Augmentation, Change
from segfocal.data.intensity import change_intensity
from segfocal.data.scene_geometry import bend_scene
from segfocal.data.volume_geometry import bend_volume

__all__ = ["augment_patch"]

SAME_SPACING = 1.01

LEAST = 1e-3
"""Weight of valid pixels below which there is nothing to divide."""

Arrays = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int32]]


def augment_patch(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    labels: NDArray[np.int32],
    *,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    settings: Augmentation,
    mirror_axes: Sequence[int],
    rng: np.random.Generator,
    spacing: Sequence[float] | None = None,
) -> Arrays:
    """Return a randomly changed copy of one training sample.

    Args:
        values: ``(*space, channels)``, scan units; anything where not valid.
        valid: ``(*space,)``.
        labels: Class indices ``(*space,)``.
        mean: Mean per channel, which also fills invalid pixels.
        std: Standard deviation per channel.
        settings: What is done how often.
        mirror_axes: Axes that may be flipped.
        rng: Source of chance; the same state gives the same result.
        spacing: Size of a pixel along each axis; left out, the same along all.

    Returns:
        Values (in memory channel by channel), valid and class indices of the same shapes. What
        lies beyond the patch is not valid, and ``IGNORE_INDEX``.
    """
    spacing = tuple(spacing) if spacing is not None else (1.0,) * labels.ndim
    # In memory channel by channel: numpy's loops then run along rows, not over a few channels.
    scaled = _by_channel(values) - mean
    scaled /= std
    whole = bool(valid.all())
    if not whole:
        scaled[~valid] = 0
    code = (2 * (labels - IGNORE_INDEX) + valid).astype(np.int32)
    turn = _drawn(settings, "rotation", rng, 3), _drawn(settings, "scaling", rng)
    amplitude = _drawn(settings, "elastic", rng)
    if turn[0] or turn[1] or amplitude:
        angles, zoom = turn[0] or (0.0,) * 3, (turn[1] or (1.0,))[0]
        arguments: dict[str, Any] = {
            "angles": angles,
            "zoom": zoom,
            "elastic": (amplitude or (0.0,))[0],
            "spacing": spacing,
            "rng": rng,
        }
        if labels.ndim == 3 and whole:
            # Values come from inside or are 0: nothing is mixed with what is not valid.
            scaled, code = bend_volume(scaled, code, **arguments)
        else:
            # Interpolated together with their weight, values come from valid pixels alone.
            weighted = np.concatenate([scaled, valid[..., None].astype(np.float32)], axis=-1)
            if labels.ndim == 2:  # OpenCV wants the channels of a pixel beside each other
                weighted, code = bend_scene(np.ascontiguousarray(weighted), code, **arguments)
                weighted = _by_channel(weighted)
            else:
                weighted, code = bend_volume(_by_channel(weighted), code, **arguments)
            weight = weighted[..., -1:]
            scaled = np.where(weight > LEAST, weighted[..., :-1] / np.maximum(weight, LEAST), 0)
    scaled, code = _turned(scaled, code, settings.quarter_turns, mirror_axes, spacing, rng)
    valid = (code & 1).astype(np.bool_)
    scaled = change_intensity(scaled, valid, settings, spacing, rng)
    scaled *= std
    scaled += mean
    if not valid.all():
        scaled[~valid] = mean
    labels = (code >> 1) + np.int32(IGNORE_INDEX)
    return scaled, valid, labels


def _by_channel(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the same ``(*space, channels)``, in memory channel by channel.

    numpy's loops then run along rows, not over a few channels.
    """
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32), 0, -1)


def _drawn(
    settings: Augmentation, name: str, rng: np.random.Generator, count: int = 1
) -> tuple[float, ...] | None:
    """Return numbers in the range of a change, or None when the patch is not changed so."""
    change: Change = getattr(settings, name)
    # Drawn in any case: a change that is switched off leaves the chances of the others alone.
    chance, numbers = rng.random(), rng.uniform(*change.range, count)
    return tuple(float(number) for number in numbers) if chance < change.probability else None


def _turned(
    values: NDArray[np.float32],
    code: NDArray[np.int32],
    quarter_turns: bool,
    mirror_axes: Sequence[int],
    spacing: Sequence[float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Flip along axes and swap those that look alike."""
    flips = tuple(axis for axis in mirror_axes if rng.random() < 0.5)
    values, code = np.flip(values, flips), np.flip(code, flips)
    swap = rng.random() < 0.5
    alike = [
        (a, b)
        for a, b in ((0, 1), (1, 2), (0, 2))
        if {a, b} <= set(mirror_axes)
        and code.shape[a] == code.shape[b]
        and math.isclose(spacing[a], spacing[b], rel_tol=SAME_SPACING - 1)
    ]
    if quarter_turns and alike and swap:
        a, b = alike[int(rng.integers(len(alike)))]
        values, code = np.swapaxes(values, a, b), np.swapaxes(code, a, b)
    return values, code
