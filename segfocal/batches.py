"""The Keras data source: batches of training patches, one per optimizer step."""

from __future__ import annotations

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
        epoch: The first epoch.
    """

    def __init__(
        self,
        make: Callable[[int, int], Batch],
        steps: int,
        outputs: Sequence[str] = (),
        epoch: int = 0,
    ) -> None:
        # Keras's own workers are left out: its processes are forked.
        super().__init__(workers=1, use_multiprocessing=False)
        self._make = make
        self._steps = steps
        self._outputs = tuple(outputs)
        self._epoch = epoch

    @property
    def num_batches(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        values, valid, labels = self._make(self._epoch, index)
        targets = {name: labels for name in self._outputs} if self._outputs else labels
        return {"image": values, "valid": valid}, targets

    def on_epoch_end(self) -> None:
        self._epoch += 1
