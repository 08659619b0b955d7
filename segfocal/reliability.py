"""Calibration: whether a probability of 0.8 is right in 8 of 10 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reliability"]

BINS = 15
SAMPLE = 50_000


class Reliability:
    """Counts, bin by bin of the highest probability, how often the class with it is right.

    Also keeps a sample of pixels with their probabilities, to find a temperature with.

    Args:
        bins: Number of equally wide bins.
        seed: Seed of the sample.

    Attributes:
        pixels: Pixels per bin.
        right: How many of them are right.
        confidence: Sum of their highest probabilities.
    """

    def __init__(self, bins: int = BINS, seed: int = 0) -> None:
        self.pixels = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self.confidence = np.zeros(bins)
        self._rng = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self._probabilities: NDArray[np.float32] | None = None
        self._truth = np.zeros(0, np.int64)

    def add(self, probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
        """Count pixels.

        Args:
            probabilities: ``(*space, num_classes)``.
            truth: Class indices ``(*space)``; negative ones are not counted.
        """
        counted = truth >= 0
        probabilities, labels = probabilities[counted], truth[counted].astype(np.int64)
        if not len(labels):
            return
        highest = probabilities.max(-1).astype(np.float64)
        right = probabilities.argmax(-1) == labels
        bins = len(self.pixels)
        # A bin holds its upper bound, as in Guo et al. 2017.
        place = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
        self.pixels += np.bincount(place, minlength=bins)
        self.right += np.bincount(place[right], minlength=bins)
        self.confidence += np.bincount(place, highest, minlength=bins)
        self._sample(probabilities, labels)

    def _sample(self, probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> None:
        """Keep the pixels with the smallest of random keys: each has the same chance."""
        keys = self._rng.random(len(truth))
        if self._probabilities is None:
            self._probabilities = np.zeros((0, probabilities.shape[-1]), np.float32)
        few = np.argsort(keys)[:SAMPLE]
        keys = np.concatenate([self._keys, keys[few]])
        probabilities = np.concatenate([self._probabilities, probabilities[few]])
        truth = np.concatenate([self._truth, truth[few]])
        order = np.argsort(keys, kind="stable")[:SAMPLE]
        self._keys, self._truth = keys[order], truth[order]
        self._probabilities = probabilities[order]

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |share right - confidence| over pixels, by bins.

        NaN without pixels. Guo et al. 2017, equation 3.
        """
        total = int(self.pixels.sum())
        if not total:
            return float("nan")
        return float(np.abs(self.right - self.confidence).sum() / total)

    @property
    def sample(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Probabilities ``(pixels, num_classes)`` and class indices of the pixels kept."""
        if self._probabilities is None:
            return np.zeros((0, 1), np.float32), self._truth
        return self._probabilities, self._truth
