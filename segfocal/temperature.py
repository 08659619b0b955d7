"""Temperature scaling: probabilities that can be taken at their word.

A network's logits divided by one number, the temperature, before softmax (Guo et al. 2017). Of
probabilities that are at hand, this is ``p^(1/T)``, normalised: their logarithms are the logits
less a number per pixel. Above 1 probabilities move towards each other, below 1 apart; their order
stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

__all__ = ["LEAST", "RANGE", "best_temperature", "scaled"]

LEAST = 1e-12
"""Probabilities below are taken for this much: a logarithm must exist."""

RANGE = (0.05, 20.0)
"""Where a temperature is looked for."""


def best_temperature(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    shown: NDArray[np.integer] | None = None,
) -> float | None:
    """Return the temperature T for which ``p^(1/T)``, normalised, fits the truth best.

    What is minimised is the cross-entropy. Above 1, the model is too sure of itself. Where labels
    show several classes as one, its probability is their sum; where they do not show a class, the
    others' are divided by their sum. The temperature is that of all classes still.

    Args:
        probabilities: ``(pixels, num_classes)``.
        truth: Class indices ``(pixels,)``, as labels show them.
        shown: What labels show each class as, ``(num_classes,)`` or ``(pixels, num_classes)``,
            see :func:`segfocal.annotated.labelled_as`; left out, every class as itself.

    Returns:
        A number within :data:`RANGE`; None without pixels. At its ends there is none that fits:
        the model is never wrong, or does not know better than chance.
    """
    if not len(truth):
        return None
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST))
    own = np.arange(logits.shape[-1])
    shown = np.broadcast_to(own if shown is None else shown, logits.shape)
    certain = bool((shown == own).all())
    chosen = logits[np.arange(len(truth)), truth]
    meant, known = shown == truth[:, None], shown >= 0

    def cost(log_temperature: float) -> float:
        beta = np.exp(-log_temperature)
        scores = beta * logits
        if certain:
            return float((logsumexp(scores, axis=-1) - beta * chosen).mean())
        of_truth = logsumexp(np.where(meant, scores, -np.inf), axis=-1)
        return float((logsumexp(np.where(known, scores, -np.inf), axis=-1) - of_truth).mean())

    bounds = (np.log(RANGE[0]), np.log(RANGE[1]))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def scaled(probabilities: NDArray[np.float32], temperature: float | None) -> NDArray[np.float32]:
    """Return probabilities at a temperature; NaN stays.

    Args:
        probabilities: ``(*space, num_classes)``, exclusive classes.
        temperature: More than 0; None: they are returned as they are.
    """
    if temperature is None:
        return probabilities
    with np.errstate(invalid="ignore"):  # where the scan has no data, anything may stand
        logits = np.log(np.maximum(probabilities, np.float32(LEAST)))
        logits /= np.float32(temperature)
        logits -= logits.max(-1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(-1, keepdims=True)
    return logits
