"""Which models can be exported, and their float32 form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from segfocal.errors import ModelError, SegfocalError
from segfocal.models import FocalUNet

__all__ = ["as_float32", "converting", "require_exportable"]


def require_exportable(model: Any) -> None:
    """Raise ``ModelError`` for models and backends that cannot be exported."""
    if not isinstance(model, FocalUNet):
        raise ModelError(
            f"{type(model).__name__}: cannot be exported; expected a segfocal.FocalUNet or its "
            ".keras file"
        )
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export needs the TensorFlow backend; Keras runs on {keras.backend.backend()} here: "
            "save the model and export the file with KERAS_BACKEND=tensorflow"
        )
    inputs = set(model.input)
    if inputs != {"image", "valid"}:
        raise ModelError(
            f"a model with the inputs {', '.join(sorted(inputs))} cannot be exported yet; expected "
            'image and valid alone: of a frozen context take model.with_global_context("local")'
        )


def as_float32(model: FocalUNet) -> FocalUNet:
    """Return a copy of a model that computes in float32 throughout."""
    copy = type(model).from_config({**model.get_config(), "dtype": "float32"})
    for target, source in zip(copy.weights, model.weights, strict=True):
        target.assign(source)
    other = {layer.compute_dtype for layer in _leaves(copy)} - {"float32"}
    if other:
        raise ModelError(
            f"the model's encoder computes in {', '.join(sorted(other))} and cannot be made "
            "float32; expected a FocalNet, or an encoder with the dtype policy float32"
        )
    return copy


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        elif layer.weights:
            yield layer


@contextlib.contextmanager
def converting(what: str) -> Iterator[None]:
    """Turn whatever a converter raises into a ``ModelError`` of one line."""
    try:
        yield
    except (SegfocalError, OSError, MemoryError):
        raise
    except Exception as error:  # converters raise kinds of their own
        lines = [*str(error).strip().splitlines(), type(error).__name__]
        raise ModelError(f"the model cannot be converted to {what}: {lines[0]}") from error
