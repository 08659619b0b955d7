"""Confidence intervals by resampling cases (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "confidence_interval"]

Interval = tuple[float, float]


def confidence_interval(
    count: int,
    score: Callable[[NDArray[np.intp]], float],
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile interval of a score over cases that are drawn again and again.

    What varies is which cases the dataset has. Draws in which the score does not exist (NaN) are
    left out.

    Args:
        count: Number of cases.
        score: Returns the score of the cases with these indices, of which some stand repeatedly.
        level: Share of draws inside the interval.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper bound; None for fewer than two cases, or when no draw has a score.
    """
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    scores = np.array([score(rng.integers(0, count, count)) for _ in range(samples)])
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return None
    low, high = np.percentile(scores, [50 - 50 * level, 50 + 50 * level])
    return float(low), float(high)
