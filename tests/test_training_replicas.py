"""Training on several devices: the same as on one; or one line that says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from scored import dataset

from segfocal.cli import segfocal as command
from segfocal.errors import ModelError
from segfocal.training import replicas
from segfocal.training.replicas import replicas_for

FIXTURES = Path(__file__).resolve().parent / "fixtures"


def two_devices(backend, *folder):
    """Return what the program says of two virtual devices."""
    pytest.importorskip(backend)
    path = os.pathsep.join([str(FIXTURES.parents[1]), str(FIXTURES)])
    done = subprocess.run(
        [sys.executable, str(FIXTURES / "two_devices.py"), backend, *map(str, folder)],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_have_the_gradients_of_one_with_the_whole_batch(backend):
    found = two_devices(backend)
    assert found["plain descent"] < 1e-5
    assert found["its losses and scores"] < 1e-5
    assert found["dropout is finite"]
    # Kernels and biases of three layers: the second kernel and the biases do not decay.
    assert [share > 0.85 for share in found["kept"]] == [False, True, True, True, False, True]
    assert found["decay"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_runs_on_two_devices_are_those_of_one_and_can_be_resumed(backend, tmp_path):
    found = two_devices(backend, tmp_path)
    assert found["steps"] == [23, 23]
    assert found["moved"] > 0.01
    # Rounding differs from the first step on, and grows with each; measured: 4e-7.
    assert found["losses and scores"] < 1e-4
    assert found["weights"] < 1e-4
    assert found["saved"] == 0
    assert found["scores on val"][1] == pytest.approx(found["scores on val"][0], abs=5e-3)
    assert found["stopped at"] == 1
    assert found["resumed"] < 1e-6  # measured: 0
    assert found["resumed on one"] < 1e-4


def names(monkeypatch, number, gpus):
    found = tuple(f"device:{n}" for n in range(number))
    monkeypatch.setattr(replicas, "_names", lambda: (found, gpus))
    monkeypatch.setattr(replicas.Replicas, "__init__", lambda self, names: setattr(
        self, "names", tuple(names)))  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "batch", "number", "gpus", "expected"),
    [
        (None, 8, 4, True, 4),
        (None, 6, 4, True, 3),  # as many as divide the batch
        (None, 7, 4, True, 0),
        (None, 8, 4, False, 0),  # processors are divided on demand only
        ("all", 8, 4, False, 4),
        ("all", 5, 1, True, 0),
        (2, 8, 4, True, 2),
        (1, 8, 4, True, 0),
    ],
)
def test_devices_are_chosen(devices, batch, number, gpus, expected, monkeypatch):
    names(monkeypatch, number, gpus)
    assert len(replicas_for(devices, batch).names) == expected


@pytest.mark.parametrize(
    ("devices", "batch", "said"),
    [
        (3, 6, "devices 3: tensorflow has 2 here"),
        (0, 6, "devices 0: tensorflow has 2 here"),
        (2, 5, "a batch of 5 patches cannot be divided among 2 devices"),
        ("all", 5, "a batch of 5 patches cannot be divided among 2 devices"),
    ],
)
def test_what_cannot_be_done_is_said(devices, batch, said, monkeypatch):
    names(monkeypatch, 2, True)
    with pytest.raises(ModelError, match=said):
        replicas_for(devices, batch)


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    dataset(tmp_path, 2)
    text = (tmp_path / "spec.yaml").read_text().replace("test:", "train:")
    (tmp_path / "spec.yaml").write_text(text)
    given = ["train", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "run"), "--steps", "1"]
    for wrong in ("0", "some"):
        done = CliRunner().invoke(command, [*given, "--devices", wrong])
        assert done.exit_code == 2
        assert "neither a number from 1 nor all" in done.output
    done = CliRunner().invoke(command, [*given, "--batch-size", "4", "--devices", "64"])
    assert done.exit_code == 2
    assert "devices 64: " in done.output
    assert not (tmp_path / "run").exists()
