"""Each benchmark runs from end to end in a minimal configuration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from miniatures import hippocampus

REPOSITORY = Path(__file__).resolve().parents[2]


def run(script, options):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / script), *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("context_modes.py", ["| frozen, exact | 1 | 0.", "| none, trained so | 1 | 0.", "Spine"]),
        ("decoder.py", ["| heavy | 1,330,200 | 1 | 0.", "| heavy | 23.001 | 81.965 |"]),
        ("receptive_field.py", ["| tiny_srf, initial weights | 584 |"]),
    ],
)
def test_a_benchmark_writes_its_tables(script, expected, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- tables -->\nold\n<!-- end of tables -->\n\nText.\n")
    options = ["--steps", "2", "--seeds", "0", "--work", str(tmp_path / "work"), "--out", str(page)]
    run(script, options)
    written = page.read_text()
    assert written.startswith("# Title\n\n<!-- tables -->")
    assert written.endswith("<!-- end of tables -->\n\nText.\n")
    assert "old" not in written
    for line in expected:
        assert line in written


@pytest.mark.slow
def test_memory_of_volumes_does_not_grow_with_their_length():
    """Sizes at which a process shows what it keeps; the benchmark's own are 20 times larger."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "volume_memory.py"), "--side", "256",
         "400", "1600"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("256 x 256 x") == 4
    assert "reached the aim" in done.stdout


ROW = r"\| {} \| [\d.]+ M \| "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "expected", "plots"),
    [
        (
            "network_speed.py",
            ["--preset", "nano", "--side", "64", "--rounds", "1"],
            [ROW.format("FocalUNet, TensorFlow"), ROW.format("Keras U-Net"), r"GFLOP/s: \d+ in"],
            ["page.svg"],
        ),
        (
            "volume_speed.py",
            ["--preset", "nano", "--side", "32", "--rounds", "1", "--without-peers"],
            [ROW.format("FocalUNet, TensorFlow"), "nano, 32 × 32 × 32, 1 channels, 3 classes"],
            ["page.svg"],
        ),
        (
            "training_step.py",
            ["--preset-2d", "nano", "--preset-3d", "nano", "--side", "32", "--length", "32",
             "--rounds", "1", "--without-peers"],
            [ROW.format("FocalUNet"), r"32 × 32 × 32, 2 patches, 1 channels"],
            ["page_2d.svg", "page_3d.svg"],
        ),
        (
            "attention.py",
            # A map of 100 x 100 positions has three times 4 x 10^8 bytes of attention.
            ["--sides", "8", "100", "--rounds", "1", "--without-peers", "--limit", "1.2GB"],
            [r"\| 8 × 8 \| attention, TensorFlow \| [\d.]+ \|",
             r"\| 100 × 100 \| focal modulation, TensorFlow \| [\d.]+ \| 1.00",
             r"\| 100 × 100 \| attention, TensorFlow \| does not fit into 1.2 GB"],
            ["page_time.svg", "page_memory.svg"],
        ),
        (
            "start_up.py",
            ["--preset", "nano", "--side", "64", "--rounds", "1"],
            [r"\| `segfocal --help` \| [\d.]+", r"\| first tile, .keras in TensorFlow \| [\d.]+"],
            ["page.svg"],
        ),
        (
            "end_to_end.py",
            ["--size", "512", "--preset", "nano", "--tile", "128", "--rounds", "1",
             "--without-peers"],
            [r"\| 512 × 512 \| segfocal, float32 \| [\d.]+ \| [\d.]+ \|  \| [\d.]+ \| [\d.]+"],
            ["page.svg"],
        ),
    ],
)  # fmt: skip
def test_a_benchmark_of_speed_writes_table_and_plot(script, options, expected, plots, tmp_path):
    page = tmp_path / "page.md"
    options = [*options, "--output", str(page)]
    if script == "end_to_end.py":
        options += ["--work", str(tmp_path / "work")]
    run(script, options)
    written = page.read_text()
    for line in expected:
        assert re.search(line, written), written
    for name in plots:
        assert f"]({name})" in written
        ET.parse(tmp_path / name)


DYNUNET = str(REPOSITORY / "benchmarks" / "dynunet.py")
ALONE = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.slow
def test_the_peer_is_trained_and_scored_without_tensorflow(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    hippocampus(tmp_path / "data")
    given = ["--data", str(tmp_path / "data"), "--steps", "2", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, DYNUNET, *given], env=ALONE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["parameters"], found["steps"]) == (5_600_963, 2)
    assert [*found["by_tile"]] == ["48x64x48", "32x48x32"]
    for tile, scores in found["by_tile"].items():
        saved = json.loads((tmp_path / "out" / tile / "scores.json").read_text())
        assert saved["foreground_dice"] == pytest.approx(scores["mean_dice"], abs=1e-4)
        assert [case["case"] for case in saved["cases"]] == [*saved["labels"]]
        assert all(Path(path).is_file() for path in saved["labels"].values())
        assert len(saved["cases"]) + found["cases"]["train"] == 7


def test_without_the_peer_a_line_says_what_to_install():
    code = "import runpy, sys; sys.modules['monai'] = None; sys.argv = [sys.argv[1]]\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, DYNUNET], env=ALONE, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'segfocal[peers]'")
    assert "monai" in done.stderr
    assert done.stdout == ""
