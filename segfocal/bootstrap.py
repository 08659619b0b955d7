"""Confidence intervals by resampling cases, or groups of them (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "confidence_interval"]

Interval = tuple[float, float]


def confidence_interval(
    count: int,
    score: Callable[[NDArray[np.intp]], float],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile interval of a score over cases that are drawn again and again.

    What varies is which cases the dataset has. Draws in which the score does not exist (NaN) are
    left out.

    Cases that are alike, such as several scans of a patient, say less than as many that are not.
    Where their groups are given, groups are drawn, each with all its cases (Davison and Hinkley
    1997, section 3.8): what varies is which groups the dataset has.

    Args:
        count: Number of cases.
        score: Returns the score of the cases with these indices, of which some stand repeatedly.
        groups: Of each case the group it belongs to; left out, each is one of its own.
        level: Share of draws inside the interval.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper bound; None for fewer than two cases or groups, or when no draw has a score.
    """
    names = range(count) if groups is None else groups
    members: dict[Hashable, list[int]] = {}
    for case, name in enumerate(names):
        members.setdefault(name, []).append(case)
    if len(members) < 2:
        return None
    cases = np.array([case for own in members.values() for case in own])
    sizes = np.array([len(own) for own in members.values()])
    starts = sizes.cumsum() - sizes
    rng = np.random.default_rng(seed)

    def draw() -> NDArray[np.intp]:
        drawn = rng.integers(0, len(sizes), len(sizes))
        counts = sizes[drawn]
        # Within each group drawn: 0, 1, ... from where it begins.
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        chosen: NDArray[np.intp] = cases[np.repeat(starts[drawn], counts) + within]
        return chosen

    scores = np.array([score(draw()) for _ in range(samples)])
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return None
    low, high = np.percentile(scores, [50 - 50 * level, 50 + 50 * level])
    return float(low), float(high)
