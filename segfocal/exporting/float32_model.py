"""Which models can be exported, and their float32 form."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

import keras

from segfocal.errors import ModelError, NotConvertibleError, SegfocalError
from segfocal.models import FocalUNet

__all__ = ["as_float32", "converting", "require_exportable"]

_OF_OPENVINO = ("OpConversionFailure", "NotImplementedFailure")
"""What OpenVINO's messages say when its frontend does not know an operation."""

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
"""Errors of the system of which TensorFlow makes its own, with the system's text in them."""

_PREAMBLE = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't", "Summary:")


def require_exportable(model: Any) -> None:
    """Raise ``ModelError`` for models and backends that cannot be exported.

    Raises:
        NotConvertibleError: It is the model.
        ModelError: It is the backend.
    """
    if not isinstance(model, FocalUNet):
        raise NotConvertibleError(
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
        raise NotConvertibleError(
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
        raise NotConvertibleError(
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
    """Turn whatever a converter raises into a ``ModelError`` of one line.

    Raises:
        NotConvertibleError: The converter does not know an operation of the network.
        OSError: TensorFlow could not write.
        ModelError: Anything else, which may be of the moment: memory, a broken package.
    """
    try:
        yield
    except (SegfocalError, OSError, MemoryError):
        raise
    except Exception as error:  # converters raise kinds of their own
        for code in _OF_DISKS:
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        lines = [line.strip(" -") for line in str(error).splitlines()]
        telling = [line for line in lines if line and not line.startswith(_PREAMBLE)]
        text = (telling or [type(error).__name__])[0]
        if _is_of_the_network(error):
            raise NotConvertibleError(f"the model cannot be converted to {what}: {text}") from error
        raise ModelError(f"the conversion of the model to {what} failed: {text}") from error


def _is_of_the_network(error: Exception) -> bool:
    """Say whether a converter complains of an operation; a full disk is no reason to give up."""
    kind = type(error)
    if kind.__name__ == "ValidationError" and kind.__module__.startswith("onnx"):
        return True  # tf2onnx leaves what it does not know as it is
    return isinstance(error, NotImplementedError) or any(
        name in str(error) for name in _OF_OPENVINO
    )
