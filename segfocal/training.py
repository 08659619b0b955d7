"""Training: Keras ``fit`` on the patches of a dataset spec."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from segfocal.batches import PatchBatches
from segfocal.data.plan import Plan, plan_text
from segfocal.data.spec import DatasetSpec
from segfocal.data.workers import BatchWorkers, SamplerRecipe
from segfocal.engine.memory import parse_bytes
from segfocal.errors import ModelError, OutputExistsError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.losses import AtScale, DiceCrossEntropy
from segfocal.metrics import MeanIoU
from segfocal.models import FocalUNet
from segfocal.report import run_page

__all__ = ["TrainingRun", "save_model", "train"]

EPOCHS = 20
"""The log gets at most this many lines, whatever the number of steps."""

LOG = "log.jsonl"

INDEX = "class_index.npz"
"""Where the classes are, in the run's folder: another run there need not look again."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingRun:
    """What a training run left behind.

    Attributes:
        folder: The run's folder.
        model: Path of the trained model.
        log: Path of the log, one JSON document per line and epoch.
        seconds: Wall time of the fit.
        steps: Optimizer steps that were taken.
    """

    folder: Path
    model: Path
    log: Path
    seconds: float
    steps: int


def train(
    model: FocalUNet,
    spec: DatasetSpec,
    plan: Plan,
    out: str | Path,
    *,
    overwrite: bool = False,
    max_minutes: float | None = None,
    workers: int = 2,
    processes: bool = False,
    cache: int | str | None = "1GB",
    cache_folder: str | Path | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: keras.losses.Loss | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Progress | None = None,
) -> TrainingRun:
    """Train a model on the split ``train`` of a dataset.

    The defaults are AdamW with warm-up, cosine decay, clipped gradients and averaged
    weights, on cross-entropy plus Dice. The folder gets ``model.keras``, ``plan.yaml``,
    ``log.jsonl`` and ``report.html``: all at the end, or none, and then those of an earlier run
    stay. An index of where the classes are, ``class_index.npz``, is kept beside them once it is
    made.

    Args:
        model: The model, usually from :meth:`FocalUNet.from_plan`.
        spec: The dataset.
        plan: The plan the model was made from.
        out: Folder of the run, created when missing.
        overwrite: Replace the model of an earlier run in ``out``.
        max_minutes: Stop after this time; the schedule of the learning rate stays as planned.
        workers: How many threads make patches while the network computes; 0: none, patches and
            steps take turns. The patches are the same.
        processes: Processes in place of threads; started afresh, so that a script needs
            ``if __name__ == "__main__":``.
        cache: How much of the decoded scans to keep, in bytes or as text; None: nothing.
        cache_folder: Keep it on disk, in a folder inside this one that is removed at the end,
            and not in memory.
        optimizer, loss: Keras objects in place of the defaults.
        callbacks: More Keras callbacks.
        progress: Called with steps done and steps in all.

    Raises:
        ModelError: The model's card is not the plan's, or training diverged.
        OutputExistsError: ``out`` holds a model and ``overwrite`` is False.
        SpecError, ScanError, ChannelError: The dataset cannot be used, or is not the plan's.
        OutputError: ``out`` cannot be written.
    """
    if model.card.class_values.tolist() != plan.card.class_values.tolist() or [
        channel.name for channel in model.card.channels
    ] != [channel.name for channel in plan.card.channels]:
        raise ModelError(
            "the model's card names other classes or channels than the plan; make the model with "
            "FocalUNet.from_plan(spec, plan)"
        )
    folder = Path(out)
    target = folder / "model.keras"
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"{target}: exists already; choose another folder, or pass overwrite=True "
            "(--overwrite) to replace it"
        )
    keras.utils.set_random_seed(plan.seed)
    epochs = _epochs(plan.steps)
    steps_per_epoch = plan.steps // epochs
    recipe = SamplerRecipe(
        spec,
        plan,
        index_path=folder / INDEX,
        cache_bytes=0 if cache is None else parse_bytes(cache, "cache"),
        cache_folder=None if cache_folder is None else Path(cache_folder),
    )
    # Nothing is written before the dataset was found usable.
    with (
        BatchWorkers(recipe, steps_per_epoch, workers=workers, processes=processes) as batches,
        ExitStack() as stack,
        writing(folder),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        batches.keep_index()
        # Plan, log and model belong together: an earlier run's stay until all three are new.
        pending = stack.enter_context(PendingOutput(target, overwrite=overwrite))
        pending.path("plan.yaml").write_text(plan_text(plan), encoding="utf-8")
        log = _Log(pending.path(LOG), steps_per_epoch, epochs, max_minutes, progress)
        fitted, outputs = _compile(model, plan, optimizer, loss or DiceCrossEntropy())
        started = time.monotonic()
        fitted.fit(
            PatchBatches(batches.get, steps_per_epoch, outputs),
            epochs=epochs,
            verbose=0,
            shuffle=False,
            callbacks=[log, *callbacks],
        )
        seconds = time.monotonic() - started
        _require_finite(model)
        lines = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
        page = run_page(spec, plan, lines, seconds=seconds)
        pending.path("report.html").write_text(page, encoding="utf-8")
        model.save(pending.main)
        pending.commit()
    return TrainingRun(folder, target, folder / LOG, seconds, log.steps)


def _compile(
    model: FocalUNet,
    plan: Plan,
    optimizer: keras.optimizers.Optimizer | None,
    loss: keras.losses.Loss,
) -> tuple[keras.Model, tuple[str, ...]]:
    """Return the model to fit, with the additional heads of the plan, and its output names."""
    fitted: keras.Model = model
    outputs: tuple[str, ...] = ()
    losses: Any = loss
    weights = None
    metrics: Any = [MeanIoU(plan.card.num_classes)]
    if plan.deep_supervision:
        fitted = model.supervised(plan.deep_supervision)
        outputs = tuple(fitted.output)
        losses = {name: AtScale(loss, 2**i) if i else loss for i, name in enumerate(outputs)}
        shares = [0.5**i for i in range(len(outputs))]
        weights = {name: share / sum(shares) for name, share in zip(outputs, shares, strict=True)}
        metrics = {outputs[0]: metrics}
    fitted.compile(
        optimizer=optimizer or _default_optimizer(plan),
        loss=losses,
        loss_weights=weights,
        metrics=metrics,
    )
    # Built here, the optimizer's variables do not come into being inside the compiled
    # step, which TensorFlow would then trace twice.
    fitted.optimizer.build(fitted.trainable_variables)
    return fitted, outputs


def save_model(model: keras.Model, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a model so that the file is complete or not there.

    Raises:
        OutputError: It cannot be written, or is there already.
    """
    with PendingOutput(Path(path), overwrite=overwrite) as pending:
        with writing(path):
            model.save(pending.main)
        pending.commit()


def _require_finite(model: keras.Model) -> None:
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ModelError(
                f"training diverged: {weight.path} is not finite; expected numbers: lower the "
                "learning rate, and look for extreme values in the scans; nothing was saved"
            )


def _epochs(steps: int) -> int:
    """Return how many equal epochs to divide the steps into: none may be left over."""
    return max(n for n in range(1, min(EPOCHS, steps) + 1) if steps % n == 0)


def _default_optimizer(plan: Plan) -> keras.optimizers.Optimizer:
    warm_up = max(1, int(WARM_UP * plan.steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=plan.learning_rate / 100,
        decay_steps=max(1, plan.steps - warm_up),
        alpha=0.01,
        warmup_target=plan.learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(
        learning_rate=schedule,
        weight_decay=plan.weight_decay,
        global_clipnorm=1.0,
        use_ema=True,
        # An average over about the last tenth of the run.
        ema_momentum=max(0.5, 1.0 - 10.0 / plan.steps),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class _Log(keras.callbacks.Callback):
    """Writes the log, reports progress, keeps the time budget."""

    def __init__(
        self,
        path: Path,
        steps_per_epoch: int,
        epochs: int,
        max_minutes: float | None,
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self.path = path
        self.steps = 0
        self._total = steps_per_epoch * epochs
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._progress = progress
        self._started = time.monotonic()
        path.write_text("")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1
        if self._progress is not None:
            self._progress(self.steps, self._total)
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        line = {
            "step": self.steps,
            "seconds": round(time.monotonic() - self._started, 3),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
