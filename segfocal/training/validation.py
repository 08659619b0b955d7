"""The validation split while training: scores of the averaged weights, the best of them kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from segfocal.engine.journal import sync_folder
from segfocal.io.pending import PendingOutput, writing
from segfocal.training.averaging import put_back, take_averages, trained_weights
from segfocal.training.checkpoint import Progress
from segfocal.training.epochs import Epochs

__all__ = ["Validation", "score_of"]


def score_of(logs: dict[str, Any]) -> float:
    """Return the score that decides which weights are the best: the mean IoU of validation.

    Of a network with several heads it is that of the one that is saved. NaN without one.
    """
    return float(logs.get("mean_iou", logs.get("logits_mean_iou", float("nan"))))


class Validation(keras.callbacks.Callback):
    """Has Keras validate the averaged weights, and keeps the best network.

    The weights that are trained on are back afterwards, bit by bit.

    Args:
        progress: Where the best score is kept.
        network: The network to save, of the same layers as the one that is fitted.
        best: Where the best is saved, complete or not at all.
        patience: Stop after so many epochs without a better score; None: never.
        epochs: The epochs of the run.

    Attributes:
        satisfied: Whether it has stopped the run.
    """

    def __init__(
        self,
        progress: Progress,
        network: keras.Model,
        best: Path,
        patience: int | None,
        epochs: Epochs,
    ) -> None:
        super().__init__()
        self.satisfied = False
        self._progress, self._network, self._best = progress, network, best
        self._patience, self._epochs = patience, epochs
        self._trained: list[Any] = []

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        self._trained = trained_weights(model)
        take_averages(model)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        model, progress = self.model, self._progress
        score = score_of(logs or {})
        if not self._epochs.end_at(progress.step):
            pass  # stopped within an epoch: it is validated when it is complete
        elif score > (float("-inf") if progress.best is None else progress.best):
            progress.best, progress.best_step, progress.waited = score, progress.step, 0
            self._keep()
        else:
            progress.waited += 1
        put_back(model, self._trained)
        self._trained = []
        if self._patience is not None and progress.waited >= self._patience:
            self.satisfied = model.stop_training = True

    def _keep(self) -> None:
        with writing(self._best):
            self._best.parent.mkdir(parents=True, exist_ok=True)
            with PendingOutput(self._best, overwrite=True) as pending:
                self._network.save(pending.main)
                pending.commit()
            sync_folder(self._best.parent)
