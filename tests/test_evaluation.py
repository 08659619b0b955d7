"""Evaluation of whole scans against scores computed from whole arrays, the slow way."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
from scored import VALUES, Reading, dataset, write_scene
from sklearn.metrics import confusion_matrix

import segfocal as sf
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


def surface(labels, value, spacing):
    """Return the boundary pixels of a class, one by one, in units of the spacing."""
    points = []
    for place in np.argwhere(labels == value):
        for axis in range(labels.ndim):
            for step in (-1, 1):
                there = place.copy()
                there[axis] += step
                beyond = not 0 <= there[axis] < labels.shape[axis]
                if beyond or labels[tuple(there)] not in (-1, value):
                    points.append(tuple(place))
    return np.array(sorted(set(points))) * np.array(spacing)


def slow_distances(truth, found, value, spacing, tolerance):
    a, b = surface(truth, value, spacing), surface(found, value, spacing)
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    nsd = ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(a) + len(b))
    return hd95, nsd, np.concatenate([there, back]).mean()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("regions", ["", ", rows: [3, 15]"])
def test_every_score_is_that_of_the_whole_arrays(tmp_path, monkeypatch, ndim, regions):
    monkeypatch.setitem(BLOCK, ndim, 7)  # many blocks, which no result may show
    spec, _ = dataset(tmp_path, ndim, regions=regions)
    out = tmp_path / "out"
    tolerance = 2.5 if ndim == 3 else 15.0
    result = sf.evaluate(Reading(ndim), spec, out=out, tolerance=tolerance)
    rows = (slice(None),) * (ndim - 2) + (slice(3, 15),)
    spacing = (10.0, 10.0) if ndim == 2 else (1.0, 1.5, 3.0)
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
