"""Forward pass, one training step, save and load on each backend of Keras."""

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
import numpy as np
from segfocal.quiet import load_keras
load_keras()
import keras
import segfocal as sf
from segfocal.losses import DiceCrossEntropy
from segfocal.metrics import MeanIoU

folder, result = sys.argv[1], {}
for ndim in json.loads(sys.argv[2]):
    model = sf.load_model(f"{folder}/start{ndim}.keras")
    with np.load(f"{folder}/input{ndim}.npz") as arrays:
        image, valid, labels = arrays["image"], arrays["valid"], arrays["labels"]
    logits = keras.ops.convert_to_numpy(model({"image": image, "valid": valid}))
    np.save(f"{folder}/{keras.backend.backend()}{ndim}.npy", logits)
    optimizer = keras.optimizers.SGD(0.05 if ndim == 2 else 0.005)
    model.compile(optimizer, DiceCrossEntropy(), metrics=[MeanIoU(3)])
    history = model.fit({"image": image, "valid": valid}, labels, epochs=3, verbose=0, batch_size=2)
    result[f"loss{ndim}"] = history.history["loss"]
    result[f"iou{ndim}"] = history.history["mean_iou"][-1]
    model.save(f"{folder}/end.keras")
    again = sf.load_model(f"{folder}/end.keras")
    a, b = (keras.ops.convert_to_numpy(m({"image": image, "valid": valid})) for m in (model, again))
    result[f"reloaded{ndim}"] = float(np.abs(a - b).max())
    streamed = sf.predict_array(again, image[0], tile=32, batch_size=2)
    result[f"labels{ndim}"] = np.bincount(streamed.ravel(), minlength=3).tolist()
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import keras

    from segfocal.models import FocalUNet

    folder = tmp_path_factory.mktemp("backends")
    rng = np.random.default_rng(0)
    for ndim in (2, 3):
        keras.utils.set_random_seed(0)
        # Another backend has other chances: no dropout, so that losses can be compared.
        model = FocalUNet(
            num_classes=3,
            in_channels=2,
            ndim=ndim,
            preset="nano",
            encoder={"depths": [1, 1, 1, 1]},
        )
        model.save(folder / f"start{ndim}.keras")
        space = (40, 33, 35)[:ndim]
        valid = rng.random((2, *space)) > 0.2
        labels = np.where(valid, rng.integers(0, 3, (2, *space)), -1).astype("int32")
        image = rng.normal(size=(2, *space, 2)).astype("float32")
        np.savez(folder / f"input{ndim}.npz", image=image, valid=valid, labels=labels)
    return folder


def run(backend, folder, ndim):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder), f"[{ndim}]"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("ndim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_backends_agree_with_tensorflow(backend, ndim, folder):
    found, reference = run(backend, folder, ndim), run("tensorflow", folder, ndim)
    expected = np.load(folder / f"tensorflow{ndim}.npy")
    logits = np.load(folder / f"{backend}{ndim}.npy")
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    losses = found[f"loss{ndim}"]
    np.testing.assert_allclose(losses, reference[f"loss{ndim}"], rtol=1e-3)
    assert losses[-1] < losses[0]
    assert found[f"iou{ndim}"] == pytest.approx(reference[f"iou{ndim}"], abs=0.01)
    assert found[f"reloaded{ndim}"] == 0
    assert sum(found[f"labels{ndim}"]) == np.prod((40, 33, 35)[:ndim])
