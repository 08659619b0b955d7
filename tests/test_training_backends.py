"""Training, stopping and resuming on each backend of Keras."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # as on a machine without it
from segfocal.quiet import load_keras
load_keras()
import keras, numpy as np
import segfocal as sf
sys.path.insert(0, sys.argv[2])
from test_training_resumed import log, model_of, with_validation
from segfocal.demonstration import bundled_spec

spec = with_validation(sf.load_spec(bundled_spec("nc_landcover.yaml")))
plan = sf.make_plan(spec, steps=6, patch=(32, 32), batch_size=2)
plan = plan.model_copy(update={"steps": 22})  # 11 epochs of 2 steps

def train(out, **options):
    sf.save_model(model_of(plan), sys.argv[1] + "/start.keras", overwrite=True)
    return sf.train(model_of(plan), spec, plan, sys.argv[1] + out, workers=1, **options)

whole = train("/whole")
steps = [train("/run", resume=True, max_minutes=1e-6).steps]
last = train("/run", resume=True)
pairs = zip(sf.load_model(whole.model).weights, sf.load_model(last.model).weights)
numpy = keras.ops.convert_to_numpy
start = sf.load_model(sys.argv[1] + "/start.keras")
print(json.dumps({
    "steps": [*steps, last.steps],
    "apart": max(float(np.abs(numpy(a) - numpy(b)).max()) for a, b in pairs),
    "moved": max(
        float(np.abs(numpy(a) - numpy(b)).max())
        for a, b in zip(sf.load_model(whole.model).weights, start.weights)
    ),
    "whole": log(whole),
    "last": log(last),
    "best": [whole.best_score, last.best_score],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_run_is_stopped_and_resumed(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["steps"] == [1, 22]
    assert found["moved"] > 1e-3
    assert found["apart"] < 1e-5 < found["moved"]
    assert found["best"][0] == pytest.approx(found["best"][1], abs=0.02)
    for whole, last in zip(found["whole"], found["last"], strict=True):
        assert last == pytest.approx(whole, rel=1e-3, abs=1e-3)
    assert found["whole"][-1]["loss"] < found["whole"][0]["loss"]
