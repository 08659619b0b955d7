"""Which engine runs a model: Keras, or OpenVINO or ONNX Runtime after a conversion.

A ``.keras`` file is converted once; the cache (:mod:`~segfocal.engine.model_cache`) has it
for later runs, which then load neither TensorFlow nor Keras. The conversion compares what it
wrote with Keras, so that the engines agree within 1e-4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from segfocal.engine.contexts import in_context
from segfocal.engine.exported_model import Conversion
from segfocal.engine.keras_archive import hash_archive
from segfocal.engine.model_cache import ModelCache, cache_folder, cache_key, installed_version
from segfocal.engine.onnx_predictor import ONNXPredictor
from segfocal.engine.openvino_predictor import (
    OpenVINOPredictor,
    Precision,
    lanes_asked,
    require_precision,
)
from segfocal.engine.predictors import as_predictor, load_model
from segfocal.engine.provenance import read_provenance
from segfocal.engine.scratch import kept_fingerprint
from segfocal.errors import ModelError, NotConvertibleError, OutputError
from segfocal.quiet import keras_backend

__all__ = ["Engine", "in_engine"]

Engine = Literal["auto", "keras", "openvino", "onnxruntime"]

Tell = Callable[[str], None]

_SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
_TITLE = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
_KERAS_BACKENDS = ("tensorflow", "jax", "torch")
_NAMES = {"keras": _KERAS_BACKENDS, "openvino": ("openvino",), "onnxruntime": ("onnxruntime",)}
_GPUS = ("/dev/nvidiactl", "/dev/kfd")


def in_engine(
    model: Any,
    engine: Engine = "auto",
    *,
    precision: Precision = "float32",
    global_context: str | None = None,
    destinations: Iterable[Path] = (),
    tell: Tell | None = None,
) -> Any:
    """Return a model as the engine that was asked for runs it.

    Args:
        model: Anything that :func:`~segfocal.stream` takes.
        engine: ``"auto"``: OpenVINO for the path of a ``.keras`` file, where it is installed,
            no GPU is there, and the model can be converted; everything else as it is. The
            environment variable ``SEGFOCAL_ENGINE`` may say what ``"auto"`` means.
        precision: ``"bfloat16"`` is for OpenVINO only.
        global_context: See :func:`~segfocal.stream`.
        destinations: Outputs; one that the same model has begun in Keras is continued so.
        tell: Called with a line when a model is converted, why it is not, or that another run
            which converts it is waited for.

    Raises:
        ModelError: The engine is not installed or cannot run the model, or ``SEGFOCAL_LANES`` is
            no number.
    """
    if isinstance(model, list | tuple):
        kinds: dict[str, Any] = {"precision": precision, "global_context": global_context}
        kinds |= {"destinations": [*destinations], "tell": tell}
        return [in_engine(one, engine, **kinds) for one in model]
    _check(engine, precision)
    if isinstance(model, str | Path) and Path(model).suffix.lower() in (".xml", ".onnx"):
        return in_context(_exported(Path(model), engine, precision), global_context)
    is_keras = isinstance(model, str | Path) or hasattr(model, "predict_on_batch")
    if not is_keras and (engine == "auto" or _is_run_by(model, engine)):
        return in_context(model, global_context)
    if not is_keras:
        raise ModelError(
            f"{type(model).__name__} cannot be run by {engine}; expected a segfocal model or its "
            "file, or the engine auto"
        )
    if engine == "auto" and os.environ.get("SEGFOCAL_ENGINE"):
        engine = os.environ["SEGFOCAL_ENGINE"]  # type: ignore[assignment]
        _check(engine, precision)
    if engine == "auto":
        return _automatic(model, precision, global_context, [*destinations], tell)
    if engine == "keras":
        return in_context(model, global_context)
    return _converted(model, engine, precision, global_context, tell)


def _check(engine: str, precision: str) -> None:
    lanes_asked()  # or a wrong one would only make "auto" fall back to Keras
    for what, value, choices in (
        ("engine", engine, get_args(Engine)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in choices:
            raise ModelError(f"{what} {value!r} is unknown; expected one of {', '.join(choices)}")
    if engine in ("keras", "onnxruntime") and precision != "float32":
        raise ModelError(f"precision {precision} is for OpenVINO; expected engine openvino")


def _is_run_by(model: Any, engine: str) -> bool:
    return str(getattr(model, "engine", "")).startswith(_NAMES[engine])


def _exported(path: Path, engine: Engine, precision: Precision) -> Any:
    if engine == "openvino" or (path.suffix.lower() == ".xml" and precision != "float32"):
        return OpenVINOPredictor(path, precision)
    if engine == "auto" and precision == "float32":
        return load_model(path)
    if engine == "onnxruntime" and path.suffix.lower() == ".onnx":
        return ONNXPredictor(path)
    raise ModelError(
        f"{path}: an exported model is not run by {engine} in {precision}; expected OpenVINO for "
        ".xml, OpenVINO or ONNX Runtime for .onnx"
    )


def _automatic(
    model: Any,
    precision: Precision,
    global_context: str | None,
    destinations: list[Path],
    tell: Tell | None,
) -> Any:
    """Return a model in OpenVINO if nothing speaks against it, else in Keras."""
    reason = None if precision != "float32" else _against_openvino(model, global_context)
    if reason is None:
        try:
            found = _converted(model, "openvino", precision, global_context, tell)
        except (ModelError, OutputError) as error:
            if precision != "float32":
                raise
            lasting = isinstance(error, NotConvertibleError)
            failed = "it cannot be converted to" if lasting else "this time it cannot be run by"
            reason = f"runs in Keras, for {failed} OpenVINO: {error}"
        else:
            if not _begun_in_keras(found.hash, destinations):
                return found
            reason = "goes on in Keras, in which the output was begun"
    found = in_context(model, global_context)  # what is no model has a message of its own
    if tell is not None and reason:
        tell(f"{Path(model).name}: {reason}" if isinstance(model, str | Path) else reason)
    return found


def _against_openvino(model: Any, global_context: str | None) -> str | None:
    """Return what speaks against OpenVINO: "" when that need not be said, None for nothing."""
    if not isinstance(model, str | Path):
        return ""  # Keras is loaded, and the model may be trained on
    if find_spec("openvino") is None or keras_backend() != "tensorflow":
        return ""
    if global_context == "frozen":
        return "runs in Keras, for a frozen context cannot be converted to OpenVINO"
    if any(Path(place).exists() for place in _GPUS):
        return "runs in Keras, for there is a GPU"
    return None


def _begun_in_keras(model_hash: str, destinations: list[Path]) -> bool:
    for destination in destinations:
        for about in (kept_fingerprint(destination), read_provenance(destination)):
            if about and about.get("model") == model_hash:
                return str(about.get("engine", "")).startswith(_KERAS_BACKENDS)
    return False


def _converted(
    model: Any,
    engine: Engine,
    precision: Precision,
    global_context: str | None,
    tell: Tell | None,
) -> OpenVINOPredictor | ONNXPredictor:
    """Return the predictor of a converted model, from the cache when it is there."""
    suffix, package = _SUFFIX[engine], engine
    if find_spec(package) is None:
        extra = "openvino" if engine == "openvino" else "onnx"
        raise ModelError(
            f"{_TITLE[engine]} is not installed; install the extra: pip install 'segfocal[{extra}]'"
        )
    require_precision(precision)  # or a conversion would be made for nothing
    cache = ModelCache(cache_folder())
    digest = hash_archive(Path(model)) if isinstance(model, str | Path) else _hash(model)
    key = cache_key(digest, suffix, global_context)
    path = cache.find(key, suffix)
    if path is not None:
        try:
            return _load(path, precision)
        except ModelError:
            if cache.is_whole(key):  # then it is not to be mended by making it again
                raise
            cache.drop(key)
    name = Path(model).name if isinstance(model, str | Path) else "the model"

    def say(text: str) -> None:
        if tell is not None:
            tell(f"{name}: {text}")

    def convert(place: Path) -> None:
        from segfocal.exporting import export

        say(f"is prepared for {_TITLE[engine]}, once; this takes up to a minute")
        export(model, place, global_context=global_context)

    def waiting() -> None:
        say(f"waits for another run that is preparing it for {_TITLE[engine]}")

    return _load(cache.make(key, suffix, convert, waiting), precision)


def _load(path: Path, precision: Precision) -> OpenVINOPredictor | ONNXPredictor:
    conversion = Conversion(f"tensorflow {installed_version('tensorflow')}")
    if path.suffix == ".xml":
        return OpenVINOPredictor(path, precision, conversion)
    return ONNXPredictor(path, conversion)


def _hash(model: Any) -> str:
    found = as_predictor(model).hash
    if found is None:
        raise ModelError(f"{type(model).__name__} has no hash; expected a segfocal.FocalUNet")
    return found
