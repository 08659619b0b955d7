"""Scores of a model on a split: per case, per class, and of all pixels together.

Counts are pooled in a confusion matrix per case; everything that follows from counts follows
from these. A class that is absent from both reference and prediction has no score there (NaN,
``null`` in JSON, empty in CSV) and does not enter means. Of a class that is in one of them only,
overlap is 0, NSD is 0 and distances are infinite: they are ``null`` in JSON and ``inf`` in CSV,
and means of distances are over the cases in which they are finite; ``missed`` counts the others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.bootstrap import Interval, confidence_interval
from segfocal.confusion import (
    accuracy,
    class_dice,
    class_iou,
    class_precision,
    class_recall,
    mean_over_classes,
    predicted_pixels,
    reference_pixels,
    scored_pixels,
)

__all__ = [
    "MEASURES",
    "SCORES_FORMAT",
    "Calibration",
    "CaseScores",
    "Evaluation",
    "number",
    "scores_table",
]

SCORES_FORMAT = 1
"""Version of the layout of ``scores.json``; keys may be added without a new one."""

MEASURES = ("dice", "iou", "precision", "recall", "hd95", "nsd", "surface_distance")
"""What each case has per class, besides pixels."""

Array = NDArray[np.float64]
Score = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        case: Its id.
        matrix: Confusion matrix ``(K, K)`` of its scored pixels, rows the reference; of regions
            that overlap ``(K, 2, 2)``, see :mod:`segfocal.confusion`.
        hd95, nsd, surface_distance: Per class: 95th percentile of the Hausdorff distance, surface
            Dice within the evaluation's tolerance, average symmetric surface distance. NaN where
            there are none.
        not_measured: Why there are no distances, or ``""``.
        unit: ``"hectares"``, ``"millilitres"`` or ``""``.
        pixel_size: Hectares or millilitres of a pixel.
        group: What the case has in the spec's ``group_by``, such as its patient; None where there
            is none.
    """

    case: str
    matrix: NDArray[np.int64]
    hd95: Array
    nsd: Array
    surface_distance: Array
    not_measured: str = ""
    unit: str = ""
    pixel_size: float = float("nan")
    group: str | None = None

    @property
    def accuracy(self) -> float:
        """Share of the case's scored pixels that are right."""
        return accuracy(self.matrix)

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the classes that occur in the case."""
        return mean_over_classes(class_dice(self.matrix))

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur in the case."""
        return mean_over_classes(class_iou(self.matrix))

    def measures(self) -> dict[str, Array]:
        """Return every measure per class, in the order of :data:`MEASURES`."""
        return {
            "dice": class_dice(self.matrix),
            "iou": class_iou(self.matrix),
            "precision": class_precision(self.matrix),
            "recall": class_recall(self.matrix),
            "hd95": self.hd95,
            "nsd": self.nsd,
            "surface_distance": self.surface_distance,
        }

    def sizes(self) -> tuple[Array, Array]:
        """Return hectares or millilitres per class: of the reference, and of the prediction."""
        size = np.float64(self.pixel_size)
        return reference_pixels(self.matrix) * size, predicted_pixels(self.matrix) * size


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be taken at their word, at the pixels that are scored.

    Where not every class was looked for, see :class:`~segfocal.reliability.Reliability`.

    Attributes:
        error: Expected calibration error over 15 bins of the highest probability.
        temperature: Temperature of logits that would fit best: above 1, the model is too sure.
        confidence, right: Mean highest probability, and share of right pixels, per bin; NaN for
            empty bins.
        pixels: Pixels per bin.
        error_with_temperature: The error at that temperature, of a sample of the pixels.
    """

    error: float
    temperature: float | None
    confidence: Array
    right: Array
    pixels: NDArray[np.int64]
    error_with_temperature: float = float("nan")

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "ece": number(self.error),
            "temperature": None if self.temperature is None else number(self.temperature),
            "ece_with_temperature": number(self.error_with_temperature),
            "bins": [
                {"confidence": number(c), "right": number(r), "pixels": int(n)}
                for c, r, n in zip(self.confidence, self.right, self.pixels, strict=True)
            ],
        }


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a split.

    Attributes:
        split: Name of the split.
        classes: Class names in the order of class indices.
        cases: Scores per case.
        labels: Label map written for each case.
        background: Class index of what is in no other class, or None.
        tolerance: Distance within which boundaries count as equal (NSD), or None.
        distance_unit: Unit of distances.
        calibration: Calibration, if it was asked for.
        notes: What was left out, and why.
        group_by: Name of the group whose cases belong together, of the spec; None: each case
            stands for itself.
    """

    split: str
    classes: tuple[str, ...]
    cases: tuple[CaseScores, ...]
    labels: dict[str, Path] = field(default_factory=dict)
    background: int | None = None
    tolerance: float | None = None
    distance_unit: str = ""
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
    group_by: str | None = None

    @property
    def groups(self) -> list[tuple[str, str]] | None:
        """What intervals are drawn by, of each case: its group, or itself where it has none.

        None: cases are drawn.
        """
        if self.group_by is None:
            return None
        return [
            ("case", one.case) if one.group is None else ("group", one.group) for one in self.cases
        ]

    @property
    def drawn(self) -> str:
        """What intervals are from drawing, with its number: ``"12 cases"``."""
        if self.groups is None:
            return f"{len(self.cases)} cases"
        return f"{len(set(self.groups))} groups of cases (group_by: {self.group_by})"

    @property
    def matrix(self) -> NDArray[np.int64]:
        """Confusion matrix of all cases, as :attr:`CaseScores.matrix` is of one."""
        return _pooled(self.cases)

    @property
    def accuracy(self) -> float:
        """Share of scored pixels that are right; of regions, of answers for a region."""
        return accuracy(self.matrix)

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur, over all pixels."""
        return mean_over_classes(class_iou(self.matrix))

    @property
    def mean_dice(self) -> float:
        """Mean Dice coefficient of the classes that occur, over all pixels."""
        return mean_over_classes(class_dice(self.matrix))

    @property
    def foreground(self) -> list[int]:
        """Class indices other than the background's."""
        return [k for k in range(len(self.classes)) if k != self.background]

    @property
    def foreground_dice(self) -> float:
        """Mean over foreground classes of the mean Dice over cases."""
        return self._foreground_dice(np.arange(len(self.cases)))

    def _foreground_dice(self, chosen: NDArray[np.intp]) -> float:
        dice = np.array([class_dice(case.matrix) for case in self.cases])[chosen]
        means = np.array([mean_over_classes(dice[:, k]) for k in self.foreground])
        return mean_over_classes(means)

    def of_cases(self, measure: str) -> Array:
        """Return a measure of :data:`MEASURES` for each case and class, ``(cases, K)``."""
        return np.array([case.measures()[measure] for case in self.cases])

    def intervals(self) -> dict[str, Interval | None]:
        """Return 95 % confidence intervals, by drawing cases; None for a single one.

        Where the spec says by ``group_by`` which cases belong together, such as the scans of a
        patient, groups are drawn, each with all its cases: they are no independent draws.
        """
        groups = self.groups

        def interval(score: Score) -> Interval | None:
            matrices = np.array([case.matrix for case in self.cases])
            return confidence_interval(
                len(matrices), lambda draw: score(matrices[draw].sum(0)), groups=groups
            )

        return {
            "accuracy": interval(accuracy),
            "mean_iou": interval(lambda matrix: mean_over_classes(class_iou(matrix))),
            "mean_dice": interval(lambda matrix: mean_over_classes(class_dice(matrix))),
            "foreground_dice": confidence_interval(
                len(self.cases), self._foreground_dice, groups=groups
            ),
        }

    def mean_over_cases(self, measure: str, k: int) -> float:
        """Return the mean of a measure of one class over the cases in which it is finite."""
        return mean_over_classes(_finite(self.of_cases(measure)[:, k]))

    def over_cases(self, measure: str, k: int) -> dict[str, Any]:
        """Return that mean as JSON has it, rounded, with its 95 % interval as in ``intervals``.

        The value has ``mean``, ``interval``, ``cases`` (how many), and ``missed``: in how many it
        is infinite.
        """
        values = self.of_cases(measure)[:, k]
        finite = _finite(values)
        interval = confidence_interval(
            len(finite), lambda draw: mean_over_classes(finite[draw]), groups=self.groups
        )
        return {
            "mean": number(mean_over_classes(finite)),
            "interval": _interval(interval),
            "cases": int(np.isfinite(values).sum()),
            "missed": int(np.isinf(values).sum()),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the scores as a JSON value; a score that does not exist is null."""
        pooled = {
            "iou": class_iou(self.matrix),
            "dice": class_dice(self.matrix),
            "precision": class_precision(self.matrix),
            "recall": class_recall(self.matrix),
        }
        pixels = reference_pixels(self.matrix)
        intervals = {name: _interval(value) for name, value in self.intervals().items()}
        return {
            "format": SCORES_FORMAT,
            "split": self.split,
            "pixels": scored_pixels(self.matrix),
            "accuracy": number(self.accuracy),
            "mean_iou": number(self.mean_iou),
            "mean_dice": number(self.mean_dice),
            "foreground_dice": number(self.foreground_dice),
            "intervals": intervals,
            "group_by": self.group_by,
            "groups": None if self.groups is None else len(set(self.groups)),
            "tolerance": self.tolerance,
            "distance_unit": self.distance_unit,
            "classes": [
                {
                    "name": name,
                    "pixels": int(pixels[k]),
                    **{measure: number(values[k]) for measure, values in pooled.items()},
                    "over_cases": {measure: self.over_cases(measure, k) for measure in MEASURES},
                }
                for k, name in enumerate(self.classes)
            ],
            "confusion": self.matrix.tolist(),
            "cases": [self._case_json(case) for case in self.cases],
            "calibration": None if self.calibration is None else self.calibration.as_json(),
            "labels": {case: str(path) for case, path in self.labels.items()},
            "notes": list(self.notes),
        }

    def _case_json(self, case: CaseScores) -> dict[str, Any]:
        return {
            "case": case.case,
            "group": case.group,
            "pixels": scored_pixels(case.matrix),
            "accuracy": number(case.accuracy),
            "mean_iou": number(case.mean_iou),
            "mean_dice": number(case.mean_dice),
            "distances_not_measured": case.not_measured,
            "classes": [
                {name: number(v) if isinstance(v, float) else v for name, v in row.items()}
                for row in self.rows(case)
            ],
        }

    def rows(self, case: CaseScores) -> list[dict[str, Any]]:
        """Return what is known of each class in a case, by name."""
        measures = case.measures()
        reference, found = case.sizes()
        own, predicted = reference_pixels(case.matrix), predicted_pixels(case.matrix)
        rows = []
        for k, name in enumerate(self.classes):
            row: dict[str, Any] = {
                "name": name,
                "reference_pixels": int(own[k]),
                "predicted_pixels": int(predicted[k]),
                **{measure: float(values[k]) for measure, values in measures.items()},
            }
            if case.unit:
                row[f"reference_{case.unit}"] = float(reference[k])
                row[f"predicted_{case.unit}"] = float(found[k])
                row[f"error_{case.unit}"] = float(found[k] - reference[k])
            rows.append(row)
        return rows


def scores_table(evaluation: Evaluation) -> str:
    """Return the scores of each case and class as CSV; what does not exist is left empty."""
    rows = [
        {"case": case.case, "class": row.pop("name"), **row}
        for case in evaluation.cases
        for row in evaluation.rows(case)
    ]
    # Cases may differ in whether the size of a pixel is known.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


def number(value: float) -> float | None:
    """Return a number as JSON has it: rounded, None for what is not finite."""
    return round(float(value), 6) if np.isfinite(value) else None


def _interval(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [number(bound) for bound in interval]


def _finite(values: Array) -> Array:
    """Return values with NaN in place of infinite ones."""
    return np.where(np.isfinite(values), values, np.nan)


def _pooled(cases: Sequence[CaseScores]) -> NDArray[np.int64]:
    return np.sum([case.matrix for case in cases], axis=0)
