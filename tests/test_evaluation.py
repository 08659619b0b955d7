"""Evaluation of whole scans against scores computed from whole arrays, the slow way."""

from __future__ import annotations

import csv
import json
import math
from fractions import Fraction
from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
from scipy.optimize import minimize
from scored import VALUES, Reading, dataset, write_scene, write_volume
from sklearn.metrics import confusion_matrix

import segfocal as sf
from segfocal.cli.score_table import print_scores
from segfocal.data.reading import BLOCK
from segfocal.errors import GeometryError, OutputExistsError


def read(path: Path):
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            return file.read(1).astype(int)
    return np.asarray(nibabel.load(path).dataobj).astype(int)


def pair(folder, spec, case, window=...):
    """Return class values of reference and prediction, -1 where either is unknown."""
    truth = read(spec.path(spec.case(case).labels))
    found = read(folder / (case + (".tif" if spec.ndim == 2 else ".nii.gz")))
    unknown = ~np.isin(truth, VALUES[spec.ndim]) | ~np.isin(found, VALUES[spec.ndim])
    return np.where(unknown, -1, truth)[window], np.where(unknown, -1, found)[window]


def surface(labels, value):
    """Return the positions of the boundary pixels of a class, found one by one."""
    points = []
    for place in np.argwhere(labels == value):
        for axis in range(labels.ndim):
            for step in (-1, 1):
                there = place.copy()
                there[axis] += step
                beyond = not 0 <= there[axis] < labels.shape[axis]
                if beyond or labels[tuple(there)] not in (-1, value):
                    points.append(tuple(place))
    return np.array(sorted(set(points)))


def slow_distances(truth, found, value, spacing, tolerance):
    """Return HD95, NSD and average, compared as whole numbers: squares in a fraction of a unit.

    Args:
        truth, found: Class values, -1 where unknown.
        value: The class.
        spacing, tolerance: As decimal text.
    """
    sides, within = [Fraction(side) for side in spacing], Fraction(tolerance)
    scale = math.lcm(within.denominator, *(side.denominator for side in sides))
    whole = np.array([int(side * scale) for side in sides])
    a, b = surface(truth, value), surface(found, value)
    squares = (((a[:, None] - b[None]) * whole) ** 2).sum(-1)
    there, back = squares.min(1), squares.min(0)
    hd95 = max(np.percentile(np.sqrt(one) / scale, 95) for one in (there, back))
    both = np.concatenate([there, back])
    nsd = (both <= int(within * scale) ** 2).sum() / len(both)
    return hd95, nsd, (np.sqrt(both) / scale).mean()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("regions", ["", ", rows: [3, 15]"])
def test_every_score_is_that_of_the_whole_arrays(tmp_path, monkeypatch, ndim, regions):
    monkeypatch.setitem(BLOCK, ndim, 7)  # many blocks, which no result may show
    spec, _ = dataset(tmp_path, ndim, regions=regions)
    out = tmp_path / "out"
    tolerance = "2.5" if ndim == 3 else "15"
    result = sf.evaluate(Reading(ndim), spec, out=out, tolerance=float(tolerance))
    rows = (slice(None),) * (ndim - 2) + (slice(3, 15),)
    spacing = ("10", "10") if ndim == 2 else ("1", "1.5", "3")
    for scores in result.cases:
        truth, found = pair(out, spec, scores.case, rows if regions else ...)
        known = truth >= 0
        expected = confusion_matrix(truth[known], found[known], labels=VALUES[ndim])
        assert scores.matrix.tolist() == expected.tolist()
        assert 0.5 < scores.accuracy < 0.95
        for k, value in enumerate(VALUES[ndim]):
            measured = scores.hd95[k], scores.nsd[k], scores.surface_distance[k]
            if value == 0:  # the background
                assert all(map(math.isnan, measured))
            else:
                slow = slow_distances(truth, found, value, spacing, tolerance)
                assert measured == pytest.approx(slow)
        size = 0.01 if ndim == 2 else 0.0045
        reference, predicted = scores.sizes()
        assert scores.unit == ("hectares" if ndim == 2 else "millilitres")
        assert reference.tolist() == pytest.approx((expected.sum(1) * size).tolist())
        assert predicted.tolist() == pytest.approx((expected.sum(0) * size).tolist())
    assert result.matrix.tolist() == sum(s.matrix for s in result.cases).tolist()
    assert result.distance_unit == ("m" if ndim == 2 else "mm")


@pytest.mark.parametrize("sides", [("0.977", "0.977", "3.27"), ("0.7", "0.7", "0.7")])
def test_at_the_default_tolerance_a_step_of_one_pixel_is_none(tmp_path, sides):
    spec, arrays = dataset(tmp_path, 3, cases=2)
    for number, (name, (_, truth)) in enumerate(arrays.items()):
        moved = np.roll(truth, 1, axis=number)
        write_volume(tmp_path / f"{name}_image.nii.gz", moved.astype(np.float32), map(float, sides))
        write_volume(tmp_path / f"{name}_labels.nii.gz", truth, map(float, sides))
    result = sf.evaluate(Reading(3), spec, out=tmp_path / "out")
    assert result.tolerance == pytest.approx(float(sides[2]), rel=1e-6)
    for case in result.cases:
        truth, found = pair(tmp_path / "out", spec, case.case)
        for k, value in enumerate(VALUES[3]):
            if value:
                slow = slow_distances(truth, found, value, sides, sides[2])
                assert case.nsd[k] == slow[1]
                assert (case.hd95[k], case.surface_distance[k]) == pytest.approx(
                    slow[::2], rel=1e-6
                )


def test_the_files_say_what_the_object_says(tmp_path):
    spec, _ = dataset(tmp_path, 3, cases=3)
    out = tmp_path / "out"
    result = sf.evaluate(Reading(3), spec, out=out)
    assert result.tolerance == 3.0  # the longest side of a voxel
    scores = json.loads((out / "scores.json").read_text())
    assert scores == json.loads(json.dumps(result.as_json()))
    assert scores["format"] == 1
    assert scores["confusion"] == result.matrix.tolist()
    low, high = scores["intervals"]["foreground_dice"]
    assert low <= scores["foreground_dice"] <= high
    dice = result.of_cases("dice")
    assert dice.shape == (3, 3)
    assert scores["foreground_dice"] == pytest.approx(dice[:, 1:].mean(), abs=1e-6)
    over = scores["classes"][2]["over_cases"]["hd95"]
    assert (over["cases"], over["missed"]) == (3, 0)
    assert over["mean"] == pytest.approx(result.of_cases("hd95")[:, 2].mean(), abs=1e-6)
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case.case, name) for case in result.cases for name in result.classes
    ]
    assert float(rows[4]["nsd"]) == pytest.approx(result.cases[1].nsd[1], rel=1e-5)
    assert rows[0]["hd95"] == ""
    error = float(rows[5]["predicted_millilitres"]) - float(rows[5]["reference_millilitres"])
    assert float(rows[5]["error_millilitres"]) == pytest.approx(error, rel=1e-4)
    html = (out / "scores.html").read_text()
    assert "wood &amp; &lt;meadow&gt;" in html
    assert "<meadow>" not in html


def test_absent_classes_are_left_out_and_invented_ones_are_counted(tmp_path):
    spec, arrays = dataset(tmp_path, 2, cases=2)
    truth = arrays["case0"][1]
    truth = np.where(truth == 5, 2, truth).astype(np.uint8)
    write_scene(tmp_path / "case0_labels.tif", truth, nodata=255)
    # In case0 nobody labelled a lake, and one is found; in case1 all is right.
    write_scene(
        tmp_path / "case1_image.tif", np.where(arrays["case1"][1] == 255, 1, arrays["case1"][1])
        .astype(np.float32),
    )  # fmt: skip
    result = sf.evaluate(Reading(2), spec, out=tmp_path / "out")
    first, second = result.cases
    assert (first.hd95[2], first.nsd[2], first.measures()["dice"][2]) == (math.inf, 0, 0)
    assert math.isnan(first.measures()["recall"][2])
    assert (second.hd95 == 0).all()
    assert (second.nsd == 1).all()
    lake = result.as_json()["classes"][2]["over_cases"]
    assert lake["hd95"] == {"mean": 0.0, "interval": [0.0, 0.0], "cases": 1, "missed": 1}
    assert lake["nsd"]["mean"] == 0.5
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["cases"][0]["classes"][2][
        "hd95"
    ] is None  # fmt: skip
    assert "inf" in (tmp_path / "out" / "scores.csv").read_text().splitlines()[3]


def test_what_was_not_looked_for_is_not_called_wrong(tmp_path):
    spec, _ = dataset(tmp_path, 2, cases=1)
    text = (tmp_path / "spec.yaml").read_text()
    text = text.replace("labels.tif}", "labels.tif, annotated: [field, lake]}")
    (tmp_path / "spec.yaml").write_text(text)
    spec = sf.load_spec(tmp_path / "spec.yaml")
    result = sf.evaluate(Reading(2), spec, out=tmp_path / "out")
    truth, found = pair(tmp_path / "out", spec, "case0")
    known = (truth >= 0) & (truth != 2) & (found != 2)
    assert ((truth >= 0) & (truth != 2) & (found == 2)).any()
    expected = confusion_matrix(truth[known], found[known], labels=VALUES[2])
    assert result.matrix.tolist() == expected.tolist()


def test_probabilities_are_counted_over_the_regions(tmp_path, monkeypatch):
    monkeypatch.setitem(BLOCK, 2, 9)
    spec, arrays = dataset(tmp_path, 2, regions=", cols: [5, 40]")
    model = Reading(2, sharpness=4.0)
    result = sf.evaluate(model, spec, out=tmp_path / "out", calibration=True, blend="constant")
    confidences, rights = [], []
    for scan, truth in arrays.values():
        probabilities = model(scan[..., None], None)[:, 5:40]
        known = (truth[:, 5:40] != 255) & ~np.isnan(scan[:, 5:40])
        rights.append(np.array(VALUES[2])[probabilities.argmax(-1)] == truth[:, 5:40])
        confidences.append(probabilities.max(-1)[known])
        rights[-1] = rights[-1][known]
    confidence, right = np.concatenate(confidences), np.concatenate(rights)
    assert result.calibration.pixels.sum() == len(right)
    place = np.ceil(confidence * 15).astype(int)
    error = sum(
        abs(right[place == k].sum() - confidence[place == k].sum()) for k in range(1, 16)
    ) / len(right)
    assert result.calibration.error == pytest.approx(error, abs=1e-4)
    assert result.calibration.temperature > 1.5, "it is far too sure of itself"
    written = json.loads((tmp_path / "out" / "scores.json").read_text())["calibration"]
    assert written["ece"] == pytest.approx(error, abs=1e-4)
    assert "too sure of itself" in (tmp_path / "out" / "scores.html").read_text()


def slow_calibration(spec, arrays, hidden):
    """Return ECE and temperature where labels show a class as background, or leave it out."""
    values, parts = VALUES[spec.ndim], []
    for name, (scan, _) in arrays.items():
        probabilities = Reading(spec.ndim, 2.0)(scan[..., None], None).astype(float)
        truth = read(spec.path(spec.case(name).labels))
        known = np.isin(truth, values[:2]) & ~np.isnan(scan)
        known &= np.array(values)[probabilities.argmax(-1)] != hidden
        parts.append((probabilities[known], (truth[known] == values[1]).astype(int)))
    probabilities, truth = map(np.concatenate, zip(*parts, strict=True))
    taken = probabilities.argmax(-1)
    assert set(taken) == {0, 1}

    def shown(temperature):
        warm = probabilities ** (1 / temperature)
        first = warm[:, 0] + (warm[:, 2] if 0 in values else 0)
        return np.stack([first, warm[:, 1]], -1) / (first + warm[:, 1])[:, None]

    def cost(parameters):
        return -np.log(np.take_along_axis(shown(np.exp(parameters[0])), truth[:, None], 1)).mean()

    confidence = np.take_along_axis(shown(1.0), taken[:, None], 1)[:, 0]
    place, gaps = np.ceil(confidence * 15), (taken == truth) - confidence
    error = sum(abs(gaps[place == k].sum()) for k in range(1, 16)) / len(truth)
    return error, np.exp(minimize(cost, [0.0], method="Nelder-Mead", tol=1e-9).x[0])


@pytest.mark.parametrize("ndim", [2, 3])
def test_calibration_counts_the_pixels_that_are_scored(tmp_path, ndim):
    spec, arrays = dataset(tmp_path, ndim)
    whole = sf.evaluate(Reading(ndim, 2.0), spec, out=tmp_path / "whole", calibration=True)
    hidden = VALUES[ndim][2]
    if ndim == 3:  # nobody drew it, so that it is background in the labels
        for name, (_, truth) in arrays.items():
            write_volume(tmp_path / f"{name}_labels.nii.gz", np.where(truth == hidden, 0, truth))
    text = (tmp_path / "spec.yaml").read_text()
    for end in ("labels.tif", "labels.nii.gz"):
        text = text.replace(f"{end}}}", f"{end}, annotated: [field, 'wood & <meadow>']}}")
    (tmp_path / "spec.yaml").write_text(text)
    spec = sf.load_spec(tmp_path / "spec.yaml")
    part = sf.evaluate(Reading(ndim, 2.0), spec, out=tmp_path / "part", calibration=True)
    for result in (whole, part):
        counted = result.calibration
        assert counted.pixels.sum() == result.matrix.sum()
        right = np.nansum(counted.right * counted.pixels)
        assert right == pytest.approx(np.trace(result.matrix))
    assert part.matrix.sum() < whole.matrix.sum()
    error, temperature = slow_calibration(spec, arrays, hidden)
    assert part.calibration.error == pytest.approx(error, abs=1e-4)
    assert part.calibration.temperature == pytest.approx(temperature, rel=1e-3)
    assert temperature < 10, "classes that are not labelled are no mistakes"


def test_scans_of_one_patient_are_drawn_together(tmp_path, capsys):
    """Each patient has the same scan twice, which says no more than once."""
    spec, _ = dataset(tmp_path, 3, cases=4, shape=(11, 12, 9))
    once = sf.evaluate(Reading(3), spec, out=tmp_path / "once", distances=False)
    text = (tmp_path / "spec.yaml").read_text()
    lines, names = [], []
    for line in text.splitlines():
        if not line.startswith("  - {id: case"):
            lines.append(line)
            continue
        name = line.split()[2].rstrip(",")
        for copy in "ab":
            names.append(f"{name}{copy}")
            group = f", groups: {{patient: p{name}}}}}"
            lines.append(
                line.replace(f"id: {name},", f"id: {name}{copy},").removesuffix("}") + group
            )
    test = ", ".join(f"{{case: {name}}}" for name in names)
    lines[-1] = f"  test: [{test}]"
    (tmp_path / "spec.yaml").write_text("\n".join([*lines, "group_by: patient", ""]))
    spec = sf.load_spec(tmp_path / "spec.yaml")
    twice = sf.evaluate(Reading(3), spec, out=tmp_path / "out", distances=False)
    assert len(twice.cases) == 8
    for name, interval in once.intervals().items():
        assert twice.intervals()[name] == pytest.approx(interval)
    dice = twice.over_cases("dice", 1)
    assert dice["interval"] == pytest.approx(once.over_cases("dice", 1)["interval"])
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (written["group_by"], written["groups"]) == ("patient", 4)
    assert [case["group"] for case in written["cases"][1:3]] == ["pcase0", "pcase1"]
    said = "from drawing 4 groups of cases (group_by: patient) again and again"
    assert said in (tmp_path / "out" / "scores.html").read_text()
    print_scores(twice)
    assert said in capsys.readouterr().out
    print_scores(once)
    assert "from drawing 4 cases again and again" in capsys.readouterr().out


def test_distances_that_take_too_much_memory_are_left_out_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("segfocal.evaluation.DEFAULT_POINT_BYTES", 20_000)
    spec, _ = dataset(tmp_path, 2, cases=1)
    result = sf.evaluate(Reading(2), spec, out=tmp_path / "a")
    assert np.isnan(result.cases[0].hd95).all()
    assert "max_memory" in result.notes[0]
    assert "max_memory" in (tmp_path / "a" / "scores.html").read_text()
    without = sf.evaluate(Reading(2), spec, out=tmp_path / "b", distances=False)
    assert without.notes == ()
    assert without.tolerance is None
    assert without.matrix.tolist() == result.matrix.tolist()


def test_results_that_are_there_stay_unless_asked(tmp_path):
    spec, _ = dataset(tmp_path, 2, cases=1)
    out = tmp_path / "out"
    sf.evaluate(Reading(2), spec, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"scores.json", "scores.csv", "scores.html", "case0.tif"} <= set(before)
    with pytest.raises(OutputExistsError, match=r"scores\.json"):
        sf.evaluate(Reading(2), spec, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(GeometryError, match="tolerance -1"):
        sf.evaluate(Reading(2), spec, out=out, tolerance=-1, overwrite=True)
