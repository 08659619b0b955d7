"""The pages of a run and of an evaluation, and the pictures in them."""

from __future__ import annotations

import base64
import io
import re
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio
from PIL import Image
from scored import COLORS, VALUES, Reading, dataset, write_scene

import segfocal as sf
from segfocal.data.reading import BLOCK, open_regions
from segfocal.report import run_page, views
from segfocal.report.page import facts, text_of
from segfocal.report.views import case_view, view_html


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Nine scenes and their evaluation."""
    folder = tmp_path_factory.mktemp("scenes")
    spec, arrays = dataset(folder, 2, cases=9)
    return spec, arrays, sf.evaluate(Reading(2), spec, out=folder / "out"), folder / "out"


def pictures(html):
    """Return the images of a page, as arrays, by what they show."""
    found = {}
    for tag in re.findall(r"<img[^>]*>", html):
        data = base64.b64decode(re.search(r"base64,([^\"]*)", tag).group(1))
        name = re.search(r"alt=\"([^\"]*)", tag).group(1)
        found.setdefault(name, []).append(np.asarray(Image.open(io.BytesIO(data))))
    return found


def test_worst_cases_come_first_and_then_the_best(scenes):
    *_, result, out = scenes
    html = (out / "scores.html").read_text()
    titles = re.findall(r"<figure class=\"view\"[^>]*><h3>(\w+): (\w+),", html)
    order = sorted(result.cases, key=lambda case: case.mean_dice)
    assert titles == [
        *(("worst", case.case) for case in order[:4]),
        *(("best", case.case) for case in order[:-3:-1]),
    ]


def test_tables_have_a_row_per_class_and_per_case(scenes):
    *_, result, out = scenes
    html = (out / "scores.html").read_text()
    cases = re.search(r'<table class="sortable" id="cases">.*?</table>', html).group()
    assert re.findall(r'<tr><td data-key="(\w+)"', cases) == [case.case for case in result.cases]
    for case in result.cases:
        assert f'data-key="{case.accuracy}"' in cases
    assert html.count("<figure") == 6


def test_layers_show_labels_prediction_and_errors_pixel_by_pixel(scenes):
    spec, arrays, _, out = scenes
    with ExitStack() as stack:
        reader = open_regions(spec, "test", stack)[3]
        view = case_view(reader, out / "case3.tif")
        html = view_html(view, spec.classes, title="t", name="v", background=1)
    layers = pictures(html)
    truth = arrays["case3"][1]
    found = view.found
    assert (found[-4:, -3:] == -1).all()
    for name, expected in (("reference", view.reference), ("prediction", found)):
        (layer,) = layers[name]
        for k, color in enumerate(COLORS):
            assert (layer[expected == k] == [*color, 0 if k == 1 else 255]).all()
        assert (layer[expected == -1][:, 3] == 0).all()
    valid = ~np.isnan(arrays["case3"][0])
    for k, value in enumerate(VALUES[2]):
        np.testing.assert_array_equal(view.reference == k, (truth == value) & valid)
    (errors,) = layers["errors"]
    known = (view.reference >= 0) & (found >= 0)
    wrong = known & (view.reference != found)
    assert wrong.any()
    np.testing.assert_array_equal(errors[..., 3] == 0, known & ~wrong)
    assert (errors[wrong] == [200, 30, 60, 255]).all()


def test_what_is_not_scored_is_not_drawn_as_wrong(tmp_path):
    spec, arrays = dataset(tmp_path, 2, cases=1)
    text = (tmp_path / "spec.yaml").read_text()
    text = text.replace("labels.tif}", "labels.tif, annotated: [field, lake]}")
    (tmp_path / "spec.yaml").write_text(text)
    spec = sf.load_spec(tmp_path / "spec.yaml")
    result = sf.evaluate(Reading(2), spec, out=tmp_path / "out")
    layers = pictures((tmp_path / "out" / "scores.html").read_text())
    (errors,), (predicted,) = layers["errors"], layers["prediction"]
    wrong = (errors == [200, 30, 60, 255]).all(-1)
    right = errors[..., 3] == 0
    matrix = result.matrix
    assert right.sum() == np.trace(matrix)
    assert wrong.sum() == matrix.sum() - np.trace(matrix) > 0
    with rasterio.open(tmp_path / "out" / "case0.tif") as file:
        taken = file.read(1)
    other = (taken == 2) & (arrays["case0"][1] == 5)
    assert other.any()
    assert not (wrong | right)[other].any()
    assert (predicted[other] == [*COLORS[1], 255]).all(), "the prediction itself is shown"


@pytest.mark.parametrize("block", [13, 1024])
def test_large_regions_are_thinned_evenly(tmp_path, monkeypatch, block):
    monkeypatch.setattr(views, "SIDE", 20)
    monkeypatch.setitem(BLOCK, 2, block)
    spec, arrays = dataset(tmp_path, 2, cases=1, regions=", cols: [4, 45]")
    write_scene(tmp_path / "found.tif", arrays["case0"][1], nodata=255)
    with ExitStack() as stack:
        (reader,) = open_regions(spec, "test", stack)
        view = case_view(reader, tmp_path / "found.tif")
    expected = arrays["case0"][1][::4, 4:45:4]  # 61 rows in at most 20
    valid = ~np.isnan(arrays["case0"][0][::4, 4:45:4])
    for k, value in enumerate(VALUES[2]):
        np.testing.assert_array_equal(view.found == k, (expected == value) & valid)
    assert view.picture.shape == (*expected.shape, 3)
    assert view.aspect == pytest.approx(41 / 61)
    assert "1 of 4 pixels" in view.caption


def test_of_a_volume_the_plane_with_most_of_all_classes_is_shown_upright(tmp_path, monkeypatch):
    monkeypatch.setitem(BLOCK, 3, 6)
    spec, arrays = dataset(tmp_path, 3, cases=1, regions=", cols: [2, 15]")
    truth = arrays["case0"][1]
    with ExitStack() as stack:
        (reader,) = open_regions(spec, "test", stack)
        view = case_view(reader, tmp_path / "case0_labels.nii.gz")
    counts = [np.log1p((truth == value).sum((0, 1))) for value in (3, 4)]
    best = int(np.argmax(np.sum(counts, 0)[2:15])) + 2
    assert view.caption == f"axial, slice {best}"
    # RAS: the first axis points to the right of the picture, the second up.
    plane = np.rot90(truth[:, :, best])
    np.testing.assert_array_equal(np.array([0, 3, 4])[view.reference], plane)
    np.testing.assert_array_equal(view.found, view.reference)
    assert view.aspect == pytest.approx(19 * 1.0 / (23 * 1.5))


def test_a_run_shows_its_curves_plan_and_classes(tmp_path):
    spec, _ = dataset(tmp_path, 2)
    spec = spec.model_copy(update={"splits": {"train": spec.splits["test"]}})
    plan = sf.make_plan(spec, patch=(32, 32), steps=30, batch_size=2)
    log = [
        {"step": 10, "seconds": 1.0, "loss": 2.0, "mean_iou": 0.1, "val_loss": 2.5},
        {"step": 20, "seconds": 2.0, "loss": 1.0, "mean_iou": 0.4, "val_loss": 1.5, "note": "x"},
    ]
    html = run_page(spec, plan, log, seconds=130)
    assert "20 of 30 steps in 2 min" in html
    assert re.findall(r"<figure><h3>(.*?)</h3>", html) == ["loss", "mean IoU"]
    assert "<title>training: 2 at 10</title>" in html
    assert "<title>validation: 1.5 at 20</title>" in html
    assert "<tr><th>patch</th><td>32 × 32</td>" in html
    assert "<tr><th>card.<wbr>tile</th><td>64 × 64</td>" in html
    assert "<tr><th>card.<wbr>resolution</th><td>" in html
    assert "<tr><th>card.<wbr>resolution</th><td></td>" not in html
    for pixels in plan.class_pixels:
        assert f'<td data-key="{pixels}">' in html
    assert "wood &amp; &lt;meadow&gt;" in html
    assert run_page(spec, plan, [])  # a run that was stopped before its first line


def test_with_several_heads_the_score_is_that_of_the_one_that_is_saved(tmp_path):
    spec, _ = dataset(tmp_path, 2)
    spec = spec.model_copy(update={"splits": {"train": spec.splits["test"]}})
    plan = sf.make_plan(spec, patch=(32, 32), steps=30, batch_size=2)
    line = {"loss": 2.0, "logits_loss": 1.0, "logits_p1_loss": 3.0, "logits_p2_loss": 4.0}
    line |= {"logits_mean_iou": 0.25, "val_logits_mean_iou": 0.125, "val_logits_p1_loss": 5.0}
    html = run_page(spec, plan, [{"step": 10, "seconds": 1.0, **line}])
    assert re.findall(r"<figure><h3>(.*?)</h3>", html) == [
        "loss", "loss at full resolution", "loss at 1/2 resolution", "loss at 1/4 resolution",
        "mean IoU",
    ]  # fmt: skip
    assert re.findall(r'<div class="tile"><span>(.*?)</span><b>(.*?)</b>', html) == [
        ("loss, at the end", "2.000"), ("mean IoU, at the end", "0.250"),
        ("val mean IoU, at the end", "0.125"),
    ]  # fmt: skip
    assert "<title>validation: 5 at 10</title>" in html
    assert "<title>validation: 0.125 at 10</title>" in html
    assert "logits" not in html


def test_volumes_are_ranked_by_what_is_not_background(tmp_path):
    spec, _ = dataset(tmp_path, 3, cases=8, shape=(15, 14, 9))
    result = sf.evaluate(Reading(3), spec, out=tmp_path / "out", distances=False)
    html = (tmp_path / "out" / "scores.html").read_text()
    found = re.findall(r"(worst|best): (\w+), foreground Dice ([\d.]+)<", html)
    scores = result.of_cases("dice")[:, 1:].mean(1)
    order = np.argsort(scores)
    expected = [*order[:4], *order[:-3:-1]]
    assert [name for _, name, _ in found] == [f"case{number}" for number in expected]
    assert [float(score) for *_, score in found] == pytest.approx(scores[expected], abs=5e-4)


def test_names_may_be_broken_after_full_stops_and_zero_has_no_sign():
    assert facts([("card.<b>", "x")], reasons=True) == (
        '<div class="wide"><table class="facts reasons"><tbody><tr><th>card.<wbr>&lt;b&gt;</th>'
        "<td>x</td></tr></tbody></table></div>"
    )
    shown = [text_of(value, 2) for value in (-0.001, -0.004999, 0.0, -0.01, float("-inf"))]
    assert shown == ["0.00", "0.00", "0.00", "-0.01", "∞"]
    lengths = (None, float("nan"), float("inf"), 0.0, 0.000236)
    assert [text_of(value, None) for value in lengths] == ["–", "–", "∞", "0", "0.000236"]
