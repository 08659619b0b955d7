"""Fixtures for all tests. No test may reach the network: sockets are blocked."""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Converting each small model of a test would take longer than the test.
os.environ["SEGFOCAL_ENGINE"] = "keras"

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests take their time."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        raise AssertionError(f"a test tried to reach the network at {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans kept beside the checkout; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    return folder


RUNTIMES = {
    "saved_model": ("tensorflow",),
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
}


class Exports:
    """A small model of three classes and five channels, and its exported files, made once."""

    def __init__(self, folder: Path, ndim: int) -> None:
        self.folder, self.ndim = folder, ndim
        self.keras = folder / "model.keras"
        self.results: dict[str, object] = {}

    @functools.cached_property
    def model(self):
        import keras
        import numpy as np

        import segfocal as sf

        keras.utils.set_random_seed(5)
        names = ("blue", "green", "red", "nir", "swir1") if self.ndim == 2 else ("ct",)
        card = sf.Card(
            ndim=self.ndim,
            channels=tuple({"name": name, "mean": 70, "std": 20} for name in names),
            named_channels=self.ndim == 2,
            classes=tuple(
                {"value": value, "name": name, "color": (value, 9, 0)}
                for value, name in ((1, "Wälder"), (2, 'a "<b>" & c'), (7, "sea"))
            ),
            tile=(64,) * self.ndim,
            orientation="LPS" if self.ndim == 3 else None,
        )
        encoder = {"embed_dim": 8, "depths": (1, 1, 1, 1), "focal_levels": 1}
        model = sf.FocalUNet(card=card, preset="nano", encoder=encoder)
        rng = np.random.default_rng(5)
        for weight in model.trainable_weights:
            if weight.path.endswith("kernel"):  # logits that differ from class to class
                taps = weight.shape[:-2] if weight.shape[-1] == 1 else weight.shape[:-1]
                weight.assign(rng.normal(0, 1.5 / np.sqrt(np.prod(taps)), weight.shape))
        sf.save_model(model, self.keras)
        return model

    def path(self, format: str) -> Path:
        import segfocal as sf

        for module in RUNTIMES[format]:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"needs {module} to export to {format}")
        suffix = {"saved_model": "", "onnx": ".onnx", "openvino": ".xml"}[format]
        place = self.folder / f"exported{suffix}"
        if format not in self.results:
            self.results[format] = sf.export(self.model, place, format=format)
        return place


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Exported 2-D models."""
    return Exports(tmp_path_factory.mktemp("exports"), 2)


@pytest.fixture(scope="session")
def volume_exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Exported 3-D models."""
    return Exports(tmp_path_factory.mktemp("volume_exports"), 3)
