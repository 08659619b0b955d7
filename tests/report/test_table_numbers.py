"""What the report shows is what the JSON and the CSV hold, cell by cell and by heading."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from scored import NAMES, Reading, dataset, write_scene, write_volume

import segfocal as sf
from segfocal.cli.score_table import print_scores


class Tables(HTMLParser):
    """Collects tables by id, rows of (text, data-key), and tiles of texts."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tiles = {}, []
        self._rows = self._cell = self._tile = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "table":
            self._rows = self.tables.setdefault(given.get("id"), [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._cell = ["", given.get("data-key")]
            self._rows[-1].append(self._cell)
        elif tag == "div":
            self._tile = [] if given.get("class") == "tile" else None
            if self._tile is not None:
                self.tiles.append(self._tile)
        elif tag in ("span", "b") and self._tile is not None:
            self._tile.append("")

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[0] += data
        elif self._tile:
            self._tile[-1] += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None
        elif tag == "table":
            self._rows = None
        elif tag == "div":
            self._tile = None

    def rows(self, name):
        """Return a dict of heading to (text, key) for each row of a table."""
        head, *rows = self.tables[name]
        headings = [text for text, _ in head]
        assert len(set(headings)) == len(headings)
        return [dict(zip(headings, row, strict=True)) for row in rows]


@pytest.fixture(scope="module", params=[2, 3])
def written(request, tmp_path_factory):
    """An evaluation in which classes are missing here and there, as page, JSON and CSV."""
    folder = tmp_path_factory.mktemp("written")
    spec, arrays = dataset(folder, request.param, cases=5)
    scan, truth = arrays["case0"]
    if spec.ndim == 2:
        # No lake in the labels of case0, and field in all of the scan of case1.
        write_scene(
            folder / "case0_labels.tif", np.where(truth == 5, 2, truth).astype("u1"), nodata=255
        )
        write_scene(folder / "case1_image.tif", np.ones_like(scan))
    else:
        write_volume(folder / "case0_labels.nii.gz", np.where(truth == 4, 3, truth).astype("u1"))
        write_volume(folder / "case1_image.nii.gz", np.zeros_like(scan))
    sf.evaluate(Reading(spec.ndim, 3.0), spec, out=folder / "out", calibration=True)
    html = (folder / "out" / "scores.html").read_text()
    with (folder / "out" / "scores.csv").open(newline="") as file:
        rows = {(row["case"], row["class"]): row for row in csv.DictReader(file)}
    return html, json.loads((folder / "out" / "scores.json").read_text()), rows


def number(text):
    return float("".join(text.split()))


def check(cell, value, digits=3):
    """Hold a cell against a number (None: there is none); digits None: three significant ones."""
    text, key = cell
    if value is None:
        assert (text, float(key)) == ("–", -np.inf)
    elif np.isinf(value):
        assert (text, float(key)) == ("∞", np.inf)
    elif digits is None:
        assert number(text) == pytest.approx(value, rel=6e-3)
        assert float(key) == pytest.approx(value, rel=1e-5, abs=1e-6)
    else:
        assert number(text) == pytest.approx(value, abs=0.5 * 10**-digits + 2e-6)
        assert re.fullmatch(rf"-?\d+\.\d{{{digits}}}" if digits else r"[\d\s]+", text)
        assert float(key) == pytest.approx(value, rel=1e-5, abs=1e-6)


def of_csv(text):
    return None if text == "" else float(text)


def test_the_class_table_holds_what_the_json_holds(written):
    html, scores, _ = written
    rows = Tables(html).rows("classes")
    assert [row["class"][0] for row in rows] == list(NAMES)
    unit = scores["distance_unit"]
    seen = []
    for row, one in zip(rows, scores["classes"], strict=True):
        over = one["over_cases"]
        expected = {
            "IoU": (one["iou"], 3),
            "Dice": (one["dice"], 3),
            "precision": (one["precision"], 3),
            "recall": (one["recall"], 3),
            "Dice over cases": (over["dice"]["mean"], 3),
            f"HD95 ({unit})": (over["hd95"]["mean"], None),
            f"NSD ({scores['tolerance']:g} {unit})": (over["nsd"]["mean"], 3),
            "pixels": (one["pixels"], 0),
            "HD95 ∞": (over["hd95"]["missed"], 0),
        }
        assert set(row) == {"class", *expected}
        for heading, (value, digits) in expected.items():
            check(row[heading], value, digits)
        known = [value for value, _ in expected.values() if value is not None]
        seen.append(len({round(value, 3) for value in known}) == len(known))
    assert sum(seen) >= 2, "scores that are equal would let columns be swapped"
    assert any(one["over_cases"]["hd95"]["missed"] for one in scores["classes"])


def test_the_case_table_holds_what_json_and_csv_hold(written):
    html, scores, table = written
    rows = Tables(html).rows("cases")
    assert [row["case"][0] for row in rows] == [case["case"] for case in scores["cases"]]
    foreground = [name for name in NAMES if any(table[case, name]["hd95"] for case, _ in table)]
    texts = []
    for row, case in zip(rows, scores["cases"], strict=True):
        expected = {
            "pixels": (case["pixels"], 0),
            "accuracy": (case["accuracy"], 3),
            "mean IoU": (case["mean_iou"], 3),
            "mean Dice": (case["mean_dice"], 3),
        }
        for name in foreground:
            one = table[case["case"], name]
            expected[f"Dice {name}"] = of_csv(one["dice"]), 3
            expected[f"HD95 {name}"] = of_csv(one["hd95"]), None
        assert set(row) == {"case", *expected}
        for heading, (value, digits) in expected.items():
            check(row[heading], value, digits)
        assert case["mean_iou"] < case["mean_dice"] - 0.01
        texts += [text for text, _ in row.values()]
    assert "∞" in texts
    assert len(foreground) == (2 if scores["distance_unit"] == "mm" else 3)


def test_tiles_show_each_score_with_its_own_interval(written):
    html, scores, _ = written
    shown = {name: (text, *interval) for name, text, *interval in Tables(html).tiles}
    names = {
        "accuracy": "accuracy",
        "mean IoU": "mean_iou",
        "mean Dice": "mean_dice",
        "foreground Dice, mean over cases": "foreground_dice",
    }
    assert ("foreground Dice, mean over cases" in shown) == (len(shown) == 5)
    for title, name in names.items():
        if title in shown:
            text, interval = shown.pop(title)
            assert text == f"{scores[name]:.3f}"
            low, high = scores["intervals"][name]
            assert interval == f"{low:.3f} – {high:.3f} (95 %)"
    assert shown == {"calibration error": (f"{scores['calibration']['ece']:.3f}",)}
    intervals = [tuple(one) for one in scores["intervals"].values()]
    assert len(set(intervals)) == 4


def test_sizes_and_their_errors_are_those_of_the_csv(written):
    html, _, table = written
    unit = "hectares" if "Areas in hectares" in html else "millilitres"
    rows = Tables(html).rows("sizes")
    signs = set()
    for row, name in zip(rows, NAMES, strict=True):
        assert row.pop("class")[0] == name
        own = [one for (_, which), one in table.items() if which == name]
        reference, found, error = (
            np.array([float(one[f"{what}_{unit}"]) for one in own])
            for what in ("reference", "predicted", "error")
        )
        difference = found.sum() - reference.sum()
        expected = {
            "reference": (reference.sum(), 2),
            "prediction": (found.sum(), 2),
            "difference": (difference, 2),
            "%": (100 * difference / reference.sum(), 1),
            "mean |difference| per case": (np.abs(error).mean(), 2),
        }
        assert set(row) == set(expected)
        for heading, (value, digits) in expected.items():
            text, key = row[heading]
            assert number(text) == pytest.approx(value, abs=0.5 * 10**-digits + 2e-3)
            assert float(key) == pytest.approx(value, rel=1e-3, abs=1e-4)
        signs.add(np.sign(difference))
    assert signs == {-1, 1}


def test_bars_of_the_reliability_chart_are_the_bins_of_the_json(written):
    html, scores, _ = written
    bins = scores["calibration"]["bins"]
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", html, re.DOTALL) if "<rect" in f)
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", figure, re.DOTALL).group())
    (diagonal,) = [line for line in svg.iter("line") if line.get("class") != "grid"]
    x0, x1, y0, y1 = (float(diagonal.get(key)) for key in ("x1", "x2", "y1", "y2"))
    bars = list(svg.iter("rect"))
    drawn = [(k, one) for k, one in enumerate(bins) if one["pixels"]]
    assert len(bars) == len(drawn) >= 5
    total = sum(one["pixels"] for one in bins)
    for bar, (k, one) in zip(bars, drawn, strict=True):
        left, top, width, height = (float(bar.get(key)) for key in ("x", "y", "width", "height"))
        assert left == pytest.approx(x0 + k / len(bins) * (x1 - x0), abs=0.06)
        assert width == pytest.approx((x1 - x0) / len(bins) - 1, abs=0.06)
        assert top == pytest.approx(y0 + one["right"] * (y1 - y0), abs=0.06)
        assert top + height == pytest.approx(y0, abs=0.11)
        assert bar.find("title").text == (
            f"{one['pixels'] / total:.1%} of pixels: confidence {one['confidence']:.3f}, "
            f"right {one['right']:.3f}"
        )
    assert any(abs(one["right"] - one["confidence"]) > 0.05 for _, one in drawn)


def test_distances_in_degrees_have_three_digits(tmp_path, capsys):
    spec, _ = dataset(tmp_path, 2, cases=2)
    for path in tmp_path.glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.crs = "EPSG:4326"
            file.transform = rasterio.Affine(9e-5, 0, -4, 0, -8e-5, 40)
    result = sf.evaluate(Reading(2), spec, out=tmp_path / "out")
    assert result.distance_unit == "degrees"
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        table = {(row["case"], row["class"]): row for row in csv.DictReader(file)}
    page = Tables((tmp_path / "out" / "scores.html").read_text())
    print_scores(result)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[:4]]
    means = {}
    for name in NAMES:
        own = [float(one["hd95"]) for (_, which), one in table.items() if which == name]
        means[name] = np.mean(own)
        assert 1e-5 < means[name] < 1e-2
    assert printed.pop(0)[-3:] == ["HD95", "NSD", "pixels"]
    # IoU, Dice, precision, recall, HD95, NSD, pixels
    assert [float(row[-3]) for row in printed] == [float(f"{means[n]:.3g}") for n in NAMES]
    for row in page.rows("classes"):
        name = row["class"][0]
        (text,) = [cell[0] for heading, cell in row.items() if heading.startswith("HD95 (")]
        assert float(text) == float(f"{means[name]:.3g}")
        assert re.fullmatch(r"0\.0*\d{3}|\d\.\d\de-\d+", text)
    for row in page.rows("cases"):
        for name in NAMES:
            value = float(table[row["case"][0], name]["hd95"])
            assert float(row[f"HD95 {name}"][0]) == float(f"{value:.3g}")
