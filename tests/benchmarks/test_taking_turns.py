"""Contestants of the benchmarks: processes of their own that take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

SCRIPT = """
import os, sys
from pathlib import Path
from turns import Entry, Ready, serve_if_asked, take_turns

def noting(letter, pieces=1):
    def make(setting):
        print("libraries print", flush=True)
        def run():
            with open(setting["log"], "a") as log:
                log.write(letter + os.environ["OMP_NUM_THREADS"] + os.environ["KERAS_BACKEND"][0])
        return Ready(run, parameters=7, pieces=pieces)
    return make

def greedy(setting):
    kept = []
    return Ready(lambda: kept.append(bytearray(10**9)))

def broken(setting):
    raise ValueError("the reason")

ENTRIES = {
    "a": Entry(noting("a")),
    "b": Entry(noting("b"), backend="jax"),
    "greedy": Entry(greedy),
    "broken": Entry(broken),
    "absent": Entry(noting("x"), needs=("no_such_package", "json")),
}
serve_if_asked(ENTRIES)
names, log, rounds = sys.argv[1].split(","), sys.argv[2], 3
found = take_turns(__file__, ENTRIES, names, {"log": log}, rounds, threads=3, limit=2 * 10**9)
for name, one in found.items():
    print(name, len(one.seconds), one.parameters, one.peak_bytes > 10**6, one.left_out, sep="|")
"""


@pytest.fixture
def run(tmp_path):
    script, log = tmp_path / "script.py", tmp_path / "log.txt"
    script.write_text(SCRIPT)

    def run(names):
        done = subprocess.run(
            [sys.executable, str(script), names, str(log)],
            env={"PYTHONPATH": str(FOLDER)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done, log.read_text() if log.exists() else ""

    return run


def test_contestants_take_turns_with_the_same_threads(run):
    done, log = run("a,b")
    assert done.returncode == 0, done.stderr
    # Two runs each before the clock starts, then in turns.
    assert log == "a3t" * 2 + "b3j" * 2 + "a3tb3j" * 3
    assert "a|3|7|True|\nb|3|7|True|\n" in done.stdout


def test_what_is_missing_or_too_large_is_left_out_and_says_why(run):
    done, log = run("absent,greedy,a")
    assert done.returncode == 0, done.stderr
    missing = "needs no_such_package: pip install 'segfocal[peers]'"
    assert f"absent is left out: {missing}\n" in done.stdout
    assert f"absent|0|None|False|{missing}\n" in done.stdout
    assert "greedy|0|None|False|does not fit into 2 GB\n" in done.stdout
    assert "a|3|7|True|\n" in done.stdout
    assert log == "a3t" * 5


def test_a_contestant_that_fails_ends_the_run_with_its_message(run):
    done, _ = run("a,broken")
    assert done.returncode == 1
    assert "broken ended with 1:" in done.stderr
    assert "ValueError: the reason" in done.stderr
