"""A scan's values against those of the training data, from a few windows of the scan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from segfocal.card import Card, Channel
from segfocal.engine.job import Job

__all__ = ["unlike_training"]

_STEPS, _SIDE = {2: 4, 3: 3}, {2: 128, 3: 24}
_LEAST_VALUES = 100
_FLAT = 0.01
"""A scan whose values span less than this share of training's is in another unit."""


def unlike_training(job: Job, card: Card) -> str:
    """Return a line about channels whose values are far from those seen in training, or "".

    Looked at are up to 16 windows of a scene and 27 of a volume, evenly placed; compressed
    volumes are not looked at, as they would have to be inflated. A channel is far off when most
    of its values lie further outside the training's 0.5 to 99.5 percentiles than these are
    apart, or when all of them span less than a hundredth of that.
    """
    expected = [
        channel if channel.normalization is None and _is_known(channel) else None
        for channel in card.channels
    ]
    if not any(expected) or getattr(job.scan, "remembered_bytes", 0) > 0:
        return ""
    places = range(len(job.scan.channels)) if job.channels is None else job.channels
    compared = [
        (place, channel)
        for place, channel in zip(places, expected, strict=False)
        if channel is not None
    ]
    samples = _samples(job, [place for place, _ in compared])
    found = [
        (job.scan.channels[place], values, channel)
        for (place, channel), values in zip(compared, samples, strict=True)
        if values.size >= _LEAST_VALUES and _is_far(values, channel)
    ]
    if not found:
        return ""
    name, values, channel = found[0]
    low, high = np.percentile(values, (0.5, 99.5))
    others = f", and of {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{job.scan.name}: the values of {name} (about {low:.4g} to {high:.4g}){others} are far "
        f"from those in training ({channel.low:.4g} to {channel.high:.4g}): labels may mean "
        "nothing; expected values in the same unit and scale"
    )


def _is_known(channel: Channel) -> bool:
    return channel.low is not None and channel.high is not None and channel.high > channel.low


def _is_far(values: np.ndarray, channel: Channel) -> bool:
    assert channel.low is not None
    assert channel.high is not None
    span = channel.high - channel.low
    outside = (values < channel.low - span) | (values > channel.high + span)
    low, high = np.percentile(values, (0.5, 99.5))
    # One value alone is an empty scan, not one in another unit.
    return bool(outside.mean() > 0.5 or 0 < high - low < _FLAT * span)


def _samples(job: Job, channels: Sequence[int]) -> list[np.ndarray]:
    """Return valid values of each channel from windows that lie evenly in what is segmented."""
    ndim = len(job.scan.shape)
    sides: list[Sequence[slice]] = []
    for side in job.covered:
        length = min(_SIDE[ndim], side.stop - side.start)
        starts = np.linspace(side.start, side.stop - length, _STEPS[ndim]).astype(int)
        sides.append([slice(int(start), int(start) + length) for start in np.unique(starts)])
    parts: list[list[np.ndarray]] = [[] for _ in channels]
    for window in itertools.product(*sides):
        patch = job.scan.read(tuple(window), channels)
        for place, part in enumerate(parts):
            known = patch.valid[..., place]
            part.append(patch.values[..., place][known].astype(np.float64))
    return [np.concatenate(part) for part in parts]
