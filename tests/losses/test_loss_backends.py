"""Losses and their gradients on each backend of Keras."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

CODE = """
import json, os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # as on a machine without it
import keras
import numpy as np
from segfocal import losses
from segfocal.metrics import MeanRegionIoU

rng = np.random.default_rng(0)
labels = rng.integers(0, 3, (2, 7, 6)).astype("int32")
labels[rng.random(labels.shape) < 0.3] = -1
regions = rng.integers(-1, 2, (2, 7, 6, 4)).astype("int32")
values = rng.normal(size=(2, 7, 6, 5)).astype("float32")
kernel = rng.normal(size=(5, 4)).astype("float32")
result = {}
parts = ["Boundary", "Focal", "GeneralisedDice", "Lovasz", "Tversky"]
for task, truth in (("classes", labels), ("regions", regions)):
    for name in parts:
        image = keras.Input((None, None, 5))
        layer = keras.layers.Dense(4)
        model = keras.Model(image, layer(image))
        layer.set_weights([kernel, np.zeros(4)])
        model.compile(keras.optimizers.SGD(1.0), getattr(losses, name)(task=task))
        value = float(model.train_on_batch(values, truth))
        after = keras.ops.convert_to_numpy(layer.kernel)
        result[f"{name} {task}"] = [value, *(after - kernel).ravel().tolist()]
image = keras.Input((None, None, 4))
model = keras.Model(image, keras.layers.Activation("linear")(image))
model.compile(loss=losses.DiceBinaryCrossEntropy(), metrics=[MeanRegionIoU(4)])
logits = (values[..., :4] + regions).astype("float32")
found = model.evaluate(logits, regions, batch_size=1, return_dict=True, verbose=0)
result["regions seen"] = [found["loss"], found["mean_iou"]]
print(json.dumps(result))
"""


def run(backend):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reference():
    return run("tensorflow")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_values_and_gradients_are_those_of_tensorflow(backend, reference):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = run(backend)
    assert found.keys() == reference.keys()
    for name, numbers in found.items():
        np.testing.assert_allclose(numbers, reference[name], atol=2e-5, err_msg=name)
        assert np.abs(numbers[1:]).max() > 1e-3
