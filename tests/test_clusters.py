"""Ray clusters: the bytes of a serial run, whoever is lost on the way."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal import clusters
from segfocal.cluster_connection import connected
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


def provenance(output: Path) -> dict:
    return json.loads(Path(f"{output}.json").read_text())


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_below(process: int, ancestor: int) -> bool:
    while process > 1 and process != ancestor:
        process = parent_of(process)
    return process == ancestor


def at_work(ancestor: int | None = None) -> list[int]:
    """Return the processes below another, else below this one, that are doing a unit."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"_Worker.run" in (entry / "cmdline").read_bytes():
                process = int(entry.name)
                if is_below(process, ancestor or os.getpid()):
                    found.append(process)
    return found


class Later(threading.Thread):
    """Acts once something is true; ``done`` says that it has."""

    def __init__(self, ready: Callable[[], object], action: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.done = False
        self._ready, self._action, self._until = ready, action, time.monotonic() + 90
        self.start()

    def run(self) -> None:
        while time.monotonic() < self._until:
            if self._ready():
                self._action()
                self.done = True
                return
            time.sleep(0.01)


@pytest.mark.parametrize("kill", [False, True])
def test_a_scene_on_two_actors(kill: bool, exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64, overlap=32, tta="flips")
    scratch = tmp_path / ".ray.tif.scratch"

    def killed() -> bool:
        found = at_work() if kill and list(scratch.glob("*.unit")) else []
        if found:
            os.kill(found[0], signal.SIGKILL)
        return bool(found)

    killer = Later(killed, lambda: None)
    steps: list[tuple[int, int]] = []
    tiles: list[tuple[int, int]] = []
    told: list[str] = []
    done = sf.predict_on_cluster(
        model, SCENE, tmp_path / "ray.tif", workers=2, parts=8, tile=64, overlap=32, tta="flips",
        progress=lambda *step: steps.append(step), notice=told.append,
        tile_progress=lambda *step: tiles.append(step),
    )  # fmt: skip
    assert done.sha256 == serial.sha256 == digest(tmp_path / "ray.tif")
    # One looks at the scan, eight are its parts, one assembles.
    assert steps == [(number, 10) for number in range(1, 11)]
    assert all(done <= total for done, total in tiles)
    if not kill:  # else what the lost process had kept is not run again, nor are its tiles known
        # Tiles that reach into the next part are run for both.
        assert serial.tiles < tiles[-1][0] == tiles[-1][1] < 2 * serial.tiles
    assert killer.done == kill
    assert any("a process was lost at work on part" in line for line in told) == kill
    # The names of the files differ, and nothing else.
    text = json.dumps(provenance(tmp_path / "serial.tif")).replace('"serial.tif', '"ray.tif')
    assert provenance(tmp_path / "ray.tif") == json.loads(text)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


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
    options = {"tile": 64, "overlap": 32, "tta": "flips"}
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", **options)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    told: list[str] = []
    try:
        loser = Later(
            lambda: len(at_work()) == 2, lambda: cluster.remove_node(other, allow_graceful=False)
        )
        done = sf.predict_on_cluster(
            model, SCENE, tmp_path / "ray.tif", workers=2, parts=6, address=cluster.address,
            notice=told.append, **options,
        )  # fmt: skip
        assert not ray.is_initialized()
    finally:
        cluster.shutdown()
    assert done.sha256 == serial.sha256
    assert loser.done
    assert any("a process was lost" in line for line in told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_continues_where_it_was(number: int, exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    serial = sf.predict(model, SCENE, tmp_path / "serial.tif", tile=64)
    command = [
        sys.executable, "-m", "segfocal", "predict", str(model), str(SCENE), "--tile", "64",
        "--executor", "ray", "--workers", "2", "--parts", "8", "-o", str(tmp_path / "ray.tif"),
    ]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    scratch = tmp_path / ".ray.tif.scratch"
    while driver.poll() is None and not list(scratch.glob("*.unit")):
        time.sleep(0.02)
    driver.send_signal(number)
    _, stderr = driver.communicate()
    if number == signal.SIGTERM:
        assert driver.returncode == 143
        assert re.fullmatch(
            r"segfocal: stopped; run the same command again to continue: what is finished is kept "
            rf"in {re.escape(str(scratch))} \(remove that folder to give it up\)\n",
            stderr,
        )
    kept = list(scratch.glob("*.unit"))
    assert kept
    assert not (tmp_path / "ray.tif").exists()
    time.sleep(3)  # Ray ends the processes of a lost driver
    before = {path: path.stat().st_mtime_ns for path in kept}
    after: dict[Path, int] = {}

    def note(done: int, total: int) -> None:
        if done == total - 1:  # the parts are there, the output is not
            after.update({path: path.stat().st_mtime_ns for path in before})

    done = sf.predict_on_cluster(
        model, SCENE, tmp_path / "ray.tif", workers=2, parts=8, tile=64, progress=note
    )
    assert done.sha256 == serial.sha256
    assert after == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_many_scans_by_the_command(exports, tmp_path: Path) -> None:
    model = exports.path("onnx")
    (tmp_path / "in").mkdir()
    with rasterio.open(SCENE) as source:
        for number, offset in enumerate((0, 90, 180)):
            window = rasterio.windows.Window(90, offset, 300, 200 + 40 * number)
            profile = {**source.profile, "width": 300, "height": 200 + 40 * number}
            with rasterio.open(tmp_path / "in" / f"{number}.tif", "w", **profile) as out:
                out.write(source.read(window=window))
    (tmp_path / "in" / "bad.tif").write_text("no scan")
    serial = sf.predict_many(model, [tmp_path / "in"], tmp_path / "serial", tile=64)

    def run(*more: str) -> tuple[int, dict, str]:
        done = subprocess.run(
            [sys.executable, "-m", "segfocal", "predict", model, "in", "-o", "out/", "--json",
             "--executor", "ray", "--workers", "2", "--parts", "2", "--tile", "64", *more],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr

    code, summary, stderr = run()
    assert code == 1
    assert stderr.count("\n") == stderr.count("segfocal: ") == 1
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["done"], summary["failed"]) == (3, 1)
    by_name = {Path(one["output"]).name: one for one in summary["outcomes"]}
    assert "not a raster" in by_name["bad.tif"]["reason"]
    for one in serial.outcomes:
        found = by_name[Path(one.output).name]
        assert (found["status"], found["pixels"]) == (one.status, one.pixels)
        if one.status == "done":
            assert digest(tmp_path / found["output"]) == digest(Path(one.output))
            assert found["seconds"] > 0
            assert found["peak_bytes"] > 10**7
    shutil.copy(SCENE, tmp_path / "in" / "bad.tif")
    code, summary, _ = run("--retry-failed")
    assert code == 0
    assert summary["done"] == 4
    assert run()[1]["unchanged"] == 4


def test_a_signal_to_the_driver_of_many_scans_leaves_the_summary(exports, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        shutil.copy(SCENE, folder / f"{number}.tif")
    command = [
        sys.executable, "-m", "segfocal", "predict", str(exports.path("onnx")), str(folder),
        "--tile", "64", "--overlap", "32", "--tta", "flips", "--executor", "ray", "--workers", "1",
        "-o", str(out),
    ]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while driver.poll() is None and not list(out.glob(".1.tif.scratch/*.unit")):
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    _, stderr = driver.communicate()
    assert driver.returncode == 143, stderr
    value = json.loads((out / "summary.json").read_text())
    statuses = [one["status"] for one in value["outcomes"]]
    assert statuses == ["done", "interrupted", "pending", "pending"]
    assert value["stopped"] == "SIGTERM"
    with open(out / "summary.csv", newline="") as table:
        outcomes = [row["outcome"] for row in csv.DictReader(table)]
    assert outcomes == ["done", "interrupted", "not started", "not started"]


STOPPED_WHILE_RAY_STARTS = """
import os, signal, subprocess, sys
from segfocal import unfinished
from segfocal.cli.stopping import catch_signals
from segfocal.cluster_connection import connected
catch_signals()
start = subprocess.Popen.__init__
def first(self, command, *rest, **more):
    start(self, command, *rest, **more)
    if "gcs_server" in str(command):
        os.kill(os.getpid(), int(sys.argv[1]))
subprocess.Popen.__init__ = first
with unfinished.before_end(lambda by: os.write(1, by.encode())), connected(None):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_starts_is_this_programs(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_WHILE_RAY_STARTS, str(int(number))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (128 + number, number.name), done.stderr
    assert done.stderr == "segfocal: stopped; nothing is left half-written\n"


def test_handlers_of_signals_are_as_before_once_ray_is_there() -> None:
    function, before = signal.signal, {one: signal.getsignal(one) for one in signal.valid_signals()}
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    mine = signal.getsignal(signal.SIGTERM)
    try:
        with connected(None):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert signal.signal is function
    assert {one: signal.getsignal(one) for one in before} == before


def test_each_gpu_has_a_process_of_its_own() -> None:
    import ray

    class Probe:
        def where(self) -> tuple[str, int]:
            return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()

        def tiles(self) -> None: ...

        tiles.__ray_concurrency_group__ = "watch"

    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        count, options = clusters.actor_options(ray.cluster_resources(), None)
        assert count == 2
        actors = [ray.remote(**options)(Probe).remote() for _ in range(count)]
        devices, processes = zip(*ray.get([one.where.remote() for one in actors]), strict=True)
    finally:
        ray.shutdown()
    assert sorted(devices) == ["0", "1"]
    assert len({*processes, os.getpid()}) == 3
    assert clusters.actor_options({"CPU": 8, "GPU": 2}, 7)[0] == 2
    assert clusters.actor_options({"CPU": 8, "GPU": 2}, 1)[0] == 1
    assert clusters.actor_options({"CPU": 8}, None)[0] == 8
    assert clusters.actor_options({"CPU": 8}, 3)[0] == 3


def test_errors_come_back_as_they_are(exports, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "two.tif", "w", driver="GTiff", width=40, height=40, count=2, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as out:  # fmt: skip
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
