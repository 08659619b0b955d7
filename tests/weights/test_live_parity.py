"""The published networks at full size against timm and transformers; needs the extra ``peers``.

    pytest -m slow tests/weights/test_live_parity.py -s

prints the largest difference of every feature. timm drops rows and columns that fill no patch,
so odd sizes are compared with transformers, whose padding ours follows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from peers import VARIANTS
from seeded import seeded_image

from segfocal.weights import from_pretrained

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
NAMES = ["tiny_srf", "tiny_lrf", "small_lrf", "large_fl3", "huge_fl3"]
HUGE_WIDTH = 32
"""huge has 684 million parameters at its own 352."""

EVEN, ODD = (64, 96), (75, 101)


@pytest.fixture(params=["timm", "transformers"])
def peer(request):
    return request.param


def run_peer(peer, folder, sizes, variant=None, width=None, seeded=True, pickle=False):
    """Let a peer make a checkpoint in a folder, and return what it computes for each size."""
    request = {
        "peer": peer, "variant": variant, "width": width, "seeded": seeded, "pickle": pickle,
        "num_classes": 10, "sizes": sizes, "folder": str(folder),
    }  # fmt: skip
    script = Path(__file__).parents[1] / "fixtures" / "run_peer.py"
    done = subprocess.run(
        [sys.executable, script, json.dumps(request)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"needs the extra peers: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found: dict[tuple[int, int], dict[str, np.ndarray]] = {tuple(size): {} for size in sizes}
    with np.load(folder / "outputs.npz") as arrays:
        for key, array in arrays.items():
            name, rows, cols = key.split()
            found[int(rows), int(cols)][name] = array
    return found


def compare(what, found, expected):
    assert set(found) == set(expected)
    differences = {}
    for name, array in expected.items():
        ours = np.asarray(found[name])
        assert ours.shape == array.shape
        differences[name] = float(np.abs(ours - array).max())
    print("\n", what, ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
    assert max(differences.values()) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_and_the_logits_are_the_peers(peer, name, tmp_path):
    width = HUGE_WIDTH if name == "huge_fl3" else VARIANTS[name].embed_dim
    sizes = [EVEN] if peer == "timm" else [EVEN, ODD]
    expected = run_peer(peer, tmp_path, sizes, name, width)
    ours = from_pretrained(tmp_path, num_classes=10)
    features = {
        f"P{stage + 1}": ours.get_layer(f"stage{stage}_block{depth}").output
        for stage, depth in enumerate(ours.get_config()["depths"], start=1)
    }
    both = keras.Model(ours.inputs, {**features, "logits": ours.output})
    for size, outputs in expected.items():
        image = seeded_image(*size, batch=1)
        found = both([image, np.ones(image.shape[:-1], bool)])
        compare(f"{peer} {name} {size}", found, outputs)


@pytest.mark.parametrize("seeded", [False, True], ids=["as made", "seeded"])
def test_checkpoints_go_through_the_command(peer, seeded, tmp_path):
    (expected,) = run_peer(peer, tmp_path, [(128, 96)], seeded=seeded).values()
    source = tmp_path if peer == "transformers" else tmp_path / "model.safetensors"
    encoder = tmp_path / "encoder.keras"
    done = subprocess.run(
        [sys.executable, "-m", "segfocal", "convert-weights", source, "-o", encoder, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["source"], result["preset"]) == (peer, "tiny_srf")
    assert result["parameters"] == 27_656_580
    del expected["logits"]
    found = keras.saving.load_model(encoder)(seeded_image(128, 96, batch=1))
    compare(f"{peer} command", found, expected)


def test_a_saved_pickle_is_read_without_torch(peer, tmp_path):
    (expected,) = run_peer(peer, tmp_path, [EVEN], "tiny_lrf", 96, pickle=True).values()
    del expected["logits"]
    found = from_pretrained(tmp_path / "pytorch_model.bin")(seeded_image(*EVEN, batch=1))
    compare(f"{peer} pickle", found, expected)
    assert "torch" not in sys.modules
