"""Identity of a model: the hash of what it computes, and by what it is computed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from segfocal.engine.predictors import Predictor

__all__ = ["ModelIdentity", "model_identity"]


@dataclass(frozen=True)
class ModelIdentity:
    """What tells a predictor from others.

    Attributes:
        hash: Hash of config and weights.
        engine: Engine, version, precision.
        batch_matters: Whether results may differ in the last bits with the batch size.
    """

    hash: str
    engine: str
    batch_matters: bool


def model_identity(predictor: Predictor) -> ModelIdentity:
    """Return the identity of a predictor.

    A predictor may say it itself, by attributes ``hash``, ``engine`` and ``batch_matters``
    (True when left out). One that does not is like no other: its runs are not continued.
    """
    known = getattr(predictor, "hash", None)
    engine = getattr(predictor, "engine", None)
    return ModelIdentity(
        hash=str(known) if known else f"unknown-{secrets.token_hex(16)}",
        engine=str(engine or type(predictor).__name__),
        batch_matters=bool(getattr(predictor, "batch_matters", True)),
    )
