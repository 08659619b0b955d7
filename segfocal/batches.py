"""The Keras data source: batches of training patches, one per optimizer step."""

from __future__ import annotations

from typing import Any

import keras

from segfocal.data.sampling import PatchSampler

__all__ = ["PatchBatches"]


class PatchBatches(keras.utils.PyDataset):
    """Gives ``fit`` batch number 0, 1, 2, ... of a :class:`PatchSampler`.

    Args:
        sampler: Where batches come from.
        steps: Number of batches per epoch.
    """

    def __init__(self, sampler: PatchSampler, steps: int) -> None:
        # One worker: batches come in order, and readers and augmentation stay in one thread.
        super().__init__(workers=1, use_multiprocessing=False)
        self._sampler = sampler
        self._steps = steps
        self._epoch = 0

    @property
    def num_batches(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        values, valid, labels = self._sampler.batch(self._epoch * self._steps + index)
        return {"image": values, "valid": valid}, labels

    def on_epoch_end(self) -> None:
        self._epoch += 1
