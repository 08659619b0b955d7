"""Running tiles through a predictor in batches of one size, smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from segfocal.engine.memory import is_out_of_memory
from segfocal.engine.predictors import Predictor
from segfocal.errors import ModelError

__all__ = ["BatchTooLargeError", "Forward"]


class BatchTooLargeError(MemoryError):
    """A batch does not fit into memory, and a smaller one might give other bits."""


class Forward:
    """A predictor with the shape of its tiles.

    Args:
        predictor: The model.
        tile: Sides of a tile.
        num_channels: Channels of a tile.
        batch_size: Tiles per call; a batch with fewer is padded, so that the predictor sees
            one shape only, unless it runs tile by tile anyway (its attribute ``tile_by_tile``).
        shrink: What to do when a batch does not fit into memory: True to go on with half of
            it, False to raise :class:`BatchTooLargeError`.
    """

    def __init__(
        self,
        predictor: Predictor,
        tile: Sequence[int],
        num_channels: int,
        batch_size: int,
        *,
        shrink: bool = True,
    ) -> None:
        self._predictor = predictor
        self._tile, self._num_channels = tuple(tile), num_channels
        self._shrink = shrink
        self._pad = not getattr(predictor, "tile_by_tile", False)
        self.batch_size = batch_size
        # Of results that are still to come, another thread may ask how many classes there are.
        self._turn = Lock()

    def num_classes(self) -> int:
        """Return how many classes the predictor tells apart, by a call without a valid pixel."""
        return self._attempt([], []).shape[-1]

    def __call__(
        self, values: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]]
    ) -> list[NDArray[np.float32]]:
        """Return the probabilities of tiles, each ``(*tile, classes)``.

        Args:
            values: Tiles ``(*tile, channels)``.
            valid: Which of their pixels count, ``(*tile,)`` each.

        Raises:
            ModelError: The model returns numbers that are not finite.
            MemoryError: One tile does not fit into memory.
            BatchTooLargeError: A batch does not, and is not to be made smaller.
        """
        results: list[NDArray[np.float32]] = []
        while len(results) < len(values):
            found = self._attempt(values[len(results) :], valid[len(results) :])
            for place, usable in enumerate(valid[len(results) :][: self.batch_size]):
                finite = np.isfinite(found[place])
                if not finite.all() and not finite[usable].all():
                    raise ModelError(
                        "the model returned NaN or infinite probabilities; expected numbers: its "
                        "weights or the scan's values overflow"
                    )
                results.append(found[place])
        return results

    def _attempt(
        self, values: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]]
    ) -> NDArray[np.float32]:
        """Run as many of the first tiles as one batch holds."""
        while True:
            try:
                with self._turn:
                    return self._call(values[: self.batch_size], valid[: self.batch_size])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_size == 1:
                    sides = " x ".join(str(side) for side in self._tile)
                    raise MemoryError(f"one tile of {sides} does not fit") from error
                if not self._shrink:
                    raise BatchTooLargeError(f"{self.batch_size} tiles do not fit") from error
            self.batch_size //= 2

    def _call(
        self, values: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]]
    ) -> NDArray[np.float32]:
        size = self.batch_size if self._pad else len(values)
        if not values:  # to take as much memory as any call, with all tiles that run side by side
            size = min(self.batch_size, getattr(self._predictor, "lanes", self.batch_size))
        batch = np.zeros((size, *self._tile, self._num_channels), np.float32)
        usable = np.zeros((size, *self._tile), np.bool_)
        for place, (one, its) in enumerate(zip(values, valid, strict=True)):
            batch[place], usable[place] = one, its
        return self._predictor(batch, usable)
