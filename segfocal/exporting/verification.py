"""Comparing an exported network with the Keras model it was made from.

Random images with holes in ``valid`` go through both: one of a size that is no multiple of
the network's stride, and a batch of another size, of which one image has no valid pixel. At
invalid pixels the images hold NaN, which must have no effect.

Probabilities near 0 or 1 hide differences of logits, so the logarithms of the probabilities
are compared too: of exclusive classes they are the logits less a number per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.exported_model import PROBABILITIES
from segfocal.errors import ModelError, NotConvertibleError

__all__ = ["TOLERANCE", "Difference", "Exported", "compare", "sample_batches"]

TOLERANCE = 1e-4

_LEAST = 1e-30
"""Probabilities below it have no logarithm worth comparing in float32."""

_SIDES = {2: ((37, 75), (96, 64)), 3: ((19, 37, 33), (32, 48, 64))}


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences between an exported network and the Keras model.

    Attributes:
        probabilities: Of probabilities.
        log_probabilities: Of their natural logarithms, relative to the largest magnitude
            where that exceeds 1.
    """

    probabilities: float
    log_probabilities: float

    @property
    def largest(self) -> float:
        """The larger one; NaN if there is one."""
        return float(np.max([self.probabilities, self.log_probabilities]))


class Exported(Protocol):
    """An exported network, loaded again."""

    @property
    def card(self) -> Card: ...
    @property
    def engine(self) -> str: ...
    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]: ...


def compare(network: keras.Model, card: Card, exported: Exported, name: Path) -> Difference:
    """Return how far an exported network is from its model.

    Args:
        network: The Keras network, from ``image`` and ``valid`` to ``probabilities``.
        card: The model's card.
        exported: The exported network.
        name: What to call it in an error.

    Raises:
        NotConvertibleError: Results differ by more than ``TOLERANCE``, or are no numbers.
        ModelError: The cards differ.
    """
    if exported.card != card:
        raise ModelError(
            f"{name}: the exported card is not the model's; nothing was written: report this as "
            "a fault of segfocal"
        )
    found = Difference(0.0, 0.0)
    for values, valid in sample_batches(card):
        # Not compiled: each size would be traced, which takes longer.
        outputs = network({"image": values, "valid": valid}, training=False)
        expected = keras.ops.convert_to_numpy(outputs[PROBABILITIES])
        result = exported(values, valid)
        if result.shape != expected.shape:
            raise NotConvertibleError(
                f"{name}: the exported network gives shape {result.shape} for images of shape "
                f"{values.shape} in {exported.engine}; expected {expected.shape}; nothing was "
                "written: try another format"
            )
        here = difference(expected, result)
        # np.maximum keeps NaN, which Python's max may drop.
        found = Difference(
            float(np.maximum(found.probabilities, here.probabilities)),
            float(np.maximum(found.log_probabilities, here.log_probabilities)),
        )
    if not found.largest <= TOLERANCE:
        raise NotConvertibleError(
            f"{name}: the exported network differs from the Keras model by "
            f"{found.probabilities:.1e} in probabilities and {found.log_probabilities:.1e} in "
            f"their logarithms in {exported.engine}; expected at most {TOLERANCE:.0e}; nothing "
            "was written: try another format"
        )
    return found


def difference(expected: NDArray[np.float32], result: NDArray[np.float32]) -> Difference:
    """Return the largest differences between two arrays of probabilities."""
    if not np.isfinite(expected).all():
        raise NotConvertibleError(
            "the model gives NaN or infinite probabilities; expected numbers: its weights are "
            "damaged or training diverged"
        )
    logs = [np.log(np.maximum(array, _LEAST)) for array in (expected, result)]
    scale = max(1.0, float(np.abs(logs[0]).max()))
    return Difference(
        float(np.abs(result - expected).max()), float(np.abs(logs[1] - logs[0]).max()) / scale
    )


def sample_batches(card: Card) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield images in the scan's units, and which of their pixels are valid."""
    rng = np.random.default_rng(20220322)
    mean = np.array([channel.mean for channel in card.network_channels], np.float32)
    std = np.array([channel.std for channel in card.network_channels], np.float32)
    for batch, sides in zip((1, 3), _SIDES[card.ndim], strict=True):
        shape = (batch, *sides)
        noise = rng.normal(size=(*shape, len(mean))).astype(np.float32)
        # A slope as well: noise alone leaves deep features the same everywhere.
        slope = np.linspace(-1, 1, sides[-1], dtype=np.float32)[:, None]
        values = mean + std * (noise + slope)
        valid = rng.random(shape) < 0.9
        valid[:, sides[0] // 2 :, : sides[1] // 3] = False
        if batch > 1:
            valid[-1] = False
        values[~valid] = np.nan
        yield values, valid
