"""Reading the card, and what else prediction needs to know, from files of models.

No runtime is loaded for it: a ``.keras`` file is a zip archive with a ``config.json``, an
OpenVINO model is XML, an ONNX model is a protobuf message whose metadata are found by
walking over its top level, and a SavedModel is a folder with a JSON document of ours.

Exported models carry the same facts under the same names in each format::

    card           the card, as JSON
    output_stride  total downsampling of the network
    output         what the network returns: "probabilities"
    model_hash     hash of the Keras model it was made from
    weights_hash   sha256 of an OpenVINO model's .bin
    content_hash   sha256 of an ONNX file without this entry
    global_context what the network's last focal level averages
    precision      "int8" of a quantized model; left out: "float32"
    work           multiply-accumulate operations per pixel of encoder and decoder, as JSON
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any, Literal

from segfocal.card import Card
from segfocal.errors import ModelError
from segfocal.onnx_metadata import read_onnx_metadata

__all__ = [
    "CONTENT_HASH",
    "ENCODER_FACTS",
    "PREFIX",
    "SAVED_MODEL",
    "SAVED_MODEL_FACTS",
    "ModelFacts",
    "ModelFormat",
    "is_exported_model",
    "read_card",
    "read_encoder_facts",
    "read_facts",
]

ModelFormat = Literal["keras", "saved_model", "onnx", "openvino"]

SAVED_MODEL = "saved_model.pb"
"""Name of the file that makes a folder a SavedModel."""

SAVED_MODEL_FACTS = "assets.extra/segfocal.json"
"""Where a SavedModel folder holds the facts: TensorFlow keeps that folder for such things."""

ENCODER_FACTS = "segfocal_encoder.json"
"""Entry of the ``.keras`` archive of a converted encoder that says where it comes from."""

PREFIX = "segfocal."
"""Start of the keys in the metadata of ONNX files, which all programs share."""

CONTENT_HASH = f"{PREFIX}content_hash"
"""Key in the metadata of an ONNX file of the hash of everything else in it."""


@dataclass(frozen=True)
class ModelFacts:
    """What a file of a model says about itself.

    Attributes:
        format: Kind of file.
        card: The card.
        output_stride: Total downsampling; None for ``.keras``, whose layers say it.
        output: What the network returns; ``"logits"`` for ``.keras``.
        model_hash: Hash of the Keras model an exported file was made from, else None.
        global_context: What the last focal level averages, where that is known.
        weights_hash: sha256 of the ``.bin`` that belongs to an OpenVINO ``.xml``, else None.
        precision: ``"float32"``, or ``"int8"`` of a quantized model.
        content_hash: sha256 of an ONNX file without the entry that holds it; None for others,
            and for files of earlier versions.
        work: Multiply-accumulate operations per pixel of ``encoder`` and ``decoder``; None for
            ``.keras``, whose config says it, and where it is not known.
    """

    format: ModelFormat
    card: Card
    output_stride: int | None = None
    output: str = "logits"
    model_hash: str | None = None
    weights_hash: str | None = None
    global_context: str | None = None
    precision: str = "float32"
    content_hash: str | None = None
    work: Mapping[str, float] | None = None

    def texts(self) -> dict[str, str]:
        """Return the facts as an exported file holds them."""
        values = {
            "card": self.card.model_dump_json(),
            "output_stride": str(self.output_stride),
            "output": self.output,
            "model_hash": self.model_hash,
            "weights_hash": self.weights_hash,
            "global_context": self.global_context,
            "precision": None if self.precision == "float32" else self.precision,
            "content_hash": self.content_hash,
            "work": None if self.work is None else json.dumps(dict(self.work)),
        }
        return {key: value for key, value in values.items() if value is not None}


def read_card(path: str | Path) -> Card:
    """Read the card of a model without Keras or another runtime.

    Args:
        path: A ``.keras``, ``.onnx`` or ``.xml`` file or a SavedModel folder.

    Raises:
        ModelError: The file is missing, damaged, or holds no card.
    """
    return read_facts(path).card


def read_facts(path: str | Path) -> ModelFacts:
    """Read what a model says about itself, without Keras or another runtime.

    Args:
        path: A ``.keras``, ``.onnx`` or ``.xml`` file or a SavedModel folder.

    Raises:
        ModelError: The file is missing, damaged, or holds no card.
    """
    path = Path(path)
    if isfile(path / SAVED_MODEL):
        return _facts(path, "saved_model", _saved_model_texts(path))
    if not isfile(path):
        raise ModelError(
            f"{path}: {_why_no_file(path)}; expected a model saved by segfocal (.keras, .onnx or "
            ".xml)"
        )
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return _facts(path, "openvino", _openvino_texts(path))
    if suffix == ".onnx":
        pairs = read_onnx_metadata(path)
        ours = {key.removeprefix(PREFIX): pairs[key] for key in pairs if key.startswith(PREFIX)}
        return _facts(path, "onnx", ours)
    return ModelFacts("keras", _keras_card(path))


def _why_no_file(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "is a folder and no SavedModel"


def read_encoder_facts(path: str | Path) -> dict[str, Any] | None:
    """Return what `segfocal convert-weights` says of an encoder; None for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read(ENCODER_FACTS))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return found if isinstance(found, dict) else None


def is_exported_model(path: str | Path) -> bool:
    """Say whether a path is an exported model by its looks; scans may end in ``.xml`` too."""
    path = Path(path)
    if path.suffix.lower() == ".onnx" or isfile(path / SAVED_MODEL):
        return True
    if path.suffix.lower() != ".xml" or not isfile(path):
        return False
    with path.open("rb") as file:
        return b"<net" in file.read(1024)


def _facts(path: Path, format: ModelFormat, texts: Mapping[str, str]) -> ModelFacts:
    if "card" not in texts:
        raise ModelError(
            f"{path}: a model without a segfocal card; expected one made by `segfocal export`"
        )
    try:
        card = json.loads(texts["card"])
        stride = int(texts["output_stride"])
        if stride < 1:
            raise ValueError(f"output_stride {stride}")
        work = {part: float(macs) for part, macs in json.loads(texts.get("work", "{}")).items()}
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: the facts beside its card are damaged ({_line(error)}); export it again"
        ) from error
    return ModelFacts(
        format,
        Card.from_json(card, str(path)),
        output_stride=stride,
        output=texts.get("output", ""),
        model_hash=texts.get("model_hash"),
        weights_hash=texts.get("weights_hash"),
        global_context=texts.get("global_context"),
        precision=texts.get("precision", "float32"),
        content_hash=texts.get("content_hash"),
        work=work or None,
    )


def _keras_card(path: Path) -> Card:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: not a Keras model archive ({error}); expected a .keras file saved by segfocal"
        ) from error
    inner = config.get("config") if isinstance(config, dict) else None
    card = inner.get("card") if isinstance(inner, dict) else None
    if card is None:
        if read_encoder_facts(path) is not None:
            raise ModelError(
                f"{path}: is an encoder alone; expected a whole model: give its weights to a "
                "FocalUNet with segfocal.load_encoder and train that"
            )
        raise ModelError(
            f"{path}: a Keras model without a segfocal card; expected a model made by "
            "segfocal.FocalUNet or `segfocal train`"
        )
    return Card.from_json(card, str(path))


def _openvino_texts(path: Path) -> dict[str, str]:
    """Return the children of ``net/rt_info/segfocal`` of an OpenVINO model."""
    texts: dict[str, str] = {}
    place: list[str] = []
    try:
        with path.open("rb") as file:
            # Layer by layer: the file describes every operation of the network.
            for event, element in ElementTree.iterparse(file, events=("start", "end")):
                if event == "start":
                    place.append(element.tag)
                    if len(place) == 1 and element.tag != "net":
                        raise ModelError(
                            f"{path}: XML of something else (<{element.tag}>); expected an "
                            "OpenVINO model made by `segfocal export`"
                        )
                    continue
                if place[:-1] == ["net", "rt_info", "segfocal"]:
                    texts[element.tag] = element.get("value", "")
                place.pop()
                element.clear()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{path}: damaged or no OpenVINO model ({_line(error)}); export it again"
        ) from error
    return texts


def _saved_model_texts(path: Path) -> dict[str, str]:
    place = path / SAVED_MODEL_FACTS
    if not isfile(place):
        return {}
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return {key: str(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{place}: damaged ({_line(error)}); export the model again") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
