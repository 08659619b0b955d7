"""Training: Keras ``fit`` on the patches of a dataset spec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import keras

from segfocal import unfinished
from segfocal.batches import PatchBatches
from segfocal.data.plan import Plan
from segfocal.data.sampling import Batch
from segfocal.data.spec import DatasetSpec
from segfocal.data.workers import BatchWorkers, SamplerRecipe
from segfocal.engine.memory import parse_bytes
from segfocal.errors import ModelError, SpecError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.models import FocalUNet
from segfocal.training.checkpoint import Checkpoint, Progress, captured, restore, write_checkpoint
from segfocal.training.epochs import epochs_of, patches_numbered_in
from segfocal.training.fitting import fit_rest, require_tensorboard, tensorboard
from segfocal.training.identity import identity_of
from segfocal.training.network import (
    checked_loss,
    compiled,
    fitted_network,
    require_finite,
    step_optimizer,
)
from segfocal.training.recording import StepReport
from segfocal.training.replicas import Devices, replicas_for
from segfocal.training.results import TrainingRun, run_of, save_model, write_results
from segfocal.training.resuming import LOG, MODEL, Folder
from segfocal.training.saving import Saving
from segfocal.training.validation import Validation
from segfocal.weights import load_encoder

__all__ = ["StepReport", "TrainingRun", "save_model", "train"]

INDEX = "class_index.npz"
"""Where the classes are, in the run's folder: another run there need not look again."""

HELD_OUT_INDEX = "class_index.val.npz"

ENCODER_RATE = 0.1
"""Share of the learning rate that an encoder with trained weights gets."""

HOW = "run it again with --resume to go on"

HELD_OUT_SHARE = 5
"""Validation takes a batch for each so many of training, and at most :data:`MOST_HELD_OUT`."""

MOST_HELD_OUT = 100


def train(
    model: FocalUNet,
    spec: DatasetSpec,
    plan: Plan,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    allow_changes: bool = False,
    max_minutes: float | None = None,
    checkpoint_minutes: float | None = 5.0,
    checkpoint_steps: int | None = None,
    validation: bool = True,
    patience: int | None = None,
    encoder: str | Path | None = None,
    encoder_rate: float | None = None,
    devices: Devices = None,
    curves: bool = False,
    workers: int = 2,
    processes: bool = False,
    cache: int | str | None = "1GB",
    cache_folder: str | Path | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: keras.losses.Loss | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[StepReport], None] | None = None,
) -> TrainingRun:
    """Train a model on the split ``train`` of a dataset.

    The defaults are AdamW with warm-up, cosine decay, clipped gradients and averaged
    weights, on cross-entropy plus Dice; of regions that overlap, binary cross-entropy plus Dice of
    each. Where a case lists its ``annotated`` classes, what it does not say of the others is not
    counted against the network.

    The folder gets ``model.keras``, ``plan.yaml``, ``log.jsonl``, ``log.csv``, ``run.json`` and
    ``report.html``: all at the end, or none, and then those of an earlier run stay. An index of
    where the classes are, ``class_index.npz``, is kept beside them once it is made.

    Where the dataset has a split ``val``, patches of it are scored after each epoch, of which
    there are about twenty, the last one shorter where they do not divide the steps, with the
    averaged weights, and ``best.keras`` is the model of the best score. ``model.keras`` is that of
    the last step.

    A run that was stopped or killed goes on from its last checkpoint, in the folder
    ``checkpoint``, when the same is called with ``resume``. With TensorFlow on a CPU it ends with
    the weights of a run that was not stopped, bit for bit. Callbacks and optimizers of your own
    keep what they know only as far as it lies in Keras variables of the optimizer.

    Args:
        model: The model, usually from :meth:`FocalUNet.from_plan`.
        spec: The dataset.
        plan: The plan the model was made from.
        out: Folder of the run, created when missing.
        overwrite: Start anew. What an earlier run left in ``out`` is replaced at the end; from the
            first step on it is no longer what ``resume`` goes on with.
        resume: Go on with the run in ``out``; from the start where it has no checkpoint. Of a
            finished run the result is returned.
        allow_changes: Resume with another spec, plan or loss than the run was started with.
        max_minutes: Stop after this time, save, and leave a checkpoint to resume from; the
            schedule of the learning rate stays as planned.
        checkpoint_minutes, checkpoint_steps: Write a checkpoint after this time, or so many
            steps; None: not.
        validation: Score the split ``val``, if there is one.
        patience: Stop after so many epochs without a better score on ``val``.
        encoder: Trained weights for the encoder, see :func:`segfocal.load_encoder`.
        encoder_rate: The encoder's share of the learning rate. Left out: 0.1 with ``encoder``,
            else 1. Of no effect with an ``optimizer``.
        devices: On how many devices; ``"all"`` of the fastest kind. Each gets its part of every
            batch, which they have to divide, and a step is that of one device with all of it, but
            for rounding. Left out: as many of the GPUs as divide the batch. With TensorFlow and
            JAX.
        curves: Write curves for TensorBoard to ``tensorboard`` in ``out``, while training.
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
        tell: Called with a :class:`StepReport` after each step and epoch.

    Raises:
        ModelError: The model's card is not the plan's, the loss is for another task, the encoder's
            weights do not fit, there are fewer devices or they cannot divide the batch, or training
            diverged.
        OutputExistsError: ``out`` holds a model or a stopped run, and neither ``overwrite`` nor
            ``resume`` is true.
        SpecError, ScanError, ChannelError: The dataset cannot be used, or is not the plan's; or
            the run to resume was started with something else.
        OutputError: ``out`` cannot be written.
        SegfocalError: TensorBoard is not installed, and ``curves`` were asked for.
    """
    _check(model, spec, plan, patience if validation else None)
    if curves:
        require_tensorboard()
    place = Folder(Path(out))
    place.check_free(overwrite=overwrite, resume=resume)
    replicas = replicas_for(devices, plan.batch_size)
    given = model
    with replicas.placed(given) as model:
        if encoder is not None:
            load_encoder(model, encoder)
        keras.utils.set_random_seed(plan.seed)
        fitted = fitted_network(model, plan)
        if encoder_rate is None:
            encoder_rate = 1.0 if encoder is None else ENCODER_RATE
        if optimizer is None:
            optimizer = step_optimizer(fitted, model, plan, encoder_rate)
        else:
            optimizer = replicas.placed_optimizer(optimizer, given, model)
        loss = checked_loss(loss, plan.card.task)
        identity = identity_of(spec, plan, model, optimizer, loss, encoder)
        if resume and place.finished:
            place.check_finished(identity)
            return run_of(place)
        start = place.checkpoint(identity, allow_changes=allow_changes) if resume else None
        done = Progress() if start is None else start.progress
        epochs, numbered = epochs_of(plan.steps), patches_numbered_in(plan.steps)
        recipe = SamplerRecipe(
            spec,
            plan,
            index_path=place.path / INDEX,
            cache_bytes=0 if cache is None else parse_bytes(cache, "cache"),
            cache_folder=None if cache_folder is None else Path(cache_folder),
        )
        validated = validation and bool(spec.all_regions.get("val"))
        spared = recipe.cache_bytes // 4 if validated else 0
        recipe = replace(recipe, cache_bytes=recipe.cache_bytes - spared)
        # Nothing is written before the dataset was found usable.
        with (
            BatchWorkers(recipe, numbered, workers=workers, processes=processes) as batches,
            ExitStack() as stack,
            writing(place.path),
        ):
            held_out = None
            count = min(max(1, epochs.length // HELD_OUT_SHARE), MOST_HELD_OUT)
            if validated:
                other = replace(
                    recipe,
                    split="val",
                    augment=False,
                    index_path=place.path / HELD_OUT_INDEX,
                    cache_bytes=spared,
                )
                held_out = stack.enter_context(BatchWorkers(other, count, workers=min(workers, 1)))
            place.path.mkdir(parents=True, exist_ok=True)
            for one in (batches, *([] if held_out is None else [held_out])):
                one.keep_index()
            # Plan, log and model belong together: an earlier run's stay until all three are new.
            pending = stack.enter_context(
                PendingOutput(place.path / MODEL, overwrite=overwrite or resume)
            )
            flags = "uint8" if replicas.mirrored else "bool"
            outputs = compiled(fitted, plan, optimizer, loss, replicas)
            metrics = [] if start is None else restore(fitted, start.arrays)
            if start is not None:
                unfinished.keep(place.last.parent, HOW)
            if epochs.end_at(done.step) or replicas.mirrored:
                # Of the validation of the epoch before; or spread over devices, which cannot be
                # added to: the epoch's line in the log is of what follows.
                metrics = []

            def batch(epoch: int, number: int) -> Batch:
                # Keras asks ahead, past the last step too.
                step = min(epoch * epochs.length + number, plan.steps - 1)
                return batches.get(*divmod(step, numbered))

            def save(network: keras.Model) -> None:
                kept = Checkpoint(done, identity, plan.model_dump_json(), captured(network))
                write_checkpoint(place.last, kept)
                unfinished.keep(place.last.parent, HOW)

            if overwrite:
                place.give_up()
            if curves:
                board = tensorboard(place.path / "tensorboard", anew=start is None)
                callbacks = [*callbacks, board]
            ending = fit_rest(
                fitted,
                PatchBatches(batch, epochs.length, outputs, flags),
                None if held_out is None else PatchBatches(held_out.get, count, outputs, flags),
                done,
                epochs=epochs,
                log=pending.path(LOG),
                metrics=metrics,
                validation=None
                if held_out is None
                else Validation(done, model, place.best, patience, epochs),
                saving=Saving(
                    done,
                    save,
                    epochs=epochs,
                    every_steps=checkpoint_steps,
                    every_minutes=checkpoint_minutes,
                    max_minutes=max_minutes,
                ),
                callbacks=callbacks,
                tell=_told(progress, tell),
            )
            require_finite(model)
            write_results(pending, place, model, spec, plan, done, ending, identity)
            if ending != "time":
                place.remove_checkpoint()
                unfinished.release(place.last.parent)
        return run_of(place)


def _check(model: FocalUNet, spec: DatasetSpec, plan: Plan, patience: int | None) -> None:
    if (
        model.card.task != plan.card.task
        or model.card.class_values.tolist() != plan.card.class_values.tolist()
        or [channel.name for channel in model.card.channels]
        != [channel.name for channel in plan.card.channels]
    ):
        raise ModelError(
            "the model's card names other classes or channels than the plan, or another task; make "
            "the model with FocalUNet.from_plan(spec, plan)"
        )
    if patience is not None and not spec.all_regions.get("val"):
        raise SpecError(
            f"patience {patience} needs a score to wait for, and spec {spec.name!r} has no regions "
            "in split 'val': add them, or leave patience out"
        )


def _told(
    progress: Callable[[int, int], None] | None, tell: Callable[[StepReport], None] | None
) -> Callable[[StepReport], None]:
    """Return one function for both ways of being told."""

    def told(report: StepReport) -> None:
        if progress is not None and not report.complete:
            progress(report.step, report.steps)
        if tell is not None:
            tell(report)

    return told
