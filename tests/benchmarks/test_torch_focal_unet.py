"""The network that is written in PyTorch for the benchmarks computes what the Keras model does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

CODE = """
import sys
import numpy as np, torch
from torch_focal_unet import TorchFocalUNet
with np.load(sys.argv[1]) as weights, torch.inference_mode():
    image = torch.from_numpy(np.load(sys.argv[2]))
    found = TorchFocalUNet(weights, image.ndim - 2)(image)
np.save(sys.argv[3], found.numpy())
"""


@pytest.mark.parametrize("ndim", [2, 3])
def test_same_logits_as_keras(ndim, tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("compares with PyTorch")
    import segfocal as sf

    model = sf.FocalUNet(5, 2, "nano", ndim=ndim)
    rng = np.random.default_rng(ndim)
    for weight in model.weights:  # no zeros and ones: biases and scales count
        if "standardize" not in weight.path:
            weight.assign(weight + rng.normal(0, 0.05, weight.shape))
    image = rng.normal(size=(2, *(64, 96, 32)[:ndim], 2)).astype(np.float32)
    expected = np.asarray(model({"image": image, "valid": np.ones(image.shape[:-1], bool)}))
    paths = [str(tmp_path / name) for name in ("weights.npz", "image.npy", "found.npy")]
    np.savez(paths[0], **{weight.path: np.asarray(weight) for weight in model.weights})
    np.save(paths[1], image)
    # TensorFlow and PyTorch crash in one process.
    subprocess.run(
        [sys.executable, "-c", CODE, *paths], env={"PYTHONPATH": str(FOLDER)}, check=True
    )
    found = np.load(paths[2])
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
