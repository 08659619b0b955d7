"""Quantization: int8 that predicts nearly the same, and says how nearly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score, jaccard_score

import segfocal as sf
from segfocal import quantizing
from segfocal.card import Card
from segfocal.card_files import read_facts
from segfocal.cli import segfocal as command
from segfocal.engine.identity import model_identity
from segfocal.engine.predictors import load_model
from segfocal.errors import ModelError, OutputError, OutputExistsError, ScanError
from segfocal.quantizing import Quantization, Scores
from segfocal.quantizing.calibration_tiles import sample_tiles
from segfocal.quantizing.comparison import against_other

SCENE = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"


@pytest.fixture(scope="module")
def quantized(exports, tmp_path_factory):
    pytest.importorskip("nncf")
    out = tmp_path_factory.mktemp("quantized") / "int8.xml"
    return sf.quantize(exports.path("openvino"), SCENE, out, tiles=6)


def test_labels_are_nearly_those_of_the_float_model(exports, quantized):
    assert quantized.tiles == 6
    assert 0.9 < quantized.against_float.accuracy < 1  # random weights; equal would be no int8
    assert quantized.float_scores is quantized.int8_scores is None
    plain, rough = load_model(exports.path("openvino")), load_model(quantized.output)
    # Of another size and batch than it was calibrated with.
    with sf.open_scan(SCENE) as scan:
        patch = scan.read((slice(100, 250), slice(200, 333)))
    tile, valid = patch.values[None].astype(np.float32), patch.valid.all(-1)[None]
    difference = np.abs(plain(tile, valid) - rough(tile, valid))[valid]
    assert difference.max() > 1e-4
    assert difference.mean() < 0.03


def stored_type(port):
    """Type of the constant that weights are stored in, before they are scaled."""
    node = port.get_source_output().get_node()
    while node.get_type_name() != "Constant":
        node = node.input(0).get_source_output().get_node()
    return node.get_element_type().get_type_name()


def test_all_dense_layers_but_gates_and_logits_compute_in_int8(quantized):
    ops = load_model(quantized.output).network.get_ops()
    dense = {
        op.get_friendly_name().split("/Tensordot")[0].rsplit("/", 1)[-1].removesuffix("_1"):
        stored_type(op.input(1))
        for op in ops
        if op.get_type_name() == "MatMul"
    }  # fmt: skip
    assert {name for name, kind in dense.items() if kind == "f32"} == {"gates", "logits"}
    assert {"query", "context", "modulator", "output", "expand", "reduce"} <= set(dense)
    convolutions = [op for op in ops if op.get_type_name() == "Convolution"]
    assert {stored_type(op.input(1)) for op in convolutions} == {"i8"}


def test_it_is_a_model_with_a_name_of_its_own(exports, quantized):
    facts = read_facts(quantized.output)
    assert (facts.precision, facts.card) == ("int8", exports.model.card)
    rough, plain = load_model(quantized.output), load_model(exports.path("openvino"))
    assert rough.engine.endswith(" int8")
    assert model_identity(rough).hash != model_identity(plain).hash
    assert sf.inspect(quantized.output)["precision"] == "int8"
    assert (
        sf.inspect(quantized.output)["gmacs_per_mpx"] == sf.inspect(exports.keras)["gmacs_per_mpx"]
    )
    assert "precision" not in sf.inspect(exports.path("openvino"))


def test_it_predicts_without_tensorflow_and_without_the_quantizer(quantized, tmp_path):
    code = (
        "import sys, segfocal as sf\n"
        "sf.predict(*sys.argv[1:], tile=128)\n"
        "heavy = {'tensorflow', 'keras', 'nncf', 'torch', 'openvino_telemetry'}\n"
        "assert not {name for name in heavy if sys.modules.get(name)}\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, quantized.output, SCENE, tmp_path / "l.tif"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_tiles_are_spread_over_scans_and_not_used_twice(exports):
    predictor = load_model(exports.path("openvino"))
    sample = sample_tiles(predictor, [SCENE, SCENE], None, 6)
    assert len(sample.calibration) == len(sample.comparison) == 6
    one, other = ([v.tobytes() for v, _ in part[:3]] for part in
                  (sample.calibration, sample.comparison))  # fmt: skip
    assert not set(one) & set(other)
    assert all(valid.any() for _, valid in sample.calibration)


def test_scans_without_data_are_refused(exports, tmp_path):
    import rasterio

    with rasterio.open(SCENE) as source:
        profile, names = {**source.profile, "nodata": 0}, source.descriptions
    with rasterio.open(tmp_path / "empty.tif", "w", **profile) as scene:
        scene.descriptions = names
    with pytest.raises(ScanError, match="no tile of the scans has a valid pixel"):
        sample_tiles(load_model(exports.path("openvino")), [tmp_path / "empty.tif"], None, 4)


def test_what_cannot_be_done_is_one_line_and_no_file(quantized, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"m\.onnx: ends in \.onnx; expected \.xml"):
        sf.quantize(quantized.output, SCENE, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is quantized already; expected one in float32"):
        sf.quantize(quantized.output, SCENE, tmp_path / "m.xml")
    with pytest.raises(OutputExistsError, match=r"int8\.xml: exists already"):
        sf.quantize(quantized.output, SCENE, quantized.output)
    with pytest.raises(ModelError, match="tiles 0; expected at least 1"):
        sf.quantize(quantized.output, SCENE, tmp_path / "m.xml", tiles=0)
    monkeypatch.setattr(quantizing, "find_spec", lambda name: None if name == "nncf" else "here")
    with pytest.raises(ModelError, match=r"needs nncf, .*pip install 'segfocal\[quantize\]'$"):
        sf.quantize(quantized.output, SCENE, tmp_path / "m.xml")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_is_lost(monkeypatch, tmp_path):
    asked = {}

    def quantize(model, scans, output, **options):
        asked.update(options, scans=scans)
        return Quantization(
            output, 64, Scores(0.995, 0.98, 0.99), Scores(0.9, 0.70, 0.80),
            Scores(0.9, 0.697, 0.8025), 12.34,
        )  # fmt: skip

    monkeypatch.setattr(sf, "quantize", quantize, raising=False)
    words = ["quantize", "m.keras", "a.tif", "b.tif", "-o", str(tmp_path / "q.xml"), "--tile", "96"]
    done = CliRunner().invoke(command, words)
    assert (asked["scans"], asked["tile"], asked["tiles"]) == (("a.tif", "b.tif"), 96, 64)
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["int8", "against", "float", "0.9950", "0.9800", "0.9900"]
    assert lines[-2:] == [
        "lost: 0.30 points of mIoU, -0.25 of Dice",
        f"{tmp_path / 'q.xml'}: 64 tiles, 12.3 s",
    ]
    found = json.loads(CliRunner().invoke(command, [*words, "--json"]).stdout)
    assert found["int8_scores"] == {"accuracy": 0.9, "mean_iou": 0.697, "mean_dice": 0.8025}
    help_text = CliRunner().invoke(command, ["quantize", "--help"]).output
    assert "Example: segfocal quantize model.keras scene.tif -o model_int8.xml" in " ".join(
        help_text.split()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scan"), [("scene", SCENE), ("volume", None)])
def test_a_trained_model_loses_at_most_half_a_point(name, scan, tmp_path):
    pytest.importorskip("nncf")
    from segfocal.demonstration import DEMOS, bundled_spec

    demo = DEMOS[name]
    spec = sf.load_spec(bundled_spec(demo.spec))
    plan = sf.make_plan(
        spec, patch=demo.patch, batch_size=demo.batch_size, steps=demo.steps, seed=0
    )
    model = sf.FocalUNet.from_plan(spec, plan)
    sf.train(model, spec, plan, out=tmp_path / "run")
    sf.export(model, tmp_path / "m.xml")
    scans = [spec.path(case.image) for case in spec.cases]
    found = sf.quantize(tmp_path / "m.xml", scans, tmp_path / "q.xml", spec=spec)
    assert found.against_float.accuracy > 0.98
    assert found.float_scores.mean_iou - found.int8_scores.mean_iou <= 0.005
    assert found.float_scores.mean_dice - found.int8_scores.mean_dice <= 0.005


def test_of_regions_it_is_compared_where_each_is_found():
    rng = np.random.default_rng(0)
    card = Card.generic(ndim=2, in_channels=1, num_classes=3, task="regions")
    tiles = [(rng.random((8, 9, 1), np.float32), rng.random((8, 9)) < 0.8) for _ in range(3)]
    answers = rng.random((2, 3, 8, 9, 3))

    def predictor(which):
        shown = iter(answers[which])

        class Predictor:
            def __call__(self, values, valid):
                return next(shown)[None]

        Predictor.card = card
        return Predictor()

    found = against_other(predictor(0), predictor(1), tiles)
    valid = np.stack([valid for _, valid in tiles])
    pair = [(one > 0.5)[valid] for one in answers]
    assert found.mean_iou == pytest.approx(jaccard_score(*pair, average="macro"))
    assert found.mean_dice == pytest.approx(f1_score(*pair, average="macro"))
    assert found.accuracy == pytest.approx((pair[0] == pair[1]).mean())
