"""The Keras data source: batches of training patches, one per optimizer step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from segfocal.data.sampling import Batch

__all__ = ["PatchBatches"]


class PatchBatches(keras.utils.PyDataset):
    """Gives ``fit`` the batches of an epoch, on every backend of Keras.

    Args:
        make: Returns the batch of an epoch and a number, such as
            :meth:`~segfocal.data.workers.BatchWorkers.get`.
        steps: Number of batches per epoch.
        outputs: Names of the network's outputs when it has several: each gets the labels.
        flags: Type of what says which pixels are valid; TensorFlow adds up batches of several
            devices to learn their shape, and has no sum of booleans.

    Attributes:
        epoch: The epoch whose batches are given. Keras does not tell it: a callback has to.
        start: The number of the first batch that is given of each epoch; ``fit`` is told when it
            begins how many there are.
    """

    def __init__(
        self,
        make: Callable[[int, int], Batch],
        steps: int,
        outputs: Sequence[str] = (),
        flags: str = "bool",
    ) -> None:
        # Keras's own workers are left out: its processes are forked.
        super().__init__(workers=1, use_multiprocessing=False)
        self.epoch = self.start = 0
        self._make = make
        self._steps = steps
        self._outputs = tuple(outputs)
        self._flags = flags
        self._given: dict[int, float] = {}

    @property
    def num_batches(self) -> int:
        return self._steps - self.start

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        values, valid, labels = self._make(self.epoch, self.start + index)
        targets = {name: labels for name in self._outputs} if self._outputs else labels
        self._given[index] = time.monotonic()
        return {"image": values, "valid": valid.astype(self._flags, copy=False)}, targets

    def given_at(self, index: int) -> float | None:
        """Return when the batch of this index was given last, on the monotonic clock."""
        return self._given.get(index)
