"""Calibration: whether a probability of 0.8 is right in 8 of 10 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reliability"]

BINS = 15
SAMPLE = 50_000


class Reliability:
    """Counts, bin by bin of the highest probability, how often the class with it is right.

    Where not every class was looked for, labels show some classes as the rest (background), or not
    at all. Pixels that are taken for a class that was not looked for do not count, as in scores.
    Of the others the probability that counts is that of what labels show where they show
    something: the rest has its own and that of all classes shown as it; where these have no
    label, those of the classes that have one are divided by their sum. Probabilities that can be
    taken at their word then have no error, whatever was looked for. The choice of pixels does not
    disturb that, as it depends on probabilities alone.

    Also keeps a sample of the pixels with their probabilities, to find a temperature with.

    Args:
        bins: Number of equally wide bins.
        seed: Seed of the sample.

    Attributes:
        pixels: Pixels per bin.
        right: How many of them are right.
        confidence: Sum of the probabilities of what they are taken for.
    """

    def __init__(self, bins: int = BINS, seed: int = 0) -> None:
        self.pixels = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self.confidence = np.zeros(bins)
        self._rng = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self._probabilities: NDArray[np.float32] | None = None
        self._truth = np.zeros(0, np.int64)
        self._shown: NDArray[np.int16] | None = None

    def add(
        self,
        probabilities: NDArray[np.floating],
        truth: NDArray[np.integer],
        shown: NDArray[np.integer] | None = None,
    ) -> None:
        """Count pixels.

        Args:
            probabilities: ``(*space, num_classes)``.
            truth: Class indices ``(*space)``; negative ones are not counted.
            shown: What labels show each class as, ``(num_classes,)`` or ``(*space,
                num_classes)``, see :func:`segfocal.annotated.labelled_as`; left out, every class
                as itself.
        """
        own = np.arange(probabilities.shape[-1])
        shown = own if shown is None else shown
        counted = truth >= 0
        probabilities, labels = probabilities[counted], truth[counted].astype(np.int64)
        shown = shown if shown.ndim == 1 else shown[counted]
        taken = probabilities.argmax(-1)
        itself = np.broadcast_to(shown == own, probabilities.shape)
        counted = np.take_along_axis(itself, taken[:, None], -1)[:, 0]
        probabilities, labels, taken = probabilities[counted], labels[counted], taken[counted]
        shown = shown if shown.ndim == 1 else shown[counted]
        if not len(labels):
            return
        if (shown == own).all():
            highest = probabilities.max(-1).astype(np.float64)
        else:
            highest = _of_labels(probabilities, taken, shown)
        right = taken == labels
        bins = len(self.pixels)
        # A bin holds its upper bound, as in Guo et al. 2017.
        place = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
        self.pixels += np.bincount(place, minlength=bins)
        self.right += np.bincount(place[right], minlength=bins)
        self.confidence += np.bincount(place, highest, minlength=bins)
        self._sample(probabilities, labels, shown)

    def _sample(
        self,
        probabilities: NDArray[np.floating],
        truth: NDArray[np.int64],
        shown: NDArray[np.integer],
    ) -> None:
        """Keep the pixels with the smallest of random keys: each has the same chance."""
        keys = self._rng.random(len(truth))
        if self._probabilities is None or self._shown is None:
            self._probabilities = np.zeros((0, probabilities.shape[-1]), np.float32)
            self._shown = np.zeros((0, probabilities.shape[-1]), np.int16)
        few = np.argsort(keys)[:SAMPLE]
        own = np.broadcast_to(shown, probabilities.shape)[few].astype(np.int16)
        keys = np.concatenate([self._keys, keys[few]])
        probabilities = np.concatenate([self._probabilities, probabilities[few]])
        truth = np.concatenate([self._truth, truth[few]])
        own = np.concatenate([self._shown, own])
        order = np.argsort(keys, kind="stable")[:SAMPLE]
        self._keys, self._truth = keys[order], truth[order]
        self._probabilities, self._shown = probabilities[order], own[order]

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
    def sample(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int16]]:
        """The pixels kept, as :meth:`add` takes them.

        Probabilities ``(pixels, num_classes)``, class indices ``(pixels,)``, and what labels show
        each class as, ``(pixels, num_classes)``.
        """
        if self._probabilities is None or self._shown is None:
            return np.zeros((0, 1), np.float32), self._truth, np.zeros((0, 1), np.int16)
        return self._probabilities, self._truth, self._shown


def _of_labels(
    probabilities: NDArray[np.floating], index: NDArray[np.integer], shown: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return how probable it is that labels show a class index, where they show anything."""
    there, known = np.zeros(len(index)), np.zeros(len(index))
    for k in range(probabilities.shape[-1]):
        own = shown[..., k]
        there += np.where(own == index, probabilities[:, k], 0)
        known += np.where(own >= 0, probabilities[:, k], 0)
    return there / known
