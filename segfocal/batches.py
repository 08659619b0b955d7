"""The Keras data source: batches of training patches, one per optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from segfocal.data.sampling import PatchSampler

__all__ = ["PatchBatches"]


class PatchBatches(keras.utils.PyDataset):
    """Gives ``fit`` batch number 0, 1, 2, ... of a :class:`PatchSampler`.

    Args:
        sampler: Where batches come from.
        steps: Number of batches per epoch.
        outputs: Names of the network's outputs when it has several: each gets the labels.
    """

    def __init__(self, sampler: PatchSampler, steps: int, outputs: Sequence[str] = ()) -> None:
        # One worker: batches come in order, and readers and augmentation stay in one thread.
        super().__init__(workers=1, use_multiprocessing=False)
        self._sampler = sampler
        self._steps = steps
        self._outputs = tuple(outputs)
        self._epoch = 0

    @property
    def num_batches(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        values, valid, labels = self._sampler.batch(self._epoch * self._steps + index)
        targets = {name: labels for name in self._outputs} if self._outputs else labels
        return {"image": values, "valid": valid}, targets

    def on_epoch_end(self) -> None:
        self._epoch += 1
