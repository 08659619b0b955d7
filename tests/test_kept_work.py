"""What is computed is not lost: units are on the disk first and go last."""

from __future__ import annotations

import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.journal import Journal
from segfocal.errors import OutputError
from segfocal.io import PendingOutput

SHAPE = (300, 200)


class Stub:
    """Three classes by waves of the first channel; counts what it sees."""

    ndim, output_stride, hash, engine, batch_matters = 2, 1, "stub", "numpy", False

    def __init__(self):
        self.tiles = 0
        self.card = Card(
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (1, 2, 9)),
            tile=(64, 64),
        )

    def __call__(self, values, valid):
        self.tiles += int(valid.reshape(len(valid), -1).any(1).sum())
        score = np.exp(np.sin(values / 9 + np.arange(3))).astype(np.float32)
        return score / score.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=SHAPE[1], height=SHAPE[0], count=1, dtype="uint8",
        crs="EPSG:32119", transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(np.random.default_rng(0).integers(0, 99, (1, *SHAPE), np.uint8))
    return path


@pytest.mark.parametrize("layers", [{}, {"probabilities": "uint8", "uncertainty": True}])
def test_units_stay_until_the_output_is_in_place(scene, tmp_path, monkeypatch, layers):
    out = tmp_path / "labels.tif"
    commit, there = PendingOutput.commit, []

    def failing(self):
        there.extend(self.destination.parent.glob(".labels.tif.scratch/*.unit"))
        raise OutputError("the power went away")

    monkeypatch.setattr(PendingOutput, "commit", failing)
    with pytest.raises(OutputError, match="the power went away"):
        sf.predict(Stub(), scene, out, **layers)
    assert there
    assert all(path.is_file() for path in there)
    assert not out.exists()

    def asserting(self):
        assert all(path.is_file() for path in there)
        commit(self)
        assert self.destination.is_file()
        assert all(path.is_file() for path in there), "gone before the output was known complete"

    monkeypatch.setattr(PendingOutput, "commit", asserting)
    model = Stub()
    found = sf.predict(model, scene, out, **layers)
    assert model.tiles == 0, "what was computed before was computed again"
    assert not (tmp_path / ".labels.tif.scratch").exists()
    monkeypatch.undo()
    (tmp_path / "whole").mkdir()
    whole = sf.predict(Stub(), scene, tmp_path / "whole" / "labels.tif", **layers)
    assert found.sha256 == whole.sha256


def test_a_unit_is_on_the_disk_before_the_journal_lists_it(scene, tmp_path, monkeypatch):
    synced: dict[int, int] = {}
    folders: set[int] = set()
    listed: list[str] = []
    fsync, append = os.fsync, Journal.append

    def watched(descriptor):
        about = os.fstat(descriptor)
        synced[about.st_ino] = about.st_size
        folders.add(about.st_ino)
        fsync(descriptor)

    def checked(self, entry):
        folder = tmp_path / ".labels.tif.scratch"
        files = [about["file"] for key, about in entry.items() if key in ("labels", "uncertainty")]
        for name in files:
            about = (folder / name).stat()
            assert synced.get(about.st_ino) == about.st_size > 0, f"{name} was not synced"
        if files and os.name != "nt":  # where folders cannot be synced
            assert folder.stat().st_ino in folders, "its name was not synced"
        listed.extend(files)
        folders.clear()
        append(self, entry)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Journal, "append", checked)
    sf.predict(Stub(), scene, tmp_path / "labels.tif", uncertainty=True)
    assert len(listed) > 8


@pytest.mark.parametrize("layers", [{}, {"probabilities": "float32"}])
def test_the_space_for_units_and_layers_is_asked_for_before_the_first_tile(
    scene, tmp_path, monkeypatch, layers
):
    pixels = math.prod(SHAPE)
    # For the label file alone it would do: the rest is what units and layers take.
    free = pixels * 5 // 4 if not layers else 30 * pixels
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    model = Stub()
    with pytest.raises(OutputError, match=r"[kM]B are needed"):
        sf.predict(model, scene, tmp_path / "labels.tif", **layers)
    assert model.tiles == 0
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=40 * pixels))
    assert not sf.predict(model, scene, tmp_path / "labels.tif", **layers).unchanged
