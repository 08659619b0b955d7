"""The script that evaluates a split names the worst cases, whatever lacks labels."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scored import Reading, dataset, write_scene

import segfocal as sf

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "evaluate_split.py"


@pytest.mark.parametrize("without", [0, 2, 4, 6])
def test_the_worst_cases_are_named_worst_first(tmp_path, monkeypatch, capsys, without):
    dataset(tmp_path, 2, cases=7)
    empty = np.full((61, 47), 255, np.uint8)
    write_scene(tmp_path / f"case{without}_labels.tif", empty, nodata=255)
    scores = []

    def evaluate(model, *rest, **more):
        scores.append(real(Reading(2), *rest, **more))
        return scores[0]

    real = sf.evaluate
    monkeypatch.setattr(sf, "evaluate", evaluate)
    given = [str(SCRIPT), "model.keras", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", given)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    (score,) = scores
    low, high = score.intervals()["mean_iou"]
    assert lines[0] == f"mean IoU {score.mean_iou:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    over = score.over_cases("hd95", 2)["mean"]
    assert lines[3].startswith("lake ")
    assert lines[3].endswith(f"HD95 {over:.3g} m")
    named = [line.split(":")[0].removeprefix("look at ") for line in lines if "look at" in line]
    dice = {case.case: case.mean_dice for case in score.cases if case.case != f"case{without}"}
    assert named == sorted(dice, key=dice.get)[:5]
    assert lines[-2] == f"case{without}: no labels in this split, so no score"
