"""``convert_weights`` and its command."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from recorded import PARITY, Recorded
from safetensors.numpy import save_file
from seeded import seeded_image

import segfocal as sf
from segfocal.cli import segfocal as command


@pytest.fixture
def recorded():
    return Recorded(PARITY / "timm_tiny_srf.npz")


@pytest.fixture
def checkpoint(recorded, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(recorded.tensors, path)
    return path


def run(*arguments):
    return CliRunner().invoke(command, ["convert-weights", *map(str, arguments)])


def test_the_written_encoder_computes_what_the_peer_does(recorded, checkpoint, tmp_path):
    output = tmp_path / "encoder.keras"
    done = run(checkpoint, "-o", output)
    assert done.exit_code == 0, done.output
    assert "recognised: timm checkpoint, no published size" in done.output
    assert "3 channels, 2-D, 2 focal levels, window 3" in done.output
    assert "mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225" in done.output
    assert "note: the weights do not show whether the modulator is normalised" in done.output
    encoder = keras.saving.load_model(output)
    expected = recorded.expected((64, 96))
    for name, array in encoder(seeded_image(64, 96)).items():
        assert np.abs(np.asarray(array) - expected[name]).max() <= 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.keras", checkpoint.name]


def test_the_file_says_where_its_weights_come_from(checkpoint, tmp_path):
    output = tmp_path / "encoder.keras"
    done = run(checkpoint, "-o", output, "--json", "--channel-names", "blue, green, red, nir",
               "--ndim", "3", "--focal-window", "1,5,5", "--inflation", "mean")  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["output"] == str(output)
    assert result["source"] == "timm"
    assert result["channels"] == ["blue", "green", "red", "nir"]
    assert result["options"]["in_channels"] == 4
    assert result["options"]["ndim"] == 3
    assert result["options"]["focal_window"] == [1, 5, 5]
    assert result["normalization"]["std"] == [0.229, 0.224, 0.225]
    with zipfile.ZipFile(output) as archive:
        stored = json.loads(archive.read("segfocal_encoder.json"))
    assert stored["format"] == 1
    assert {key: stored[key] for key in result if key != "output"} == {
        key: value for key, value in result.items() if key != "output"
    }
    told = sf.inspect(output)
    assert told["kind"] == "encoder"
    assert told["options"] == result["options"]
    encoder = keras.saving.load_model(output)
    assert encoder.count_params() == result["parameters"]
    volume = np.zeros((1, 32, 32, 32, 4), "f4")
    assert encoder(volume)["P2"].shape == (1, 8, 8, 8, 8)
    again = sf.weights.read_encoder(output)
    assert again.normalization.as_json() == result["normalization"]


def test_a_published_preset_is_named(tmp_path, monkeypatch):
    # At full size in the slow tests; here the table has the fixture's width.
    from segfocal import presets

    preset = presets.Preset(8, (2, 2, 6, 2), 2, drop_path=0.2)
    monkeypatch.setitem(presets.PRESETS, "tiny_srf", preset)
    recorded = Recorded(PARITY / "transformers_tiny_srf.npz")
    recorded.save(tmp_path)
    result = sf.convert_weights(tmp_path, tmp_path / "encoder.keras")
    assert (result.source, result.preset) == ("transformers", "tiny_srf")
    assert result.options["drop_path"] == 0.2
    assert result.notes == ()


def test_a_converted_encoder_goes_into_a_unet(checkpoint, tmp_path, recorded):
    output = tmp_path / "encoder.keras"
    sf.convert_weights(checkpoint, output)
    unet = sf.FocalUNet(num_classes=2, in_channels=3, encoder={"embed_dim": 8})
    sf.load_encoder(unet, output)
    expected = recorded.expected((64, 96))
    for name, array in unet.encoder(seeded_image(64, 96)).items():
        assert np.abs(np.asarray(array) - expected[name]).max() <= 1e-4


def test_the_classifier_is_kept_when_its_classes_are_named(checkpoint, tmp_path, recorded):
    output = tmp_path / "classifier.keras"
    assert run(checkpoint, "-o", output, "--num-classes", 7).exit_code == 0
    logits = np.asarray(keras.saving.load_model(output)(seeded_image(64, 96)))
    assert np.abs(logits - recorded.expected((64, 96))["logits"]).max() <= 1e-4
    done = run(checkpoint, "-o", tmp_path / "other.keras", "--num-classes", 10)
    assert done.exit_code == 2
    assert "have 7 classes; expected a classifier of 10 classes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing.bin"], "no such file"),
     (["{checkpoint}", "--focal-window", "4"], "expected one odd number"),
     (["{checkpoint}", "--focal-window", "3,3", "--ndim", "3"], "expected one odd number or 3"),
     (["{checkpoint}", "--in-channels", "3", "--channel-names", "red,green"],
      "2 channel names for 3 channels"),
     (["{checkpoint}", "--use-postln"], "expected False, as timm's names show"),
     (["{garbage}"], "is no checkpoint"), (["{nan}"], "holds NaN")],
)  # fmt: skip
def test_errors_are_one_line_and_leave_nothing(checkpoint, recorded, tmp_path, arguments, message):
    (tmp_path / "garbage.bin").write_bytes(b"no weights here")
    broken = {**recorded.tensors, "norm.bias": np.full(64, np.nan, "f4")}
    save_file(broken, tmp_path / "nan.safetensors")
    places = {"checkpoint": checkpoint, "garbage": tmp_path / "garbage.bin",
              "nan": tmp_path / "nan.safetensors"}  # fmt: skip
    before = sorted(tmp_path.iterdir())
    output = tmp_path / "encoder.keras"
    done = run(*(argument.format(**places) for argument in arguments), "-o", output)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("segfocal: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_exists_is_kept_unless_overwriting(checkpoint, tmp_path):
    output = tmp_path / "encoder.keras"
    output.write_text("precious")
    done = run(checkpoint, "-o", output)
    assert done.exit_code == 2
    assert output.read_text() == "precious"
    assert run(checkpoint, "-o", output, "--overwrite").exit_code == 0
    assert zipfile.is_zipfile(output)


def test_other_suffixes_are_refused(checkpoint, tmp_path):
    done = run(checkpoint, "-o", tmp_path / "encoder.h5")
    assert done.exit_code == 2
    assert "ends in .keras" in done.stderr


def test_help_loads_no_keras():
    code = (
        "import sys; from segfocal.cli import segfocal as c\n"
        "try: c(['convert-weights', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'keras', 'tensorflow', 'torch', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
