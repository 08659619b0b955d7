"""Keras ``fit``, from wherever a run stands to its end, or until it is stopped."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
from numpy.typing import NDArray

from segfocal.batches import PatchBatches
from segfocal.errors import SegfocalError
from segfocal.training.averaging import put_back, take_averages, trained_weights
from segfocal.training.checkpoint import Progress
from segfocal.training.epochs import Epochs
from segfocal.training.recording import Recorder, StepReport
from segfocal.training.saving import Saving
from segfocal.training.validation import Validation

__all__ = ["Ending", "fit_rest", "require_tensorboard", "tensorboard"]

Ending = Literal["steps", "time", "patience", "callback"]
"""Why a run ended: all steps are done, its time is over, its score rises no more, or a callback
of the user stopped it."""


def fit_rest(
    fitted: keras.Model,
    source: PatchBatches,
    held_out: PatchBatches | None,
    progress: Progress,
    *,
    epochs: Epochs,
    log: Path,
    metrics: Sequence[NDArray[Any]],
    validation: Validation | None,
    saving: Saving,
    callbacks: Sequence[keras.callbacks.Callback],
    tell: Callable[[StepReport], None] | None,
) -> Ending:
    """Fit a compiled network from the step where the run stands; it ends with averaged weights.

    Args:
        fitted: The network.
        source, held_out: Batches of the training and the validation split.
        progress: How far the run has come.
        epochs: The epochs of the run.
        log: See :class:`~segfocal.training.recording.Recorder`.
        metrics: What metrics have counted in an epoch that was begun.
        validation, saving: What validates, and what saves.
        callbacks: The user's.
        tell: Called after each step and epoch.
    """
    recorder = Recorder(progress, source, epochs=epochs, log=log, metrics=metrics, tell=tell)
    trained = _Trained()
    own = [recorder, _LastStep(progress, epochs), *([] if validation is None else [validation])]
    if progress.step >= epochs.steps:  # stopped after the last of them
        take_averages(fitted)
    while progress.step < epochs.steps:
        epoch, begun = divmod(progress.step, epochs.length)
        source.epoch, source.start = epoch, begun
        if trained.weights:
            put_back(fitted, trained.weights)
        fitted.fit(
            source,
            # An epoch that was begun has fewer batches than the others: a fit of its own.
            initial_epoch=epoch,
            epochs=epoch + 1 if begun else epochs.count,
            verbose=0,
            shuffle=False,
            validation_data=held_out,
            callbacks=[*own, *callbacks, saving, trained],
        )
        if progress.step >= epochs.steps:
            break
        if saving.out_of_time:
            return "time"
        if validation is not None and validation.satisfied:
            return "patience"
        if fitted.stop_training:
            return "callback"
    return "steps"


class _LastStep(keras.callbacks.Callback):
    """Ends the last epoch where it is shorter: Keras takes all of a fit for equally long.

    Args:
        progress: How far the run has come.
        epochs: The epochs of the run.
    """

    def __init__(self, progress: Progress, epochs: Epochs) -> None:
        super().__init__()
        self._progress, self._epochs = progress, epochs

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self._epochs.steps
        if self._progress.step == steps and steps % self._epochs.length:
            self.model.stop_training = True


class _Trained(keras.callbacks.Callback):
    """Keeps the weights of the end of an epoch: a fit leaves averaged ones behind."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[NDArray[Any]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.weights = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 == self.params["epochs"]:
            self.weights = trained_weights(self.model)


def tensorboard(folder: Path, *, anew: bool) -> keras.callbacks.Callback:
    """Return the callback that writes curves for TensorBoard into a folder, as they come.

    Args:
        folder: The folder.
        anew: Remove what an earlier run wrote there.
    """
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    return keras.callbacks.TensorBoard(folder, write_graph=False)


def require_tensorboard() -> None:
    """Raise ``SegfocalError`` unless what writes curves for TensorBoard is installed."""
    for package in ("tensorflow", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise SegfocalError(
                f"curves for TensorBoard need {package}, which is not installed: pip install "
                "'segfocal[tensorboard]', or leave them out: log.csv has the same numbers"
            )
