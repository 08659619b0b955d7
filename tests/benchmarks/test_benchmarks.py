"""Each benchmark runs from end to end in a minimal configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


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
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / script), *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
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
