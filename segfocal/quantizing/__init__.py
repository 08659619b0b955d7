"""Quantization: a model in int8, calibrated on the user's scans, and what it loses.

:func:`quantize` writes an OpenVINO model whose dense layers and convolutions compute in
int8. What that costs is measured: on tiles that were not calibrated with, against the labels
of the float model; and against a dataset's labels, where a spec is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segfocal.card_files import ModelFacts
from segfocal.data.spec import DatasetSpec
from segfocal.engine.engines import in_engine
from segfocal.engine.exported_model import PROBABILITIES
from segfocal.engine.job import Sides
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.engine.resolution import Resample
from segfocal.errors import ModelError, OutputError, ScanError
from segfocal.exporting.ir import refuse_to_replace_weights, write_ir
from segfocal.io import PendingOutput, ScanPath
from segfocal.io.pending import writing
from segfocal.quantizing.calibration_tiles import sample_tiles
from segfocal.quantizing.comparison import Scores, against_labels, against_other
from segfocal.quantizing.network import quantized_network

__all__ = ["Quantization", "Scores", "quantize"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Quantization:
    """What a quantization has written and what it loses.

    Attributes:
        output: The ``.xml``; a ``.bin`` lies beside it.
        tiles: Tiles it was calibrated with.
        against_float: Its labels, scored as if those of the float model were the truth, on
            tiles it was not calibrated with; see ``held_out``.
        float_scores, int8_scores: Both models against the labels of a split; None without a
            spec.
        seconds: Wall time.
        held_out: False where the scans have one tile only, and ``against_float`` was measured on
            the one that it was calibrated with.
    """

    output: Path
    tiles: int
    against_float: Scores
    float_scores: Scores | None
    int8_scores: Scores | None
    seconds: float
    held_out: bool = True


def quantize(
    model: Any,
    scans: ScanPath | Sequence[ScanPath],
    out: str | Path,
    *,
    spec: DatasetSpec | None = None,
    split: str = "test",
    tiles: int = 64,
    tile: Sides | None = None,
    resample: Resample | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Quantization:
    """Write a model that computes in int8, calibrated on tiles of scans.

    :func:`~segfocal.predict` runs the result with OpenVINO, without TensorFlow. It is calibrated
    with tiles that :func:`~segfocal.predict` would run: a volume and a model of two axes give
    slices.

    Args:
        model: A :class:`~segfocal.FocalUNet`, its ``.keras`` file, or an OpenVINO ``.xml``.
        scans: Paths of scans such as the model is for; labels are not needed.
        out: ``.xml``; a ``.bin`` is written beside it.
        spec: A dataset to score both models on, as :func:`~segfocal.evaluate` does.
        split: Split of the dataset.
        tiles: Tiles to calibrate with, spread evenly over the scans; as many others are
            compared on. Of more scans than that, as many are read, chosen evenly over the list.
        tile: Side lengths of a tile in pixels; left out, the model's.
        resample: Whether scans are resampled to the model's resolution, as
            :func:`~segfocal.predict` is going to be asked for: ``"auto"``, ``"always"`` or
            ``"never"``. Left out: ``"always"`` with a spec that has a resolution, as
            :func:`~segfocal.evaluate` does; else ``"auto"``.
        overwrite: Replace an existing output.
        progress: Called with the name of each step as it begins.

    Raises:
        ModelError: The model cannot be quantized, or NNCF or OpenVINO is not installed.
        OutputError: ``out`` cannot be written, exists, or does not end in ``.xml``.
        SpecError: The dataset has no such split.
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
    if not paths:
        raise ScanError("no scans are given; expected at least one to calibrate on")
    if spec is not None:
        spec.regions(split)  # refused now, not after the calibration
    if resample is None:
        resample = "always" if spec is not None and spec.resolution is not None else "auto"
    refuse_to_replace_weights(out, overwrite=overwrite)
    with PendingOutput(out, overwrite=overwrite) as pending:
        plain = in_engine(model, "openvino", tell=say)
        if not isinstance(plain, OpenVINOPredictor) or plain.precision != "float32":
            raise ModelError("the model is quantized already; expected one in float32")
        say("reading tiles")
        sample = sample_tiles(plain, paths, tile, tiles, resample)
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
            work=plain.work,
        )
        with writing(out):
            write_ir(network, facts, pending)
        quantized = OpenVINOPredictor(pending.main)
        say("comparing with the float model")
        against_float = against_other(plain, quantized, sample.comparison)
        float_scores = int8_scores = None
        if spec is not None:
            say(f"scoring both models on split {split}")
            how: dict[str, Any] = {"tile": tile, "resample": resample}
            float_scores = against_labels(plain, spec, split, **how)
            int8_scores = against_labels(quantized, spec, split, **how)
        pending.commit()
    return Quantization(
        output=out,
        tiles=len(sample.calibration),
        against_float=against_float,
        float_scores=float_scores,
        int8_scores=int8_scores,
        seconds=time.monotonic() - started,
        held_out=sample.held_out,
    )
