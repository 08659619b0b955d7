"""When a run is stopped, and when its checkpoint is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras

from segfocal.training.checkpoint import Progress
from segfocal.training.epochs import Epochs

__all__ = ["Saving"]


class Saving(keras.callbacks.Callback):
    """Has checkpoints written, and stops the run when its time is over.

    It comes after all other callbacks: what they change at the end of a step or epoch is part
    of the checkpoint.

    Args:
        progress: How far the run has come.
        save: Writes a checkpoint of a model.
        epochs: The epochs of the run.
        every_steps, every_minutes: Save after so many steps, or minutes; None: not.
        max_minutes: Stop after this time; None: never.

    Attributes:
        out_of_time: Whether it has stopped the run.
    """

    def __init__(
        self,
        progress: Progress,
        save: Callable[[keras.Model], None],
        *,
        epochs: Epochs,
        every_steps: int | None,
        every_minutes: float | None,
        max_minutes: float | None,
    ) -> None:
        super().__init__()
        self.out_of_time = False
        self._progress, self._save, self._epochs = progress, save, epochs
        self._every_steps, self._every_minutes = every_steps, every_minutes
        now = time.monotonic()
        self._saved_step, self._saved_time = progress.step, now
        self._deadline = None if max_minutes is None else now + 60 * max_minutes

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The end of an epoch is saved when its log and validation are done.
        if not self._epochs.end_at(self._progress.step):
            self._act()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Where the run was stopped within the epoch, its logs are of a part of it.
        if self._epochs.end_at(self._progress.step):
            self._act()

    def _act(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            self.out_of_time = True
            self.model.stop_training = True
        steps = self._progress.step - self._saved_step
        due = (
            self.out_of_time
            or (self._every_steps is not None and steps >= self._every_steps)
            or (
                self._every_minutes is not None
                and now - self._saved_time >= 60 * self._every_minutes
            )
        )
        if due:
            self._save(self.model)
            self._saved_step, self._saved_time = self._progress.step, time.monotonic()
