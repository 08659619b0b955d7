"""Evaluation: whole scans through the real tiled inference, compared with their labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX, index_of_values
from segfocal.confusion import (
    accuracy,
    class_dice,
    class_iou,
    confusion_matrix,
    mean_over_classes,
)
from segfocal.data.sampling import BLOCK, RegionReader, blocks, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.engine.predictors import as_predictor, load_model
from segfocal.errors import ModelError, OutputError
from segfocal.io import PendingOutput, open_scan, read_labels
from segfocal.io.pending import writing
from segfocal.prediction import Prediction, predict

__all__ = ["Evaluation", "evaluate", "score_labels"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a split.

    Attributes:
        split: Name of the split.
        classes: Class names in the order of class indices.
        matrix: Confusion matrix ``(K, K)``, rows the reference, over all scored pixels.
        labels: Label map written for each case.
    """

    split: str
    classes: tuple[str, ...]
    matrix: NDArray[np.int64]
    labels: dict[str, Path]

    @property
    def accuracy(self) -> float:
        """Share of scored pixels that are right."""
        return accuracy(self.matrix)

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur."""
        return mean_over_classes(class_iou(self.matrix))

    @property
    def mean_dice(self) -> float:
        """Mean Dice coefficient of the classes that occur."""
        return mean_over_classes(class_dice(self.matrix))

    def as_json(self) -> dict[str, Any]:
        """Return the scores as a JSON value; a class that does not occur has null."""
        iou, dice = class_iou(self.matrix), class_dice(self.matrix)
        return {
            "split": self.split,
            "pixels": int(self.matrix.sum()),
            "accuracy": _number(self.accuracy),
            "mean_iou": _number(self.mean_iou),
            "mean_dice": _number(self.mean_dice),
            "classes": [
                {
                    "name": name,
                    "pixels": int(self.matrix[i].sum()),
                    "iou": _number(iou[i]),
                    "dice": _number(dice[i]),
                }
                for i, name in enumerate(self.classes)
            ],
            "confusion": self.matrix.tolist(),
            "labels": {case: str(path) for case, path in self.labels.items()},
        }


def evaluate(
    model: Any,
    spec: DatasetSpec,
    split: str = "test",
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Segment every scan of a split and compare with its labels.

    Each scan is segmented as a whole by :func:`segfocal.predict`; scores are over the
    split's regions. Pixels that are unlabelled, ignored, or without data are not scored.
    ``out`` gets one label map per case and ``scores.json``.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one.
        spec: The dataset.
        split: Name of the split.
        out: Folder, created when missing.
        overwrite: Replace earlier results in ``out``.
        progress: Called with tiles done and tiles in all, for each scan.
        **options: ``tile``, ``overlap``, ``halo``, ``blend``, ``batch_size``,
            ``global_context``, ``exact_context`` of :func:`segfocal.predict`.

    Raises:
        ModelError: The model has other classes than the spec.
        SpecError, ScanError, ChannelError, OutputError: See the messages.
    """
    if isinstance(model, str | Path):
        model = load_model(model)  # once for all scans
    predictor = as_predictor(model)
    values = [label.value for label in spec.classes]
    known = [] if predictor.card is None else predictor.card.class_values.tolist()
    if known != values:
        raise ModelError(
            f"the model's class values are {known}; spec {spec.name!r} has {values}: evaluate "
            "with the spec the model was trained on"
        )
    folder = Path(out)
    with ExitStack() as stack:
        readers = open_regions(spec, split, stack)  # before hours of inference
        suffix = ".tif" if spec.ndim == 2 else ".nii.gz"
        outputs = {
            reader.region.case: folder / f"{reader.region.case}{suffix}" for reader in readers
        }
        _refuse_to_replace_dataset(spec, outputs.values())
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        labels: dict[str, Path] = {}
        with PendingOutput(folder / "scores.json", overwrite=overwrite) as pending:
            for case_id, output in outputs.items():
                result: Prediction = predict(
                    model,
                    spec.path(spec.case(case_id).image),
                    output,
                    overwrite=overwrite,
                    progress=progress,
                    **options,
                )
                labels[case_id] = result.output
            matrix = score_labels(spec, readers, labels)
            names = tuple(label.name for label in spec.classes)
            evaluation = Evaluation(split, names, matrix, labels)
            with writing(pending.destination):
                pending.main.write_text(json.dumps(evaluation.as_json(), indent=2) + "\n")
            pending.commit()
    return evaluation


def _refuse_to_replace_dataset(spec: DatasetSpec, outputs: Iterable[Path]) -> None:
    sources = [spec.path(path) for case in spec.cases for path in (case.image, case.labels)]
    for output in outputs:
        if output.exists() and any(
            Path(source).exists() and output.samefile(source) for source in sources
        ):
            raise OutputError(
                f"{output}: is part of the dataset itself; expected another folder for the "
                "predicted labels"
            )


def score_labels(
    spec: DatasetSpec, readers: list[RegionReader], labels: dict[str, Path]
) -> NDArray[np.int64]:
    """Return the confusion matrix of label files against the labels of opened regions.

    Args:
        spec: The dataset.
        readers: Regions to score.
        labels: Label file per case id.
    """
    values = [label.value for label in spec.classes]
    matrix = np.zeros((spec.num_classes, spec.num_classes), np.int64)
    for reader in readers:
        path = labels[reader.region.case]
        with open_scan(path, orientation=spec.orientation or "RAS") as scan:
            for block in blocks(reader.window, BLOCK[spec.ndim]):
                reference = reader.read(block)[2]
                predicted, labelled = read_labels(scan, block)
                found = index_of_values(predicted, values)
                found[~labelled] = IGNORE_INDEX
                matrix += confusion_matrix(reference, found, spec.num_classes)
    return matrix


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
