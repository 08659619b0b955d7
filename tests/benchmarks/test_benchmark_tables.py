"""Tables, plots and pages of the benchmarks, from measurements made up here."""

from __future__ import annotations

import importlib
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
SPEED = ("network_speed", "volume_speed", "end_to_end", "attention", "training_step", "start_up")


@pytest.fixture
def load(monkeypatch):
    """Import a script of the benchmarks as it imports its neighbours."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_ratios_are_medians_of_the_ratios_of_each_round(load):
    measured = load("turns").Measured
    # The second round is slow for both, the third for one only.
    ours, peer = measured(seconds=[1.0, 4.0, 1.0]), measured(seconds=[2.0, 8.0, 9.0])
    assert ours.median == 1.0
    assert ours.ratio(peer) == 2.0
    assert peer.ratio(ours) == 0.5


def test_table_of_networks(load):
    speed, measured = load("network_speed"), load("turns").Measured
    second = 2 * 2048**3 / 100e9  # of a product at 100 GFLOP/s
    found = {
        "FocalUNet, OpenVINO float32": measured(seconds=[0.5] * 3, peak_bytes=200_000_000),
        "FocalUNet, OpenVINO int8": measured(seconds=[0.25] * 3, peak_bytes=10**8),
        "MONAI SwinUNETR": measured(left_out="needs einops"),
        "MONAI DynUNet": measured(seconds=[1.0] * 3, parameters=20_600_000, peak_bytes=10**9),
        "matrix product, numpy": measured(seconds=[2 * second] * 3),
        "matrix product, TensorFlow": measured(seconds=[second] * 3),
        "matrix product, PyTorch": measured(left_out="needs torch"),
    }
    # 40 GFLOP in half a second are 80 of 100 GFLOP/s.
    assert speed.rows(found, 2_000_000, 40 * 10**9, 35_000_000) == [
        ["FocalUNet, OpenVINO float32", "35.0 M", "500", "4.00", "1.00", "80%", "200"],
        ["FocalUNet, OpenVINO int8", "35.0 M", "250", "8.00", "2.00", "", "100"],
        ["MONAI SwinUNETR", "", "", "", "", "", "needs einops"],
        ["MONAI DynUNet", "20.6 M", "1000", "2.00", "0.50", "", "1000"],
    ]


def test_tables_of_attention_training_and_start_up(load):
    measured = load("turns").Measured
    attention, step = load("attention"), load("training_step")
    names = list(attention.ENTRIES)
    found = {
        8: {
            names[0]: measured(seconds=[0.002], grown_bytes=10**7),
            names[1]: measured(seconds=[0.008], grown_bytes=3 * 10**7),
        },
        64: {
            names[0]: measured(seconds=[0.1], grown_bytes=10**8),
            names[1]: measured(left_out="does not fit into 1 GB"),
        },
    }
    assert attention.cells(found) == [
        ["8 × 8", "focal modulation, TensorFlow", "2.0", "1.00", "10"],
        ["8 × 8", "attention, TensorFlow", "8.0", "4.00", "30"],
        ["64 × 64", "focal modulation, TensorFlow", "100.0", "1.00", "100"],
        ["64 × 64", "attention, TensorFlow", "does not fit into 1 GB", "", ""],
    ]
    found = {
        "FocalUNet": measured(seconds=[1.0], parameters=10**6, peak_bytes=10**9),
        "MONAI DynUNet": measured(seconds=[2.0], parameters=2 * 10**6, peak_bytes=2 * 10**9),
    }
    assert step.rows(found) == [
        ["FocalUNet", "1.0 M", "1.000", "1.00", "1000"],
        ["MONAI DynUNet", "2.0 M", "2.000", "0.50", "2000"],
    ]
    start = load("start_up")
    seconds = {start.PASS: [0.01, 0.01], start.TENSORFLOW: [4.0, 6.0], "first": [1.0, 1.5]}
    assert start.rows(seconds)[2] == ["first", "1.25", "0.25", "125"]


def test_table_of_scenes_compares_per_pixel_where_the_peer_did_not_run(load):
    scenes = load("end_to_end")
    ours = {"seconds": 10.0, "peak_bytes": 10**9, "of_forward": 1.04, "started": 1.01}
    peer = {"seconds": 50.0, "peak_bytes": 3 * 10**9}
    large = {**ours, "seconds": 20.0}
    found = {
        2000: [{scenes.FLOAT32: large, scenes.IDENTITY: {**peer, "peak_bytes": 4 * 10**9}}],
        1000: [{scenes.FLOAT32: ours, scenes.SWIN: peer, scenes.IDENTITY: peer}],
    }
    rows = scenes.rows(found)
    assert rows[0] == ["1000 × 1000", "segfocal, float32", "10.0", "0.10", "5.00", "1.040",
                       "1.010", "1000", "0.33"]  # fmt: skip
    # Four times the pixels in twice the time.
    assert rows[3][4:] == ["10.00 (its 1000 × 1000)", "1.040", "1.010", "1000", "0.25 (identity)"]
    assert rows[1][:4] == ["1000 × 1000", "MONAI, SwinUNETR", "50.0", "0.02"]


def test_bars_are_as_long_as_their_values(load, tmp_path):
    path = tmp_path / "bars.svg"
    load("plots").bar_plot(path, "a < b", {"ours": 1.0, "theirs & co": 4.0}, "ms", "ours")
    root = ET.parse(path).getroot()
    assert root.find(f"{SVG}title").text == "a < b"
    bars = [one for one in root.findall(f"{SVG}rect") if one.get("x")]
    lengths = [float(bar.get("width")) for bar in bars]
    assert lengths[1] / lengths[0] == pytest.approx(4, rel=1e-4)
    assert bars[0].get("fill") != bars[1].get("fill")
    assert "theirs & co" in [text.text for text in root.findall(f"{SVG}text")]


def test_lines_have_logarithmic_axes(load, tmp_path):
    path = tmp_path / "lines.svg"
    curves = {"quadratic": [(16, 1.0), (32, 4.0), (64, 16.0)], "short": [(16, 2.0)]}
    load("plots").line_plot(path, "t", curves, "side", "ms")
    lines = [one.get("points").split() for one in ET.parse(path).getroot().iter(f"{SVG}polyline")]
    places = [tuple(map(float, point.split(","))) for point in lines[0]]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert y1 < y0  # up
    # From 1 to 100 the axis is 300 high; a factor of four takes its share of two decades.
    assert y0 - y1 == pytest.approx(300 * math.log10(4) / 2, abs=0.2)
    assert len(lines[1]) == 1


def test_tables_of_pages_come_into_their_places(load, tmp_path):
    collected = load("collect").collected
    place = "<!-- page: one.md -->\nold\n<!-- end of page -->"
    text = f"# All\n\n{place}\n\nBetween.\n\n{place.replace('one', 'two')}\n"
    (tmp_path / "one.md").write_text("Text\n<!-- tables -->\n\n| 1 |\n\n<!-- end of tables -->\n")
    found = collected(text, tmp_path)
    assert found == (
        "# All\n\n<!-- page: one.md -->\n\n| 1 |\n\n<!-- end of page -->\n\nBetween.\n\n"
        "<!-- page: two.md -->\n\nNot measured yet.\n\n<!-- end of page -->\n"
    )
    assert collected(found, tmp_path) == found
    (tmp_path / "two.md").write_text("no tables")
    with pytest.raises(ValueError, match=r"two\.md: no tables"):
        collected(text, tmp_path)


def test_the_page_is_as_it_is_collected_and_names_every_benchmark(load):
    page = (FOLDER / "README.md").read_text()
    assert load("collect").collected(page, FOLDER) == page, "run benchmarks/collect.py"
    scripts = {
        path.name
        for path in FOLDER.glob("*.py")
        if '"__main__"' in path.read_text() and path.name != "forward_passes.py"
    }
    assert set(re.findall(r"benchmarks/(\w+\.py)", page)) == scripts
    for link in re.findall(r"\]\((\w+\.(?:md|svg))\)", page):
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("script", SPEED)
def test_help_says_what_is_measured(script, load, capsys, monkeypatch):
    source = FOLDER / f"{script}.py"
    monkeypatch.setattr(sys, "argv", [str(source), "--help"])
    with pytest.raises(SystemExit) as end:
        exec(compile(source.read_text(), str(source), "exec"),
             {"__name__": "__main__", "__file__": str(source),
              "__doc__": None})  # fmt: skip
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "--rounds" in said
    assert f"({script}.md)" in said
