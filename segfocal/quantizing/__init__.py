"""Quantization: a model in int8, calibrated on the user's scans, and what it loses.

:func:`quantize` writes an OpenVINO model whose dense layers and convolutions compute in
int8. What that costs is measured: on tiles that were not calibrated with, against the labels
of the float model; and against a dataset's labels, where a spec is given.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX
from segfocal.card_files import ModelFacts
from segfocal.confusion import (
    accuracy,
    class_dice,
    class_iou,
    confusion_matrix,
    mean_over_classes,
    region_matrices,
)
from segfocal.data.spec import DatasetSpec
from segfocal.engine.engines import in_engine
from segfocal.engine.exported_model import PROBABILITIES
from segfocal.engine.job import Sides
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.errors import ModelError, OutputError
from segfocal.exporting.ir import write_ir
from segfocal.io import PendingOutput, ScanPath
from segfocal.io.pending import writing
from segfocal.quantizing.calibration_tiles import Tile, sample_tiles
from segfocal.quantizing.network import quantized_network

__all__ = ["Quantization", "Scores", "quantize"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Scores:
    """Scores of a label map.

    Attributes:
        accuracy: Share of pixels that are right.
        mean_iou, mean_dice: Means over the classes that occur.
    """

    accuracy: float
    mean_iou: float
    mean_dice: float

    @classmethod
    def of(cls, matrix: NDArray[np.int64]) -> Scores:
        """Return the scores of a confusion matrix."""
        iou, dice = class_iou(matrix), class_dice(matrix)
        return cls(accuracy(matrix), mean_over_classes(iou), mean_over_classes(dice))


@dataclass(frozen=True)
class Quantization:
    """What a quantization has written and what it loses.

    Attributes:
        output: The ``.xml``; a ``.bin`` lies beside it.
        tiles: Tiles it was calibrated with.
        against_float: Its labels, scored as if those of the float model were the truth, on
            tiles it was not calibrated with.
        float_scores, int8_scores: Both models against the labels of a split; None without a
            spec.
        seconds: Wall time.
    """

    output: Path
    tiles: int
    against_float: Scores
    float_scores: Scores | None
    int8_scores: Scores | None
    seconds: float


def quantize(
    model: Any,
    scans: ScanPath | Sequence[ScanPath],
    out: str | Path,
    *,
    spec: DatasetSpec | None = None,
    split: str = "test",
    tiles: int = 64,
    tile: Sides | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Quantization:
    """Write a model that computes in int8, calibrated on tiles of scans.

    :func:`~segfocal.predict` runs the result with OpenVINO, without TensorFlow.

    Args:
        model: A :class:`~segfocal.FocalUNet`, its ``.keras`` file, or an OpenVINO ``.xml``.
        scans: Paths of scans such as the model is for; labels are not needed.
        out: ``.xml``; a ``.bin`` is written beside it.
        spec: A dataset to score both models on, as :func:`~segfocal.evaluate` does.
        split: Split of the dataset.
        tiles: Tiles to calibrate with, spread evenly over the scans; as many others are
            compared on.
        tile: Side lengths of a tile in pixels; left out, the model's.
        overwrite: Replace an existing output.
        progress: Called with the name of each step as it begins.

    Raises:
        ModelError: The model cannot be quantized, or NNCF or OpenVINO is not installed.
        OutputError: ``out`` cannot be written, exists, or does not end in ``.xml``.
        ScanError, ChannelError, GeometryError: A scan does not fit the model.
    """
    started = time.monotonic()
    out, say = Path(out), progress or (lambda step: None)
    if out.suffix.lower() != ".xml":
        raise OutputError(f"{out}: ends in {out.suffix or 'no suffix'}; expected .xml")
    missing = [name for name in ("nncf", "openvino") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"quantization needs {' and '.join(missing)}, not installed here; install the extra: "
            "pip install 'segfocal[quantize]'"
        )
    if tiles < 1:
        raise ModelError(f"tiles {tiles}; expected at least 1 to calibrate with")
    paths = [scans] if isinstance(scans, str | os.PathLike) else list(scans)
    with PendingOutput(out, overwrite=overwrite) as pending:
        plain = in_engine(model, "openvino", tell=say)
        if not isinstance(plain, OpenVINOPredictor) or plain.precision != "float32":
            raise ModelError("the model is quantized already; expected one in float32")
        say("reading tiles")
        sample = sample_tiles(plain, paths, tile, tiles)
        say(f"calibrating with {len(sample.calibration)} tiles")
        network = quantized_network(plain.network, sample.calibration)
        facts = ModelFacts(
            "openvino",
            plain.card,
            plain.output_stride,
            PROBABILITIES,
            plain.hash,
            global_context=plain.global_context,
            precision="int8",
        )
        with writing(out):
            write_ir(network, facts, pending)
        quantized = OpenVINOPredictor(pending.main)
        say("comparing with the float model")
        against_float = _compare(plain, quantized, sample.comparison)
        float_scores = int8_scores = None
        if spec is not None:
            say(f"scoring both models on split {split}")
            float_scores = _score(plain, spec, split, tile)
            int8_scores = _score(quantized, spec, split, tile)
        pending.commit()
    return Quantization(
        output=out,
        tiles=len(sample.calibration),
        against_float=against_float,
        float_scores=float_scores,
        int8_scores=int8_scores,
        seconds=time.monotonic() - started,
    )


def _compare(plain: OpenVINOPredictor, other: OpenVINOPredictor, tiles: list[Tile]) -> Scores:
    num_classes, overlapping = plain.card.num_classes, plain.card.task == "regions"
    matrix = np.zeros((num_classes, 2, 2) if overlapping else (num_classes,) * 2, np.int64)
    for values, valid in tiles:
        labels = []
        for predictor in (plain, other):
            found = predictor(values[None], valid[None])[0]
            if overlapping:
                labels.append(np.where(valid[..., None], found > 0.5, IGNORE_INDEX))
            else:
                labels.append(np.where(valid, found.argmax(-1), IGNORE_INDEX))
        if overlapping:
            matrix += region_matrices(labels[0], labels[1])
        else:
            matrix += confusion_matrix(labels[0], labels[1], num_classes)
    return Scores.of(matrix)


def _score(
    predictor: OpenVINOPredictor, spec: DatasetSpec, split: str, tile: Sides | None
) -> Scores:
    # Imports data and training code, which a quantization without spec does not need.
    from segfocal.evaluation import evaluate

    with tempfile.TemporaryDirectory() as folder:
        return Scores.of(evaluate(predictor, spec, split, out=folder, tile=tile).matrix)
