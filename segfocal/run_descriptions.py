"""What the results of a run over many scans follow from, besides the scans."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfocal.engine.keras_archive import hash_archive
from segfocal.engine.predictors import as_predictor
from segfocal.engine.provenance import file_digest
from segfocal.errors import SegfocalError
from segfocal.prediction import predict

__all__ = ["describe_run", "differing"]

_NO_MATTER = frozenset(
    ("batch_size", "max_memory", "model_name", "assemble_only", "overwrite", "progress", "notice")
)
"""Arguments of :func:`~segfocal.predict` that results do not follow from."""


def describe_run(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results of a run follow from besides the scans, as a JSON value.

    Args:
        model: One or a list of them, each a path or an object.
        options: Arguments of :func:`~segfocal.predict`; those left out count as given with their
            defaults.
    """
    models = model if isinstance(model, list | tuple) else [model]
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(predict).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    parameters = {
        # Of options that may be given several times, none is an empty list for the command.
        name: None if value in ((), []) else value
        for name, value in {**known, **options}.items()
        if name not in _NO_MATTER
    }
    return {
        "models": [_name(one) for one in models],
        "model_hashes": [_hash(one) for one in models],
        "parameters": json.loads(json.dumps(parameters, default=str)),
    }


def differing(before: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Return in words what an earlier run had that this one has not; nothing if there is none."""
    if _models(before) != _models(run):
        return f"another model ({' + '.join(before['models'])})"
    then, now = before["parameters"], run["parameters"]
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if not names:
        return ""
    return "other parameters: " + ", ".join(f"{one} {then.get(one)}" for one in names)


def _models(run: Mapping[str, Any]) -> list[str]:
    pairs = zip(run["model_hashes"], run["models"], strict=True)
    return [digest or name for digest, name in pairs]


def _name(model: Any) -> str:
    is_path = isinstance(model, str | os.PathLike)
    return os.path.abspath(model) if is_path else type(model).__name__


def _hash(model: Any) -> str | None:
    """Return a hash of what a model is; None where it has none, or its file cannot be read."""
    try:
        if not isinstance(model, str | os.PathLike):
            return as_predictor(model).hash
        path = Path(model)
        if path.suffix == ".keras":
            return hash_archive(path)
        weights = path.with_suffix(".bin")
        also = [file_digest(weights)] if path.suffix == ".xml" and weights.exists() else []
        return "+".join([file_digest(path), *also])
    except (OSError, SegfocalError):  # loading it tells
        return None
