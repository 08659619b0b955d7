"""Export: a trained model as a file for other programs, and for prediction without Keras.

:func:`export` writes a SavedModel, an ONNX file or an OpenVINO model. All take the inputs
``image`` and ``valid`` of any batch and any size, in the scan's own units, and return
``probabilities``; the card travels inside. Nothing is reported as done before the written
file has been loaded again and its results compared with those of the Keras model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from segfocal.card_files import SAVED_MODEL, read_card
from segfocal.engine.contexts import in_context
from segfocal.errors import ModelError, OutputError
from segfocal.exporting.ir import refuse_to_replace_weights
from segfocal.io import PendingOutput
from segfocal.io.pending_folder import PendingFolder
from segfocal.quiet import load_keras

__all__ = ["Export", "ExportFormat", "export"]

ExportFormat = Literal["saved_model", "onnx", "openvino"]

_SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}

_NEEDED: dict[ExportFormat, tuple[str, ...]] = {
    "saved_model": (),
    "onnx": ("onnx", "tf2onnx"),
    "openvino": ("openvino",),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Export:
    """What an export has written and how near it is to the Keras model.

    Attributes:
        output: The file, or the folder of a SavedModel.
        format: Its format.
        engine: What ran it for the comparison, such as ``"openvino 2026.4.1 float32"``.
        difference: Largest difference of a probability from the Keras model's.
        log_difference: The same of their logarithms, which are the logits less a number per
            pixel; relative to the largest where that exceeds 1.
        seconds: Wall time.
    """

    output: Path
    format: ExportFormat
    engine: str
    difference: float
    log_difference: float
    seconds: float


def export(
    model: Any,
    out: str | Path,
    *,
    format: ExportFormat | None = None,
    global_context: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Export a model; the output appears only when it gives what the Keras model gives.

    The exported network takes ``image`` ``(batch, *space, channels)`` float32 in the scan's
    own units and ``valid`` ``(batch, *space)`` boolean (False where the image has no data;
    what stands there, NaN too, has no effect), and returns ``probabilities``
    ``(batch, *space, num_classes)`` float32. Batch and space are free. A model of mixed
    precision is exported in float32.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one.
        out: ``.onnx`` for ONNX, ``.xml`` for OpenVINO (a ``.bin`` is written beside it); the
            path of a new folder for a SavedModel.
        format: ``"saved_model"``, ``"onnx"`` or ``"openvino"``; left out, as the suffix of
            ``out`` says.
        global_context: What the exported network's last focal level averages: ``"tile"``,
            ``"local"`` or ``"none"``; left out, as the model was made. A frozen context cannot be
            exported: it belongs to a scan.
        overwrite: Replace an existing output.
        progress: Called with the name of each step as it begins.

    Raises:
        ModelError: The model cannot be exported, what the format needs is not installed, or
            the written file differs by more than 1e-4; nothing is left at ``out`` then.
        OutputError: ``out`` cannot be written, exists, or has the wrong suffix.
    """
    started = time.monotonic()
    out = Path(out)
    kind = _format(out, format)
    _require_installed(kind)
    say = progress or (lambda step: None)
    pending: PendingOutput
    if kind == "saved_model":
        pending = PendingFolder(out, overwrite=overwrite, marker=SAVED_MODEL)
    else:
        pending = PendingOutput(out, overwrite=overwrite)
    if kind == "openvino":
        refuse_to_replace_weights(out, overwrite=overwrite)
    with pending:
        if isinstance(model, str | Path):
            read_card(model)  # before Keras is loaded: a wrong path should not cost seconds
        say("loading the model")
        load_keras()
        # Imports Keras, which takes seconds: a wrong path should not.
        from segfocal.exporting.conversion import write_and_compare

        if global_context is not None:
            model = in_context(model, global_context)
        written = write_and_compare(model, pending, kind, say)
        pending.commit()
    return Export(
        out,
        kind,
        written.engine,
        written.difference.probabilities,
        written.difference.log_probabilities,
        time.monotonic() - started,
    )


def _format(out: Path, format: str | None) -> ExportFormat:
    by_suffix = {suffix: name for name, suffix in _SUFFIXES.items()}
    suffix = out.suffix.lower()
    if format is None:
        if suffix not in by_suffix:
            raise OutputError(
                f"{out}: the suffix names no format; expected .onnx or .xml, or one of the formats "
                f"{', '.join(get_args(ExportFormat))}"
            )
        return by_suffix[suffix]
    if format not in get_args(ExportFormat):
        raise OutputError(
            f"format {format!r} is unknown; expected one of {', '.join(get_args(ExportFormat))}"
        )
    expected = _SUFFIXES.get(format)  # type: ignore[call-overload]
    if expected is not None and suffix != expected:
        raise OutputError(f"{out}: ends in {suffix or 'no suffix'}; expected {expected} ({format})")
    if expected is None and suffix in (*by_suffix, ".keras"):
        raise OutputError(
            f"{out}: ends in {suffix}; a SavedModel is a folder: choose a name without suffix"
        )
    return format  # type: ignore[return-value]


def _require_installed(format: ExportFormat) -> None:
    missing = [name for name in _NEEDED[format] if find_spec(name) is None]
    if format == "onnx" and find_spec("onnxruntime") is None and find_spec("openvino") is None:
        missing.append("onnxruntime")
    if missing:
        raise ModelError(
            f"export to {format} needs {' and '.join(missing)}, not installed here; install the "
            f"extra: pip install 'segfocal[{format}]'"
        )
