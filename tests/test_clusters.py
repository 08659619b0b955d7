"""Ray clusters: the bytes of a serial run, whoever is lost on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.errors import ChannelError, ModelError
from segfocal.scan_parts import predict_part

pytestmark = [
    pytest.mark.slow,
    # Ray leaves files and sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SAMPLES = Path(sf.__file__).parent / "samples"
SCENE = SAMPLES / "north_carolina" / "landsat.tif"
VOLUME = SAMPLES / "spine" / "ct.nii.gz"


@pytest.fixture(autouse=True)
def _ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.undo()  # processes of a cluster talk over sockets of this machine


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def worker_processes() -> list[int]:
    """Return the processes of actors that hold a model."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"_Worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_one_at_work(scratch: Path, killed: list[int]) -> None:
    """Kill a process with SIGKILL once the first units are there."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not killed:
        if list(scratch.glob("*.unit")):
            for process in worker_processes()[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
        time.sleep(0.005)


@pytest.mark.parametrize("kill", [False, True])
def test_a_scene_on_two_actors(kill: bool, exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64, overlap=32, tta="flips")
    killed: list[int] = []
    if kill:
        arguments = (tmp_path / ".ray.tif.scratch", killed)
        threading.Thread(target=kill_one_at_work, args=arguments, daemon=True).start()
    steps: list[tuple[int, int]] = []
    done = sf.predict_on_cluster(
        model, SCENE, tmp_path / "ray.tif", workers=2, parts=8, tile=64, overlap=32, tta="flips",
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert done.sha256 == serial.sha256 == digest(tmp_path / "ray.tif")
    assert steps == [(number, 8) for number in range(1, 9)]
    assert bool(killed) == kill


def test_a_volume_on_two_actors(volume_exports, tmp_path: Path) -> None:
    model = volume_exports.path("onnx")
    serial = sf.predict(model, VOLUME, tmp_path / "serial.nii.gz", tile=32, overlap=0)
    done = sf.predict_on_cluster(
        model, VOLUME, tmp_path / "ray.nii.gz", workers=2, parts=2, tile=32, overlap=0
    )
    assert done.sha256 == serial.sha256


def test_a_lost_machine_changes_nothing_but_the_time(exports, tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    model = exports.path("onnx")
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

        def lose() -> None:
            while len(worker_processes()) < 2:
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)

        threading.Thread(target=lose, daemon=True).start()
        done = sf.predict_on_cluster(
            model, SCENE, tmp_path / "ray.tif", workers=2, parts=6, tile=64
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert done.sha256 == serial.sha256


def test_a_killed_driver_continues_where_it_was(exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64)
    code = (
        "import sys, segfocal as sf\n"
        "sf.predict_on_cluster(*sys.argv[1:], workers=2, parts=8, tile=64)\n"
    )
    command = [sys.executable, "-c", code, str(model), str(SCENE), str(tmp_path / "ray.tif")]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scratch = tmp_path / ".ray.tif.scratch"
    while driver.poll() is None and not list(scratch.glob("*.unit")):
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert not (tmp_path / "ray.tif").exists()
    assert list(scratch.glob("*.unit"))
    time.sleep(3)  # Ray ends the processes of a lost driver
    done = sf.predict_on_cluster(model, SCENE, tmp_path / "ray.tif", workers=2, parts=8, tile=64)
    assert done.sha256 == serial.sha256


def test_errors_come_back_as_they_are(exports, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "two.tif", "w", driver="GTiff", width=40, height=40, count=2, dtype="uint8"
    ) as out:
        out.write(np.ones((2, 40, 40), np.uint8))
    model = exports.path("onnx")
    with pytest.raises(ChannelError, match="has 2 channels"):
        sf.predict_on_cluster(model, tmp_path / "two.tif", tmp_path / "out.tif", parts=2, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["two.tif"]
    with pytest.raises(ModelError, match="by its path"):
        sf.predict_on_cluster(lambda batch: batch, SCENE, tmp_path / "out.tif")
    with pytest.raises(ModelError, match="no Ray cluster at"):
        sf.predict_on_cluster(model, SCENE, tmp_path / "out.tif", parts=2, address="127.0.0.1:1")


def test_parts_without_a_cluster_are_the_same_units(exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    for number in (1, 2):
        predict_part(model, SCENE, tmp_path / "labels.tif", f"{number}/2", tile=64)
    done = sf.assemble(tmp_path / "labels.tif")
    assert done.sha256 == sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64).sha256
