"""Evaluation: whole scans through the real tiled inference, compared with their labels."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from segfocal.card import Card
from segfocal.data.open_scans import open_image
from segfocal.data.reading import RegionReader, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.engine.engines import Engine, in_engine
from segfocal.engine.layers import Layers
from segfocal.engine.memory import parse_bytes
from segfocal.engine.openvino_predictor import Precision
from segfocal.engine.predictors import as_predictor
from segfocal.engine.stored_temperature import require_storable, store_temperature
from segfocal.errors import GeometryError, ModelError, OutputError
from segfocal.io import PendingOutput
from segfocal.io.measure import distance_unit
from segfocal.io.pending import writing
from segfocal.prediction import predict, stream
from segfocal.reliability import Reliability
from segfocal.report import evaluation_page
from segfocal.scores import Calibration, Evaluation, scores_table
from segfocal.scoring import (
    DEFAULT_POINT_BYTES,
    calibration_of,
    count_probabilities,
    score_case,
)
from segfocal.temperature import RANGE

__all__ = ["Evaluation", "by_case", "evaluate", "tolerance_of", "write_scores"]

Progress = Callable[[int, int], None]


def evaluate(
    model: Any,
    spec: DatasetSpec,
    split: str = "test",
    *,
    out: str | Path,
    distances: bool = True,
    tolerance: float | None = None,
    calibration: bool = False,
    calibrate: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Segment every scan of a split and compare with its labels.

    Each scan is segmented as a whole by :func:`segfocal.predict`; scores are over the
    split's regions. Pixels that are unlabelled, ignored, or without data are not scored, nor,
    where a case's annotated classes are listed, pixels that are taken for one of the others.
    ``out`` gets one label map per case, ``scores.json``, ``scores.csv`` (a row per case and class)
    and ``scores.html``, the report. Of regions that overlap it also gets their probabilities, as
    ``CASE.probabilities.tif`` or ``.nii.gz``: each region is scored by where these are above one
    half. Intervals (95 %) are from drawing cases again and again; where the spec has ``group_by``,
    from drawing groups with all their cases, as scans of one patient are not independent.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one.
        spec: The dataset.
        split: Name of the split.
        out: Folder, created when missing.
        distances: Measure distances between boundaries (HD95, NSD, average), see
            :mod:`segfocal.surface`. They take memory with the boundaries' length: where that is
            more than ``max_memory``, or 2 GiB when it is left out, they are left out with a note.
        tolerance: Distance within which boundaries count as equal (NSD), in millimetres or units
            of the CRS; left out, the longest side of a pixel of the split.
        calibration: Measure whether probabilities can be taken at their word, at the pixels that
            are scored: this runs the network over the scans once more. Not of regions that
            overlap. Where not all classes were looked for in a case, what counts is the
            probability of what its labels show, see :class:`~segfocal.reliability.Reliability`.
        calibrate: Measure that, and store the temperature that fits best in the card of the model,
            which has to be the path of a ``.keras`` file. Probabilities and uncertainties that are
            predicted with it from then on are at that temperature; labels do not change. Take a
            split that was neither trained on nor is to be reported, such as ``"val"``.
        overwrite: Replace earlier results in ``out``.
        progress: Called with tiles done and tiles in all, for each scan.
        engine, precision, notice: See :func:`segfocal.predict`.
        **options: ``tile``, ``overlap``, ``halo``, ``blend``, ``batch_size``, ``max_memory``,
            ``global_context``, ``exact_context``, ``resample``, ``interpolation`` of
            :func:`segfocal.predict`. A spec with a resolution, at which patches were trained
            on, has scenes resampled too unless ``resample`` says otherwise.

    Raises:
        ModelError: The model has other classes than the spec, or a temperature cannot be stored
            in it.
        SpecError, ScanError, ChannelError, OutputError: See the messages.
        GeometryError: ``tolerance`` is negative.
    """
    if tolerance is not None and not tolerance >= 0:
        raise GeometryError(f"tolerance {tolerance}; expected 0 or more")
    storable = require_storable(model) if calibrate else None
    calibration = calibration or calibrate
    folder = Path(out)
    suffix = ".tif" if spec.ndim == 2 else ".nii.gz"
    model = in_engine(  # once for all scans
        model,
        engine,
        precision=precision,
        global_context=options.get("global_context"),
        destinations=[folder / f"{case.id}{suffix}" for case in spec.cases],
        tell=notice,
    )
    predictor = as_predictor(model)
    _check_classes(predictor.card, spec)
    orientation = None if predictor.card is None else predictor.card.orientation
    if spec.resolution is not None:
        options.setdefault("resample", "always")
    with ExitStack() as stack:
        cases = by_case(open_regions(spec, split, stack))  # before hours of inference
        labels = {case: folder / f"{case}{suffix}" for case in cases}
        _refuse_to_replace_dataset(spec, labels.values())
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with PendingOutput(folder / "scores.json", overwrite=overwrite) as pending:
            notes: list[str] = []
            overlapping = spec.task == "regions"
            layers = Layers("float32") if overlapping else Layers()
            if calibration and overlapping:
                notes.append("calibration: left out, it is not measured of regions that overlap")
            reliability = Reliability() if calibration and not overlapping else None
            for case, output in labels.items():
                with open_image(spec, spec.case(case), orientation=orientation) as scan:
                    predict(
                        model,
                        scan,
                        output,
                        overwrite=overwrite,
                        progress=progress,
                        engine=engine,
                        precision=precision,
                        notice=notice,
                        probabilities=layers.probabilities,
                        **options,
                    )
                    if reliability is None:
                        continue
                    # Stretches lie on the grid of the scan as the model reads it.
                    if spec.ndim == 3 and (orientation or "RAS") != (spec.orientation or "RAS"):
                        notes.append(
                            f"calibration of {case}: left out, as the model reads volumes as "
                            f"{orientation} and the spec as {spec.orientation or 'RAS'}"
                        )
                        continue
                    shared = _options_of(stream, options)
                    stretches = stream(model, scan, progress=progress, **shared)
                    count_probabilities(reliability, cases[case], stretches)
            first = next(iter(cases.values()))[0]
            background = next((k for k, one in enumerate(spec.classes) if one.value == 0), None)
            if distances and tolerance is None:
                tolerance = _longest_side(cases.values())
            limit = options.get("max_memory")
            scores = [
                score_case(
                    readers,
                    layers.path(labels[case], "probabilities") if overlapping else labels[case],
                    tolerance=tolerance if distances else None,
                    background=background,
                    point_bytes=DEFAULT_POINT_BYTES if limit is None else parse_bytes(limit),
                )
                for case, readers in cases.items()
            ]
            if distances:
                notes += [
                    f"distances of {score.case}: left out, as {score.not_measured}"
                    for score in scores
                    if score.not_measured
                ]
            measured = None if reliability is None else calibration_of(reliability)
            if storable is not None:
                notes.append(_stored(storable, measured, predictor.card, split))
            evaluation = Evaluation(
                split=split,
                classes=tuple(label.name for label in spec.classes),
                cases=tuple(scores),
                labels=labels,
                background=background,
                tolerance=tolerance if distances else None,
                distance_unit=distance_unit(first.scans.image(first.case)),
                calibration=measured,
                notes=tuple(notes),
                group_by=spec.group_by,
            )
            write_scores(pending, evaluation, spec, cases)
    return evaluation


def write_scores(
    pending: PendingOutput,
    evaluation: Evaluation,
    spec: DatasetSpec,
    cases: Mapping[str, Sequence[RegionReader]],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write scores as JSON and CSV, and the report, and move them to their place.

    Args:
        pending: The place of ``scores.json``.
        evaluation: The scores.
        spec: The dataset.
        cases: The regions of each case.
        more: Added to the JSON.

    Raises:
        OutputError: They cannot be written.
    """
    with writing(pending.destination):
        value = {**evaluation.as_json(), **(more or {})}
        text = json.dumps(value, indent=2, allow_nan=False)
        pending.main.write_text(text + "\n", encoding="utf-8")
        table = pending.path("scores.csv")
        table.write_text(scores_table(evaluation), encoding="utf-8", newline="")
        page = evaluation_page(evaluation, spec, cases, evaluation.labels)
        pending.path("scores.html").write_text(page, encoding="utf-8")
    pending.commit()


def tolerance_of(spec: DatasetSpec, split: str) -> float:
    """Return the tolerance of a split's evaluation: the longest side of its pixels.

    It is in CRS units or millimetres; 1 where there are none.
    """
    with ExitStack() as stack:
        return _longest_side(by_case(open_regions(spec, split, stack)).values())


def _check_classes(card: Any, spec: DatasetSpec) -> None:
    values = [label.value for label in spec.classes]
    known = [] if card is None else card.class_values.tolist()
    if card is not None and card.task != spec.task:
        raise ModelError(
            f"the model's task is {card.task}; spec {spec.name!r} has {spec.task}: evaluate with "
            "the spec the model was trained on"
        )
    if known != values:
        raise ModelError(
            f"the model's class values are {known}; spec {spec.name!r} has {values}: evaluate "
            "with the spec the model was trained on"
        )


def _stored(path: Path, calibration: Calibration | None, card: Card | None, split: str) -> str:
    """Store the temperature that fits best in a model's card; return a note of it.

    What fits was found for probabilities at the temperature that the model has already.
    """
    found = None if calibration is None else calibration.temperature
    if found is None or not 1.01 * RANGE[0] < found < 0.99 * RANGE[1]:
        why = (
            "there are no labelled pixels"
            if found is None
            else "the model is never wrong there"
            if found < 1
            else "the model knows no better than chance there"
        )
        return f"no temperature is stored in {path.name}: none fits split {split!r}, as {why}"
    before = card.temperature if card is not None else None
    stored = store_temperature(path, found * (before or 1.0)).temperature
    was = "" if before is None else f", where it was {before:.3f}"
    return f"temperature {stored:.3f} is in the card of {path.name} now{was}"


def by_case(readers: Iterable[RegionReader]) -> dict[str, list[RegionReader]]:
    """Return regions by their case."""
    cases: dict[str, list[RegionReader]] = {}
    for reader in readers:
        cases.setdefault(reader.region.case, []).append(reader)
    return cases


def _options_of(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a function takes: predict has more of them than stream."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def _longest_side(cases: Iterable[Sequence[RegionReader]]) -> float:
    """Return the longest side of a pixel in CRS units or millimetres; 1 where there are none."""
    return max(max(reader.resolution or (1.0,)) for readers in cases for reader in readers)


def _refuse_to_replace_dataset(spec: DatasetSpec, outputs: Iterable[Path]) -> None:
    sources = [path for case in spec.cases for path in spec.files(case)]
    for output in outputs:
        if output.exists() and any(
            Path(source).exists() and output.samefile(source) for source in sources
        ):
            raise OutputError(
                f"{output}: is part of the dataset itself; expected another folder for the "
                "predicted labels"
            )
