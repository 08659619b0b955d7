"""Checkpoints: all that a run needs to go on as if it had not been stopped.

One file holds the arrays and, as JSON in its header, what goes with them: it is replaced as a
whole, so that a run that is killed while writing leaves the one before.

What is kept are the variables of the network with the states of its seed generators (dropout,
stochastic depth), those of the optimizer (moments, averages of weights, iterations, of which the
learning rate is a function), and those of the metrics, which count over an epoch. A batch
follows from its epoch and number, so that the place in the data is the number of steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from segfocal import unfinished
from segfocal.engine.journal import sync_folder
from segfocal.errors import ModelError
from segfocal.io.pending import writing

__all__ = ["Checkpoint", "Progress", "captured", "read_checkpoint", "restore", "write_checkpoint"]

FORMAT = 1

Arrays = dict[str, NDArray[Any]]


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimizer steps taken.
        seconds: Time spent on them, in all processes that took part.
        lines: The log: a document for each epoch that is complete.
        best: Best score on the validation split so far.
        best_step: The step it was reached at.
        waited: Epochs since then.
    """

    step: int = 0
    seconds: float = 0.0
    lines: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    waited: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A run at a step.

    Attributes:
        progress: How far it has come.
        identity: What it follows from, see :mod:`segfocal.training.identity`.
        plan: Its plan, as JSON.
        arrays: Variables, by kind and number; empty when they were not asked for.
    """

    progress: Progress
    identity: Mapping[str, str]
    plan: str
    arrays: Arrays = field(default_factory=dict)


def captured(model: keras.Model) -> Arrays:
    """Return copies of all variables of a compiled model, by kind and number."""
    return {
        f"{kind}.{number:05d}": _array(variable)
        for kind, variables in _variables(model).items()
        for number, variable in enumerate(variables)
    }


def restore(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Set the variables of a compiled model and its optimizer; none when one does not fit.

    Returns:
        Those of the metrics, which come into being with the first batch.

    Raises:
        ModelError: They are those of another model or optimizer.
    """
    pairs = []
    kinds = _variables(model)
    del kinds["metrics"]
    for kind, variables in kinds.items():
        held = sum(name.startswith(f"{kind}.") for name in arrays)
        if held != len(variables):
            raise ModelError(
                f"the checkpoint has {held} variables of the {kind}; expected {len(variables)}: "
                "resume with the model and optimizer it was made with, or start anew with "
                "overwrite=True (--overwrite)"
            )
        for number, variable in enumerate(variables):
            array = arrays[f"{kind}.{number:05d}"]
            if array.shape != tuple(variable.shape):
                raise ModelError(
                    f"{variable.path} has shape {array.shape} in the checkpoint; expected "
                    f"{tuple(variable.shape)}: resume with the model it was made with, or start "
                    "anew with overwrite=True (--overwrite)"
                )
            pairs.append((variable, array))
    for variable, array in pairs:
        variable.assign(array)
    return [arrays[name] for name in sorted(arrays) if name.startswith("metrics.")]


def _variables(model: keras.Model) -> dict[str, Sequence[keras.Variable]]:
    return {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }


def _array(variable: keras.Variable) -> NDArray[Any]:
    # A copy: on PyTorch the array would share the variable's memory.
    array = np.array(keras.ops.convert_to_numpy(variable), order="C")
    # NumPy has no bfloat16 of its own; float32 holds all its values.
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a checkpoint in one step.

    Raises:
        OutputError: It cannot be written; the one before is kept.
    """
    about = {
        "format": FORMAT,
        "progress": asdict(checkpoint.progress),
        "identity": dict(checkpoint.identity),
        "plan": checkpoint.plan,
    }
    fresh = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.note(fresh)
        try:
            save_file(checkpoint.arrays, fresh, metadata={"segfocal": json.dumps(about)})
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
            unfinished.forget(fresh)
        sync_folder(path.parent)


def read_checkpoint(path: Path, *, arrays: bool = True) -> Checkpoint:
    """Read a checkpoint, or with ``arrays=False`` what goes with its arrays.

    Raises:
        ModelError: It is damaged, or of a newer version.
    """
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["segfocal"])
            if about["format"] != FORMAT:
                raise ModelError(
                    f"{path}: checkpoint format {about['format']}; expected {FORMAT}: resume with "
                    "the version of segfocal that wrote it"
                )
            held = {name: file.get_tensor(name) for name in file.keys()} if arrays else {}  # noqa: SIM118
        return Checkpoint(Progress(**about["progress"]), about["identity"], about["plan"], held)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        text = " ".join(str(error).split())
        raise ModelError(
            f"{path}: the checkpoint cannot be read ({text}); expected one that segfocal wrote: "
            "remove it, and train anew"
        ) from error
