"""What a run tells while it goes on: the log, and each step on the terminal."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from segfocal.batches import PatchBatches
from segfocal.training.checkpoint import Progress
from segfocal.training.epochs import Epochs

__all__ = ["Recorder", "StepReport", "log_table"]

SMOOTHING = 0.9
"""Weight of the steps before in the share of time that is reported as waited for data."""


@dataclass(frozen=True)
class StepReport:
    """A step as it is told while training.

    Attributes:
        step, steps: Steps done, and in all.
        epoch, epochs: The epoch, from 1, and how many there are.
        values: Loss and metrics of the epoch so far.
        data_wait: Share of the time of the last steps in which the network had no batch.
        complete: Whether the epoch is complete; then the values are those of the log.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    values: dict[str, float]
    data_wait: float
    complete: bool = False

    def __str__(self) -> str:
        shown = {"loss": "loss", "mean_iou": "mIoU"}
        shown |= {"val_loss": "val loss", "val_mean_iou": "val mIoU"}
        parts = [
            f"{shown[key]} {value:.3f}"
            for name, value in self.values.items()
            if (key := name.replace("logits_mean", "mean")) in shown
        ]
        return ", ".join([*parts, f"data wait {self.data_wait:.0%}"])


class Recorder(keras.callbacks.Callback):
    """Counts steps, writes the log, tells of each step.

    Args:
        progress: How far the run has come; it is kept up to date.
        source: The batches; told which epoch begins, and asked when it gave each.
        epochs: The epochs of the run.
        log: The log, a JSON document per line; the same as a table goes beside it.
        metrics: What metrics have counted in the epoch in which the run goes on.
        tell: Called after each step and epoch.
    """

    def __init__(
        self,
        progress: Progress,
        source: PatchBatches,
        *,
        epochs: Epochs,
        log: Path,
        metrics: Sequence[NDArray[Any]] = (),
        tell: Callable[[StepReport], None] | None = None,
    ) -> None:
        super().__init__()
        self._progress, self._source = progress, source
        self._epochs, self._log = epochs, log
        self._metrics, self._tell = metrics, tell
        self._before = progress.seconds
        self._started = self._step_ended = time.monotonic()
        self._wait = 0.0
        self._epoch = 0
        write_log(log, progress.lines)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = self._source.epoch = epoch
        self._step_ended = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        given = self._source.given_at(batch)
        waited = 0.0 if given is None else max(0.0, given - self._step_ended)
        share = waited / max(now - self._step_ended, 1e-9)
        self._wait = SMOOTHING * self._wait + (1 - SMOOTHING) * min(share, 1.0)
        self._step_ended = now
        self._progress.step += 1
        self._progress.seconds = self._before + now - self._started
        if self._metrics:
            # Sums, and they exist from the first batch on: it is counted already.
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign_add(value)
            self._metrics = ()
        self._report(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.seconds = self._before + time.monotonic() - self._started
        line = {
            "step": self._progress.step,
            "seconds": round(self._progress.seconds, 3),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        if self._epochs.end_at(self._progress.step):
            self._progress.lines.append(line)
            write_log(self._log, self._progress.lines)
            self._report(logs, complete=True)
        else:  # stopped: the next run completes the epoch
            write_log(self._log, [*self._progress.lines, line])

    def _report(self, logs: dict[str, Any] | None, *, complete: bool = False) -> None:
        if self._tell is None:
            return
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._tell(
            StepReport(
                self._progress.step,
                self._epochs.steps,
                self._epoch + 1,
                self._epochs.count,
                values,
                self._wait,
                complete,
            )
        )


def write_log(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write the log as JSON lines, and beside it as CSV."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path.with_suffix(".csv").write_text(log_table(lines), encoding="utf-8", newline="")


def log_table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the log as CSV; what a line lacks is left empty."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
