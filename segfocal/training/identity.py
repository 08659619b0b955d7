"""What a run follows from, so that it is resumed with the same and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from segfocal.data.plan import Plan
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.models import FocalUNet

__all__ = ["check_identity", "identity_of"]

# They explain; nothing follows from them.
PROSE = {
    "spec": {"description", "licence", "citation", "source", "verified", "verified_by"},
    "plan": {"reasons", "fingerprint", "class_pixels"},
}

SHORT = 60
"""Values with at most this many characters are kept as they are, others as a digest."""


def identity_of(
    spec: DatasetSpec,
    plan: Plan,
    model: FocalUNet,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    encoder: str | Path | None = None,
) -> dict[str, str]:
    """Return what a run follows from, part by part: values, or digests of long ones.

    Where the data lies is not part of it: it may have been moved.
    """
    parts: dict[str, Any] = {
        **_parts("spec", spec.model_dump(mode="json")),
        **_parts("plan", plan.model_dump(mode="json")),
        "model": _model(model),
        "optimizer": _described(optimizer),
        "loss": _described(loss),
        "encoder": None if encoder is None else _digest_of_file(encoder),
        "backend": keras.backend.backend(),
    }
    return {name: _text(value) for name, value in parts.items()}


def check_identity(now: Mapping[str, str], then: Mapping[str, str], where: Path) -> None:
    """Refuse to resume a run with something else than it was started with.

    Raises:
        SpecError: Something differs; the message names it.
    """
    changed = [name for name in {**then, **now} if now.get(name) != then.get(name)]
    if changed:
        name = changed[0]
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise SpecError(
            f"{where}: the run was started with another {name}: {then.get(name, 'nothing')}, now "
            f"{now.get(name, 'nothing')}{more}; expected the same: mend it, or resume all the same "
            "with allow_changes=True (--allow-changes)"
        )


def _parts(what: str, document: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{what}.{key}": value for key, value in document.items() if key not in PROSE[what]}


def _model(model: FocalUNet) -> Any:
    config = {**model.get_config(), "card": None}  # which is the plan's
    if "class_name" in (config.get("encoder") or {}):  # a Keras model: its layers' names vary
        config["encoder"] = [list(weight.shape) for weight in model.encoder.weights]
    return config


def _described(thing: Any) -> Any:
    try:
        return _without_names(keras.saving.serialize_keras_object(thing))
    except (TypeError, ValueError, NotImplementedError):  # one of the user's, not made to be saved
        return type(thing).__name__


def _without_names(value: Any) -> Any:
    """Return a config without names, which count how many of a kind the process has made."""
    if isinstance(value, dict):
        return {key: _without_names(one) for key, one in value.items() if key != "name"}
    return [_without_names(one) for one in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    if len(text) <= SHORT:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _digest_of_file(path: str | Path) -> str:
    path = Path(path)
    if not path.is_file():
        return str(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
