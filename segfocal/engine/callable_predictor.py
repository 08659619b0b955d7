"""A plain function as a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.errors import ModelError

__all__ = ["CallablePredictor"]

BatchFunction = Callable[[NDArray[np.float32]], Any]


class CallablePredictor:
    """A function from a batch of tiles to a batch of probabilities.

    Args:
        function: Takes ``(batch, *tile, channels)`` float32 and returns
            ``(batch, *tile, classes)``. Pixels that are not valid are given as 0.
    """

    card: Card | None = None
    ndim: int | None = None
    output_stride = 1
    hash: str | None = None
    engine = "function"

    def __init__(self, function: BatchFunction) -> None:
        self._function = function

    def __call__(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        result = np.asarray(self._function(np.where(valid[..., None], values, np.float32(0))))
        if result.shape[:-1] != valid.shape:
            raise ModelError(
                f"the function returned shape {result.shape} for tiles of shape {values.shape}; "
                f"expected {(*valid.shape, 'classes')}"
            )
        return result.astype(np.float32, copy=False)
