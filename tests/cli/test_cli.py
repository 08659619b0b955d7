"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.demonstration import bundled_spec

SAMPLES = Path(sf.__file__).parent / "samples"
SCENE = SAMPLES / "north_carolina" / "landsat.tif"
VOLUME = SAMPLES / "spine" / "ct.nii.gz"
README = Path(__file__).resolve().parents[2] / "README.md"


def invoke(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = sf.load_spec(bundled_spec("nc_landcover.yaml"))
    plan = sf.make_plan(spec, patch=(64, 64))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    sf.save_model(sf.FocalUNet.from_plan(spec, plan), path)
    return path


@pytest.mark.parametrize("name", ["demo", "info", "plan", "predict", "train", "evaluate"])
def test_every_command_explains_itself(name):
    done = invoke(name, "--help")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: segfocal {name}")
    assert f"  {name}" in invoke("--help").output


def test_predict_writes_labels_and_says_so(model, tmp_path):
    done = invoke("predict", model, SCENE, "-o", tmp_path / "labels.tif", "--tile", "128,64")
    assert done.exit_code == 0, done.output
    first, *table = done.stdout.splitlines()
    assert re.search(r"labels\.tif: 443 x 489 pixels, \d+ tiles, [\d.]+ s$", first)
    assert table[0].split() == ["value", "class", "pixels", "ha", "share"]
    assert table[-1].split()[:2] == ["no", "data"]
    assert table == invoke("info", tmp_path / "labels.tif").stdout.splitlines()[-9:]
    assert done.stderr == ""
    as_json = invoke("predict", model, SCENE, "-o", tmp_path / "b.tif", "--json")
    result = json.loads(as_json.stdout)
    with rasterio.open(tmp_path / "b.tif") as labels:
        counts = np.bincount(labels.read(1).ravel(), minlength=256)
    assert result["class_pixels"] == counts[1:8].tolist()
    assert result["invalid_pixels"] == counts[255]
    table = invoke("predict", model, SCENE, "-o", tmp_path / "b.tif").stdout.splitlines()[1:]
    for row, label in zip(table[1:8], result["classes"], strict=True):
        cells = row.split()
        assert cells[:3] == [str(label["value"]), label["name"], str(label["pixels"])]
        assert float(cells[3]) == pytest.approx(counts[label["value"]] * 0.0285**2 * 100, abs=6e-3)


def test_evaluate_prints_a_row_per_class(model, tmp_path):
    spec = bundled_spec("nc_landcover.yaml")
    done = invoke("evaluate", model, spec, "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows[1:9]] == [
        "developed", "agriculture", "herbaceous", "shrubland", "forest", "water", "sediment",
        "mean",
    ]  # fmt: skip
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert rows[6].split()[-1] == str(scores["classes"][5]["pixels"]) == "635"
    assert rows[0].split() == ["IoU", "Dice", "prec.", "recall", "HD95", "NSD", "pixels"]
    assert f"NSD within 28.5 m\nreport: {tmp_path / 'a' / 'scores.html'}\n" in done.stdout
    again = invoke(
        "evaluate", model, spec, "-o", tmp_path / "a", "--overwrite", "--json", "--tolerance", "57",
        "--calibration",
    )  # fmt: skip
    scores = json.loads(again.stdout)
    assert scores == json.loads((tmp_path / "a" / "scores.json").read_text())
    assert scores["tolerance"] == 57
    assert sum(one["pixels"] for one in scores["calibration"]["bins"]) == scores["pixels"]
    plain = invoke("evaluate", model, spec, "-o", tmp_path / "b", "--no-distances")
    assert plain.stdout.splitlines()[0].split() == ["IoU", "Dice", "prec.", "recall", "pixels"]


def test_train_then_predict(tmp_path):
    done = invoke(
        "train", bundled_spec("spine_ct.yaml"), "-o", tmp_path / "run", "--steps", "2",
        "--patch", "32", "--batch-size", "1", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["steps"] == 2
    again = invoke("predict", result["model"], VOLUME, "-o", tmp_path / "labels.nii.gz")
    assert again.exit_code == 0, again.output
    assert "73 x 73 x 47 pixels" in again.stdout
    table = again.stdout.splitlines()[1:]
    assert table[0].split() == ["value", "class", "voxels", "ml"]
    counted = [int(row.split()[-2]) for row in table[1:]]
    assert sum(counted) == 73 * 73 * 47
    for count, row in zip(counted, table[1:], strict=True):  # voxels of 1.5 mm
        assert float(row.split()[-1]) == pytest.approx(count * 1.5**3 / 1000, abs=6e-4)
    told = invoke("info", tmp_path / "labels.nii.gz").stdout
    assert table[2] in told.splitlines()


def test_info_describes_scans_models_and_specs(model):
    scene = json.loads(invoke("info", SCENE, "--json").stdout)
    assert (scene["kind"], scene["shape"]) == ("scene", [443, 489])
    assert scene["channels"] == ["blue", "green", "red", "nir", "swir1"]
    assert scene["transform"] == [28.5, 0.0, 630534.0, 0.0, -28.5, 228114.0]
    volume = json.loads(invoke("info", VOLUME, "--json").stdout)
    assert (volume["kind"], volume["shape"]) == ("volume", [73, 73, 47])
    assert volume["file_orientation"] == "PIR"
    card = json.loads(invoke("info", model, "--json").stdout)["card"]
    assert [label["name"] for label in card["classes"]][5] == "water"
    text = invoke("info", bundled_spec("spine_ct.yaml")).stdout
    assert "0 other, 1 vertebral body, 2 posterior elements" in text


def test_errors_are_one_line_with_exit_code_2(model, tmp_path):
    out = tmp_path / "labels.tif"
    existing = tmp_path / "there.tif"
    existing.write_bytes(b"precious")
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\nndim: 2\nchanels: [a]\n")
    landsat = bundled_spec("nc_landcover.yaml")
    cases = [
        (("predict", model, tmp_path / "no.tif", "-o", out), "no.tif"),
        (("predict", model, VOLUME, "-o", out), "has 1 channel; the model expects 5 channels"),
        (("predict", SCENE, SCENE, "-o", out), "expected a .keras file"),
        (("predict", model, SCENE, "-o", existing), "--overwrite"),
        (("predict", model, SCENE, "-o", out, "--tile", "50"), "no multiple"),
        (("train", spec, "-o", tmp_path / "run"), "'channels'"),
        (("evaluate", model, tmp_path / "no.yaml", "-o", tmp_path / "e"), "no.yaml"),
        (("info", tmp_path / "no.nii.gz"), "no.nii.gz"),
        (("info", tmp_path), "is a folder"),
        (("evaluate", model, landsat, "-o", existing), "there.tif"),
        (("evaluate", model, landsat, "-o", existing / "sub"), "there.tif"),
        (("info", tmp_path / ("n" * 300 + ".keras")), "File name too long"),
    ]
    for arguments, expected in cases:
        done = invoke(*arguments)
        assert done.exit_code == 2, arguments
        assert done.stderr.startswith("segfocal: error: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert expected in done.stderr, done.stderr
        assert done.stdout == ""
    assert existing.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.yaml", "there.tif"]
    assert isinstance(invoke("--debug", "info", tmp_path / "no.tif").exception, sf.SegfocalError)


def test_wrong_usage_has_exit_code_2(model):
    assert invoke("predict", model, SCENE).exit_code == 2
    assert "no whole number" in invoke("predict", model, SCENE, "-o", "x", "--tile", "a").stderr
    wrong = invoke("predict", model, SCENE, "-o", "x", "--interpolation", "2")
    assert "'2' is not one of '1', '3'" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_continue_and_does(number, model, tmp_path):
    with rasterio.open(
        tmp_path / "big.tif", "w", driver="GTiff", width=6000, height=6000, count=5,
        dtype="uint8", tiled=True, compress="deflate", crs="EPSG:32119",
        transform=rasterio.Affine(28.5, 0, 0, 0, -28.5, 0),
    ) as out:  # fmt: skip
        out.write(np.ones((5, 6000, 6000), np.uint8))
    run = subprocess.Popen(
        [sys.executable, "-m", "segfocal", "predict", model, tmp_path / "big.tif",
         "-o", tmp_path / "labels.tif"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    scratch = tmp_path / ".labels.tif.scratch"
    while not list(scratch.glob("*.unit")) and time.monotonic() < deadline:
        time.sleep(0.2)
    run.send_signal(number)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + number, errors
    assert "Traceback" not in errors
    told = f"stopped; run the same command again to continue: what is finished is kept in {scratch}"
    assert told in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == [".labels.tif.scratch", "big.tif"]
    kept = len(list(scratch.glob("*.unit")))
    reports = []

    def look(done, total):
        reports.append((done, total))
        raise KeyboardInterrupt

    notices = []
    with pytest.raises(KeyboardInterrupt):
        sf.predict(
            model, tmp_path / "big.tif", tmp_path / "labels.tif", progress=look,
            notice=notices.append,
        )  # fmt: skip
    assert notices == [f"{tmp_path / 'labels.tif'}: continues with {kept} units kept"]
    assert reports[0][0] > 0


SWALLOWING = """
import os, sys
from segfocal.cli.stopping import catch_signals
from segfocal.io import PendingOutput
catch_signals()
with PendingOutput(sys.argv[1]) as pending:
    pending.main.write_text("half")
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
        for _ in range(1000):
            pass
    except BaseException:
        pass
sys.exit(1)
"""


def run_code(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_library_can_swallow_a_signal(number, tmp_path):
    if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("runs under nohup, which is to be respected")
    done = run_code(SWALLOWING, tmp_path / "labels.tif", int(number))
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == "segfocal: stopped; nothing is left half-written\n"
    assert list(tmp_path.iterdir()) == []


STOPPED_IN_COMMIT = """
import os, signal, sys
from pathlib import Path
from segfocal.cli.stopping import catch_signals
from segfocal.io import PendingOutput
catch_signals()
replace = os.replace
def stopped_replace(source, target):
    replace(source, target)
    os.kill(os.getpid(), signal.SIGTERM)
with PendingOutput(sys.argv[1], overwrite=True) as pending:
    pending.main.write_text("new")
    pending.path(Path(sys.argv[1]).name + ".aux.xml").write_text("new")
    os.replace = stopped_replace
    pending.commit()
sys.exit(1)
"""


def test_a_signal_does_not_part_main_file_and_sidecar(tmp_path):
    for name in ("labels.tif", "labels.tif.aux.xml"):
        (tmp_path / name).write_text("old")
    done = run_code(STOPPED_IN_COMMIT, tmp_path / "labels.tif")
    assert done.returncode == 143, done.stderr
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"labels.tif": "new", "labels.tif.aux.xml": "new"}


STOPPED_TWICE = """
import os, signal, sys
import segfocal.cli.stopping as stopping
remove_all = stopping.remove_all
def slow():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
    remove_all()
stopping.remove_all = slow
stopping.catch_signals()
from segfocal.io import PendingOutput
with PendingOutput(sys.argv[1]) as pending:
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_second_signal_does_not_interrupt_the_clean_up(tmp_path):
    done = run_code(STOPPED_TWICE, tmp_path / "labels.tif")
    assert done.returncode == 143, done.stderr
    assert list(tmp_path.iterdir()) == []


STOPPED_WHILE_KERAS_LOADS = """
import os, signal, sys
from segfocal.cli.stopping import catch_signals
from segfocal.quiet import load_keras
catch_signals()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
load_keras()
"""


def test_a_stop_is_told_while_the_chatter_of_keras_is_caught():
    done = run_code(STOPPED_WHILE_KERAS_LOADS)
    assert (done.returncode, done.stderr) == (
        130,
        "segfocal: stopped; nothing is left half-written\n",
    )


def test_memory_that_does_not_suffice_is_one_line(model, tmp_path):
    done = invoke("predict", model, SCENE, "-o", tmp_path / "a.tif", "--tile", 3200000)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("segfocal: error: out of memory")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_demo_replaces_nothing_unasked(tmp_path):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "model.keras").write_text("precious")
    done = invoke("demo", "-o", tmp_path)
    assert done.exit_code == 2
    assert "scene: exists already" in done.stderr
    assert (tmp_path / "scene" / "model.keras").read_text() == "precious"


def test_the_readmes_python_runs_as_written(tmp_path, monkeypatch):
    blocks = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    spec = next(body for kind, body in blocks if kind == "yaml")
    code = [body for kind, body in blocks if kind == "python"]
    monkeypatch.chdir(tmp_path)
    Path("landcover.yaml").write_text(spec)
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff",
        "width": 200,
        "height": 150,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    }
    for name in ("north", "south", "scene"):
        labels = np.kron(rng.integers(1, 3, (6, 8)), np.ones((25, 25))).astype(np.uint8)
        with rasterio.open(f"{name}.tif", "w", count=4, photometric="minisblack", **profile) as out:
            bands = [labels * 40 + rng.integers(0, 9, labels.shape)] * 4
            out.write(np.stack(bands).astype(np.uint8))
        with rasterio.open(f"{name}_labels.tif", "w", count=1, nodata=0, **profile) as out:
            out.write(labels, 1)
    names: dict = {}
    exec(code[0].replace("steps=2000", "steps=30"), names)
    exec(code[1], names)
    with rasterio.open("labels.tif") as found, rasterio.open("scene_labels.tif") as truth:
        assert (found.read(1) == truth.read(1)).mean() > 0.8
    assert names["probabilities"].shape[-1] == 2


@pytest.mark.slow
def test_the_demo_beats_its_baselines(tmp_path):
    done = invoke("demo", "-o", tmp_path / "demo", "--json")
    assert done.exit_code == 0, done.output
    for job in json.loads(done.stdout):
        scores = job["held_out"]
        for rival in ("single pixels", "majority class"):
            for measure in ("accuracy", "mean_iou", "mean_dice"):
                assert scores["segfocal"][measure] > scores[rival][measure], (job["name"], measure)
        for kind in ("model", "labels", "overlay"):
            assert Path(job[kind]).stat().st_size > 1000
    again = invoke("demo", "-o", tmp_path / "demo")
    assert again.exit_code == 2
    assert "summary.json: exists already, perhaps of an earlier demo" in again.stderr


def test_a_plan_is_made_changed_and_trained_by(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    spec, path = bundled_spec("nc_landcover.yaml"), tmp_path / "plan.yaml"
    done = invoke("plan", spec, "-o", path, "--patch", "64", "--batch-size", "2", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["patch"] == [64, 64]
    assert "reasons:\n  card.resolution: 'that of the scan, in metres'\n" in path.read_text()
    again = invoke("plan", spec, "-o", path)
    assert (again.exit_code, "plan.yaml: exists already" in again.stderr) == (2, True)
    lines = invoke("plan", spec, "-o", path, "--overwrite", "--patch", "64,32").stdout.splitlines()
    assert lines[0] == f"{path}: nano, 1000 steps of 16 patches, 64 x 32 pixels"
    assert [line.split()[0] for line in lines[1:3]] == ["card.resolution", "resample"]
    assert lines[1].endswith("  28.5 x 28.5 - that of the scan, in metres")
    path.write_text(path.read_text().replace("steps: 1000", "steps: 2"))
    options = ("--workers", "1", "--cache", "none", "--json")
    done = invoke("train", spec, "-o", tmp_path / "run", "--plan", path, *options)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == 2
    assert sf.load_plan(tmp_path / "run" / "plan.yaml") == sf.load_plan(path)
