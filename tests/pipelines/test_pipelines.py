"""Each script in ``pipelines`` runs for two steps, on miniatures of the data it is made for.

Several share a process, as each would load TensorFlow anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from miniatures import buildings, clouds, hippocampus, landcover, nuclei, water

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINES = REPOSITORY / "pipelines"
SCRIPTS = sorted(path.name for path in PIPELINES.glob("*.py"))

RUN_ALL = """
import json, runpy, sys
for script, *arguments in json.loads(sys.argv[1]):
    print("==", script, flush=True)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def run(*calls):
    """Run scripts, one after the other in one process, and return what each printed."""
    calls = [[str(PIPELINES / script), *map(str, rest)] for script, *rest in calls]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(calls)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [part.partition("\n")[2] for part in done.stdout.split("== ")[1:]]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_every_script_is_run_here():
    calls = Path(__file__).read_text()
    assert [name for name in SCRIPTS if f'["{name}", ' not in calls] == ["make_samples.py"]
    assert len(SCRIPTS) == 10


def test_scripts_tell_what_they_need():
    for text in run(*([name, "--help"] for name in SCRIPTS)):
        assert text.startswith("usage:")
        assert "python pipelines/" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_train_then_apply_a_model_to_everything(data, tmp_path):
    """Nuclei, as they are the cheapest, and all that is done with a trained model."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    nuclei(data)
    model = tmp_path / "run" / "model.keras"
    trained, predicted, again, scored, exported = run(
        ["train_nuclei.py", "--data", data, "--steps", "2", "-o", tmp_path / "run"],
        ["predict_folder.py", model, data / "images", "-o", tmp_path / "labels"],
        ["predict_folder.py", model, data / "images", "-o", tmp_path / "labels"],
        ["evaluate_split.py", model, REPOSITORY / "benchmarks/accuracy_specs/nuclei.yaml",
         "--data", data, "-o", tmp_path / "scores"],
        ["export_model.py", model, "-o", tmp_path / "nuclei.onnx"],
    )  # fmt: skip
    assert "pieces, 16 nuclei" in trained
    assert predicted.count(" of 3 scans") >= 3
    shares = [float(line.split()[-1].rstrip("%")) for line in predicted.splitlines()[-2:]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert again.splitlines()[-2:] == predicted.splitlines()[-2:]
    summary = json.loads((tmp_path / "labels" / "summary.json").read_text())
    assert summary["unchanged"] == 3
    saved = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert f"mean IoU {saved['mean_iou']:.3f}" in scored
    assert f"look at {saved['cases'][0]['case']}" in scored
    assert "expected calibration error" in scored
    assert "channels: red, green, blue" in exported
    assert "probabilities (1, 64, 64, 2), sums 1.0000" in exported


@pytest.mark.slow
def test_scenes(data, tmp_path):
    landcover(data / "nc")
    clouds(data / "clouds")
    water(data / "spain")
    own, dense, cloudy, wet, optical = run(
        ["train_landcover.py", "--steps", "2", "-o", tmp_path / "own"],
        ["train_landcover.py", "--data", data / "nc", "--steps", "2", "-o", tmp_path / "dense"],
        ["train_clouds.py", "--data", data / "clouds", "--steps", "2", "-o", tmp_path / "clouds",
         "--direction", "7_to_5"],
        ["train_water.py", "--data", data / "spain", "--steps", "2", "-o", tmp_path / "water"],
        ["train_water.py", "--data", data / "spain", "--steps", "2", "-o", tmp_path / "s2",
         "--sensors", "s2", "--half", "east"],
    )  # fmt: skip
    for text, name in ((own, "own"), (dense, "dense")):
        saved = json.loads((tmp_path / name / "test" / "scores.json").read_text())
        assert f"accuracy {saved['accuracy']:.3f}" in text
        assert "epoch 2: " in text
    with rasterio.open(tmp_path / "dense" / "labels.tif") as labels:
        assert labels.shape == (160, 489)
    saved = json.loads((tmp_path / "clouds" / "test" / "scores.json").read_text())
    assert [*saved["labels"]] == ["landsat5"]
    assert f"cloud    IoU {saved['classes'][3]['iou'] or 0:.3f}" in cloudy
    for text, name in ((wet, "water"), (optical, "s2")):
        with rasterio.open(tmp_path / name / "water.tif") as labels:
            assert f"{int((labels.read(1) == 1).sum())} pixels of water" in text
        assert (tmp_path / name / "water.uncertainty.tif").is_file()


@pytest.mark.slow
def test_buildings(data, tmp_path):
    pytest.importorskip("shapely")
    pyogrio = pytest.importorskip("pyogrio")
    buildings(data)
    (text,) = run(["train_buildings.py", "--data", data, "--steps", "2", "-o", tmp_path / "run"])
    # Every fourth square is one.
    assert float(text.partition("%")[0]) == pytest.approx(25, abs=6)
    found = pyogrio.read_info(tmp_path / "run" / "buildings.gpkg", layer="buildings")
    assert f"{found['features']} polygons" in text


@pytest.mark.slow
def test_hippocampus_stops_and_goes_on(data, tmp_path):
    hippocampus(data)
    given = ["train_hippocampus.py", "--data", data, "--steps", "2", "-o", tmp_path / "run"]
    stopped, resumed = run([*given, "--max-minutes", "0"], [*given, "--resume"])
    assert "1 of 2 steps" in stopped
    assert "2 of 2 steps" in resumed
    saved = json.loads((tmp_path / "run" / "test" / "scores.json").read_text())
    assert f"mean Dice {saved['foreground_dice']:.3f} of {len(saved['cases'])} cases" in resumed
