"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from segfocal.bootstrap import Interval
from segfocal.confusion import (
    class_dice,
    class_iou,
    class_precision,
    class_recall,
    reference_pixels,
    scored_pixels,
)
from segfocal.data.reading import RegionReader
from segfocal.data.spec import DatasetSpec
from segfocal.report.charts import confusion_table, reliability_chart
from segfocal.report.environment import environment
from segfocal.report.page import (
    Cell,
    count_cell,
    facts,
    legend,
    name_cell,
    page,
    score_cell,
    section,
    table,
    text_of,
)
from segfocal.report.views import case_view, view_html
from segfocal.scores import CaseScores, Evaluation

__all__ = ["evaluation_page"]

WORST, BEST = 4, 2
COLUMNS_PER_CLASS = 10


def evaluation_page(
    evaluation: Evaluation,
    spec: DatasetSpec,
    cases: Mapping[str, Sequence[RegionReader]],
    labels: Mapping[str, Path],
) -> str:
    """Return the report of an evaluation as one HTML page.

    Args:
        evaluation: The scores.
        spec: The dataset.
        cases: The regions of each case, open.
        labels: The predicted labels of each case.
    """
    number = len(evaluation.cases)
    subtitle = (
        (
            f"split {evaluation.split}, {number} {'case' if number == 1 else 'cases'}, "
            f"{scored_pixels(evaluation.matrix):,} scored pixels"
        )
        .replace(",", " ")
        .replace("  ", ", ")
    )
    notes = "".join(f'<p class="warning">{escape(note)}</p>' for note in evaluation.notes)
    return page(
        f"{spec.name}: evaluation",
        subtitle,
        [
            _summary(evaluation) + notes,
            section("Classes", legend(spec.classes), _class_table(evaluation, spec)),
            section("Cases", _case_table(evaluation)),
            _size_section(evaluation, spec),
            section("Confusion matrix", confusion_table(evaluation.matrix, spec.classes))
            if spec.task == "classes"  # regions that overlap are not taken for one another
            else "",
            _views(evaluation, spec, cases, labels),
            _calibration(evaluation),
            section("Environment", facts(environment())),
        ],
    )


def _summary(evaluation: Evaluation) -> str:
    intervals = evaluation.intervals()
    shown: list[tuple[str, float, Interval | None]] = [
        ("accuracy", evaluation.accuracy, intervals["accuracy"]),
        ("mean IoU", evaluation.mean_iou, intervals["mean_iou"]),
        ("mean Dice", evaluation.mean_dice, intervals["mean_dice"]),
    ]
    if evaluation.background is not None:
        foreground = ("foreground Dice, mean over cases", evaluation.foreground_dice)
        shown.append((*foreground, intervals["foreground_dice"]))
    tiles = "".join(
        f'<div class="tile"><span>{name}</span><b>{text_of(value)}</b><span>{_range(ends)}</span>'
        "</div>"
        for name, value, ends in shown
    )
    if evaluation.calibration is not None:
        error = text_of(evaluation.calibration.error)
        tiles += f'<div class="tile"><span>calibration error</span><b>{error}</b></div>'
    note = ""
    if intervals["accuracy"] is not None:
        text = f"Intervals (95 %): from drawing {evaluation.drawn} again and again."
        note = f'<p class="note">{escape(text)}</p>'
    return f'<div class="tiles">{tiles}</div>{note}'


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} – {interval[1]:.3f} (95 %)"


def _class_table(evaluation: Evaluation, spec: DatasetSpec) -> str:
    matrix, unit = evaluation.matrix, evaluation.distance_unit
    columns = ["class", "pixels", "IoU", "Dice", "precision", "recall"]
    pixels = reference_pixels(matrix)
    pooled = [f(matrix) for f in (class_iou, class_dice, class_precision, class_recall)]
    measured = evaluation.tolerance is not None
    several = len(evaluation.cases) > 1
    if several:
        columns.append("Dice over cases")
    if measured:
        columns += [
            f"HD95 ({unit})",
            f"NSD ({evaluation.tolerance:g} {unit})",
            "HD95 ∞",
        ]
    rows: list[list[Cell]] = []
    for k, label in enumerate(spec.classes):
        row = [name_cell(label.name, label.color), count_cell(int(pixels[k]))]
        row += [score_cell(float(values[k])) for values in pooled]
        if several:
            row.append(score_cell(evaluation.mean_over_cases("dice", k)))
        if measured:
            row += [
                score_cell(evaluation.mean_over_cases("hd95", k), None),
                score_cell(evaluation.mean_over_cases("nsd", k)),
                count_cell(evaluation.over_cases("hd95", k)["missed"]),
            ]
        rows.append(row)
    note = "IoU to recall: over the pixels of all cases."
    if measured:
        note += (
            " HD95 and NSD: means over cases. HD95 is infinite in a case where a class is in the "
            "reference or the prediction only; such cases are counted in the last column and left "
            "out of the mean."
        )
    return table(columns, rows, name="classes") + f'<p class="note">{escape(note)}</p>'


def _case_table(evaluation: Evaluation) -> str:
    columns = ["case", "pixels", "accuracy", "mean IoU", "mean Dice"]
    shown = evaluation.foreground if len(evaluation.classes) <= COLUMNS_PER_CLASS else []
    measured = evaluation.tolerance is not None
    columns += [f"Dice {evaluation.classes[k]}" for k in shown]
    columns += [f"HD95 {evaluation.classes[k]}" for k in shown if measured]
    rows = []
    for case in evaluation.cases:
        dice = class_dice(case.matrix)
        row = [
            name_cell(case.case),
            count_cell(scored_pixels(case.matrix)),
            score_cell(case.accuracy),
            score_cell(case.mean_iou),
            score_cell(case.mean_dice),
            *(score_cell(float(dice[k])) for k in shown),
        ]
        if measured:
            row += [score_cell(float(case.hd95[k]), None) for k in shown]
        rows.append(row)
    return table(columns, rows, name="cases")


def _size_section(evaluation: Evaluation, spec: DatasetSpec) -> str:
    """Return hectares or millilitres of each class; nothing where they are not known."""
    units = {case.unit for case in evaluation.cases}
    if len(units) != 1 or units == {""}:
        return ""
    (unit,) = units
    reference, found = np.sum([case.sizes() for case in evaluation.cases], axis=0)
    errors = np.array([case.sizes()[1] - case.sizes()[0] for case in evaluation.cases])
    rows = []
    for k, label in enumerate(spec.classes):
        difference = found[k] - reference[k]
        share = 100 * difference / reference[k] if reference[k] else float("nan")
        rows.append(
            [
                name_cell(label.name, label.color),
                score_cell(reference[k], 2),
                score_cell(found[k], 2),
                score_cell(difference, 2),
                score_cell(share, 1),
                score_cell(float(np.abs(errors[:, k]).mean()), 2),
            ]
        )
    columns = ["class", "reference", "prediction", "difference", "%", "mean |difference| per case"]
    title = "Areas" if unit == "hectares" else "Volumes"
    return section(f"{title} in {unit}", table(columns, rows, name="sizes"))


def _ranking(evaluation: Evaluation) -> list[tuple[float, CaseScores]]:
    """Return the cases from best to worst, with the mean Dice of their foreground classes."""

    def score(case: CaseScores) -> float:
        dice = class_dice(case.matrix)[evaluation.foreground]
        known = dice[~np.isnan(dice)]
        return float(known.mean()) if len(known) else float("nan")

    scored = [(score(case), case) for case in evaluation.cases]
    known = [pair for pair in scored if not np.isnan(pair[0])]
    return sorted(known, key=lambda pair: -pair[0])


def _views(
    evaluation: Evaluation,
    spec: DatasetSpec,
    cases: Mapping[str, Sequence[RegionReader]],
    labels: Mapping[str, Path],
) -> str:
    ranking = _ranking(evaluation)
    chosen = [("", *pair) for pair in ranking]
    if len(ranking) > BEST + WORST:
        worst = ranking[: -WORST - 1 : -1]
        chosen = [("worst: ", *pair) for pair in worst]
        chosen += [("best: ", *pair) for pair in ranking[:BEST]]
    what = "mean Dice" if evaluation.background is None else "foreground Dice"
    figures = []
    for number, (word, score, case) in enumerate(chosen):
        readers = cases[case.case]
        largest = max(
            readers, key=lambda reader: np.prod([s.stop - s.start for s in reader.window])
        )
        figures.append(
            view_html(
                case_view(largest, labels[case.case]),
                spec.classes,
                title=f"{word}{case.case}, {what} {text_of(score)}",
                name=f"view{number}",
                background=evaluation.background,
            )
        )
    if not figures:
        return ""
    overlap = (
        '<p class="note">Regions overlap: where several hold a pixel, the last of them is shown. '
        "Scores are of each region for itself.</p>"
        if spec.task == "regions"
        else ""
    )
    title = "Worst and best cases" if len(chosen) < len(ranking) else "Pictures of the cases"
    views = f'<div class="views">{"".join(figures)}</div>'
    return section(title, legend(spec.classes), overlap, views)


def _calibration(evaluation: Evaluation) -> str:
    calibration = evaluation.calibration
    if calibration is None:
        return ""
    text = f"Expected calibration error {text_of(calibration.error)} over 15 bins."
    if calibration.temperature is not None:
        sure = "too sure of itself" if calibration.temperature > 1 else "not sure enough"
        text += (
            f" Temperature that would fit best: {calibration.temperature:.2f} (error then "
            f"{text_of(calibration.error_with_temperature)}), so the model is "
            f"{sure}."
        )
    return section("Calibration", f"<p>{escape(text)}</p>", reliability_chart(calibration))
