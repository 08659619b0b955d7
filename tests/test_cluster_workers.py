"""What a process of a cluster does with a unit, without a cluster."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import segfocal as sf
from segfocal import clusters, part_orders
from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal as command
from segfocal.engine.parts import Part, part_lock
from segfocal.errors import ModelError, OutputInUseError, ScanError, SegfocalWarning
from segfocal.io import PendingOutput
from segfocal.prediction import Prediction
from segfocal.scan_units import ScanTask, Unit, UnitResult, sendable


class Stub:
    """Two classes by the sign of a wave of the first channel."""

    output_stride, engine, batch_matters, ndim, hash = 1, "numpy", False, 2, "stub"
    card = Card(
        channels=(Channel(name="a"),),
        classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4)),
        tile=(32, 32),
    )

    def __call__(self, values, valid):
        wave = 0.5 + 0.5 * np.sin(values[..., :1])
        return np.concatenate([wave, 1 - wave], -1)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=70, height=160, count=1, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as out:  # fmt: skip
        out.write(np.random.default_rng(0).integers(0, 9, (1, 160, 70), np.uint8))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_units_done_twice_and_in_any_order_are_the_scan(scene: Path, tmp_path: Path) -> None:
    sf.predict(Stub(), scene, tmp_path / "serial.tif")
    task = ScanTask(scene, tmp_path / "labels.tif", 3)
    worker, other = (clusters._Worker(Stub(), {}, []) for _ in range(2))
    assert worker.ready() is None
    assert worker.run(task, Unit(0), 0).value == 3
    for part in ("2/3", "3/3", "2/3"):
        result = pickle.loads(pickle.dumps(worker.run(task, Unit(0, "part", part), 0)))
        assert result.value is None
    assert worker.tiles()[0] == worker.tiles()[1]
    early = other.run(task, Unit(0, "finish"), 0).value
    assert "not computed yet: part 1-of-3" in str(early)
    assert not (tmp_path / "labels.tif").exists()
    first = other.run(task, Unit(0, "part", "1/3"), 0)
    assert first.tiles > 0
    done = other.run(task, Unit(0, "finish"), 0).value
    assert isinstance(done, Prediction)
    assert digest(tmp_path / "labels.tif") == done.sha256 == digest(tmp_path / "serial.tif")
    again = worker.run(task, Unit(0), 0).value  # finished: nothing to divide
    assert isinstance(again, Prediction)
    assert again.unchanged


def test_warnings_of_a_process_come_with_its_results(scene: Path, tmp_path: Path) -> None:
    class Warns(Stub):
        def __call__(self, values, valid):
            warnings.warn("values are odd", SegfocalWarning, stacklevel=1)
            warnings.warn("old", FutureWarning, stacklevel=1)
            return super().__call__(values, valid)

    worker = clusters._Worker(Warns(), {}, [])
    task = ScanTask(scene, tmp_path / "labels.tif")
    with pytest.warns() as caught:
        result = pickle.loads(pickle.dumps(worker.run(task, Unit(0), 0)))
    assert isinstance(result.value, Prediction)
    assert set(result.warned) == {"values are odd"}
    assert {str(one.message) for one in caught} == {"old"}
    other = clusters._Worker(Stub(), {}, [])
    assert other.run(ScanTask(scene, tmp_path / "other.tif"), Unit(0), 0).warned == ()


def test_a_lost_unit_waits_for_the_process_that_may_still_be_at_it(
    scene: Path, tmp_path: Path
) -> None:
    task = ScanTask(scene, tmp_path / "labels.tif", 2)
    worker, unit = clusters._Worker(Stub(), {}, []), Unit(0, "part", "1/2")
    with part_lock(task.output, Part(1, 2)):
        assert isinstance(worker.run(task, unit, 0).value, OutputInUseError)
        results: list[UnitResult] = []
        again = threading.Thread(target=lambda: results.append(worker.run(task, unit, 1)))
        again.start()
        again.join(0.5)
        assert not results
    again.join(20)
    assert results[0].value is None


def test_what_killed_processes_have_left_goes_with_the_last_step(
    scene: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labels.tif"
    for part in ("1/2", "2/2"):
        sf.predict_part(Stub(), scene, output, part)
    (tmp_path / "..labels.tif.part-2-of-2.lock").touch()
    (tmp_path / "..labels.tif.part-2-of-2.partial").mkdir()
    sf.predict(Stub(), scene, output)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_model_that_cannot_be_loaded_and_errors_that_cannot_be_sent(tmp_path: Path) -> None:
    worker = clusters._Worker(str(tmp_path / "none.onnx"), {"engine": "auto"}, [])
    assert isinstance(worker.ready(), ModelError)

    class LocalError(Exception):
        pass

    sent = sendable(UnitResult(LocalError("not known elsewhere"), 1.5, 7))
    assert str(pickle.loads(pickle.dumps(sent)).value) == "LocalError: not known elsewhere"
    assert (sent.seconds, sent.peak_bytes) == (1.5, 7)
    known = UnitResult(ScanError("damaged"))
    assert sendable(known) is known


def test_processes_compute_as_the_caller_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGFOCAL_LOCAL_ONLY", "1")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = clusters._environment()
    assert found["SEGFOCAL_LOCAL_ONLY"] == "1"
    assert found["SEGFOCAL_ENGINE"] == "keras"
    assert found["KERAS_BACKEND"] == "jax"
    assert found["OMP_NUM_THREADS"] == str(os.cpu_count())
    Path("area.gpkg").touch()
    options = {"area": "area.gpkg", "polygons": "out.gpkg", "layout": "cog"}
    assert part_orders.absolute_options(options) == {
        "area": str(tmp_path / "area.gpkg"), "polygons": str(tmp_path / "out.gpkg"),
        "layout": "cog",
    }  # fmt: skip
    bounds = {"area": "1,2,3,4", "polygons": ".gpkg"}
    assert part_orders.absolute_options(bounds) == bounds


def test_wrong_usage_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*more: str):
        arguments = ["predict", "m.onnx", "a.tif", "-o", str(tmp_path / "x.tif"), *more]
        return CliRunner().invoke(command, arguments)

    for more in (("--workers", "2"), ("--parts", "3"), ("--address", "auto")):
        done = run(*more)
        assert (done.exit_code, f"{more[0]} goes with --executor ray" in done.stderr) == (2, True)
    assert run("--executor", "ray", "--shard", "1/2").exit_code == 2
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("--executor", "ray")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'segfocal[ray]'" in done.stderr
    with pytest.raises(ModelError, match="by its path"):
        sf.predict_on_cluster(Stub(), "a.tif", tmp_path / "x.tif")
    with pytest.raises(ScanError, match="by their path"):
        sf.predict_on_cluster("m.onnx", sf.MemoryScan(np.ones((4, 4, 1))), tmp_path / "x.tif")
    assert not [*tmp_path.iterdir()]
    with PendingOutput(tmp_path / "x.tif"), pytest.raises(OutputInUseError):
        PendingOutput(tmp_path / "x.tif").__enter__()
