"""``segfocal export``, and the other commands on what it writes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import segfocal as sf
from segfocal.cli import segfocal as command

SCENE = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"
README = Path(__file__).resolve().parents[2] / "README.md"


def invoke(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "segfocal", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=550,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def test_export_explains_itself():
    done = invoke("export", "--help")
    assert done.exit_code == 0
    assert done.output.startswith("Usage: segfocal export [OPTIONS] MODEL")
    assert "Example: segfocal export model.keras -o model.onnx" in done.output
    assert "  export " in invoke("--help").output


def test_export_then_info_then_predict(exports, tmp_path):
    pytest.importorskip("openvino")
    _ = exports.model
    out = tmp_path / "m.xml"
    done = run("export", exports.keras, "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(out))}: openvino, \d\.\de-\d\d from the Keras model in openvino [\d.]+ "
        r"float32, [\d.]+ s\n",
        done.stdout,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]

    info = run("info", out)
    assert "file_format:      openvino\n" in info.stdout
    assert 'classes:          1 Wälder, 2 a "<b>" & c, 7 sea\n' in info.stdout
    assert json.loads(run("info", out, "--json").stdout)["output_stride"] == 32

    done = run("predict", out, SCENE, "-o", tmp_path / "labels.tif", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert sum(result["class_pixels"]) == 443 * 489 - result["invalid_pixels"] > 100_000


def test_export_prints_json(exports, tmp_path):
    _ = exports.model
    done = invoke(
        "export", exports.keras, "-o", tmp_path / "m", "--format", "saved_model", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["output"] == str(tmp_path / "m")
    assert result["format"] == "saved_model"
    assert 0 <= result["difference"] <= 1e-4
    assert 0 <= result["log_difference"] <= 1e-4


@pytest.mark.slow
def test_the_readme_runs_as_written(exports, tmp_path, monkeypatch):
    for module in ("onnx", "tf2onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    text = README.read_text(encoding="utf-8").split("<!-- command: export -->")[1]
    lines = text.split("```bash\n")[1].split("```")[0].splitlines()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(lines) == 4
    monkeypatch.chdir(tmp_path)
    Path("runs/landcover").mkdir(parents=True)
    exports.model.save("runs/landcover/model.keras")
    shutil.copy(SCENE, "scene.tif")
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "segfocal"
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
    assert Path("labels.tif").is_file()
    names = {"image": np.full((1, 40, 50, 5), 70, np.float32), "valid": np.ones((1, 40, 50), bool)}
    exec(code, names)
    assert np.allclose(names["probabilities"].sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("format", ["saved_model", "onnx", "openvino"])
def test_info_describes_each_format(exports, format):
    found = json.loads(invoke("info", exports.path(format), "--json").stdout)
    assert (found["kind"], found["file_format"]) == ("model", format)
    assert found["card"] == exports.model.card.model_dump(mode="json")


def test_errors_are_one_line_with_exit_code_2(exports, tmp_path):
    _ = exports.model
    there = tmp_path / "there.onnx"
    there.write_bytes(b"precious")
    broken = tmp_path / "broken.xml"
    broken.write_text("<net><layers>")
    cases = [
        (
            ("export", exports.keras, "-o", tmp_path / "m.onnx", "--format", "openvino"),
            "expected .xml",
        ),
        (("export", exports.keras, "-o", tmp_path / "m"), "names no format"),
        (("export", exports.keras, "-o", there), "--overwrite"),
        (("export", exports.keras, "-o", tmp_path / "no" / "m.onnx"), "does not exist"),
        (("export", tmp_path / "no.keras", "-o", tmp_path / "m.onnx"), "no such file"),
        (("export", SCENE, "-o", tmp_path / "m.onnx"), "expected a .keras file"),
        (("predict", broken, SCENE, "-o", tmp_path / "l.tif"), "broken.xml: damaged"),
        (("predict", there, SCENE, "-o", tmp_path / "l.tif"), "there.onnx: damaged"),
        (("info", broken), "broken.xml: damaged"),
        (("info", there), "there.onnx: damaged"),
    ]
    for arguments, words in cases:
        done = invoke(*arguments)
        assert done.exit_code == 2, arguments
        assert done.stdout == ""
        assert re.fullmatch(r"segfocal: error: .+\n", done.stderr), done.stderr
        assert words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.xml", "there.onnx"]
    assert there.read_bytes() == b"precious"
    usage = invoke("export", exports.keras, "-o", tmp_path / "m", "--format", "tflite")
    assert usage.exit_code == 2
