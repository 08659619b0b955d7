"""Prediction from exported files: the same labels as Keras, without Keras."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card_files import CONTENT_HASH
from segfocal.engine import predictors
from segfocal.engine.engines import in_engine
from segfocal.engine.identity import model_identity
from segfocal.engine.onnx_predictor import ONNXPredictor
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.engine.predictors import as_predictor, load_model
from segfocal.errors import ModelError

SCENE = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"
RUNNABLE = ("onnx", "openvino")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A corner of a real scene, with a hole in it."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(SCENE) as source:
        pixels = source.read(window=((100, 250), (100, 230)))
        profile = {**source.profile, "width": 130, "height": 150, "nodata": 0}
        names = source.descriptions
    pixels[:, 40:60, 30:90] = 0
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
        out.descriptions = names
    return path


def labels(path):
    with rasterio.open(path) as found:
        return found.read(1)


@pytest.mark.parametrize("format", RUNNABLE)
def test_labels_are_those_of_keras(exports, scene, tmp_path, format):
    path = exports.path(format)
    sf.predict(exports.model, scene, tmp_path / "keras.tif", overlap=32)
    result = sf.predict(path, scene, tmp_path / "exported.tif", overlap=32)
    expected, found = labels(tmp_path / "keras.tif"), labels(tmp_path / "exported.tif")
    assert set(np.unique(expected)) == {1, 2, 7, 255}
    # Where two classes tie within rounding, either is right.
    with sf.open_scan(scene) as scan:
        certain = np.zeros(scan.shape, bool)
        for window, probabilities in sf.stream(exports.model, scan, overlap=32):
            best = np.sort(np.nan_to_num(probabilities), axis=-1)
            certain[window] = best[..., -1] - best[..., -2] > 1e-3
    assert certain.mean() > 0.9
    assert (found == expected)[certain].all()
    assert ((found == 255) == (expected == 255)).all()
    assert result.invalid_pixels == (expected == 255).sum()


@pytest.mark.parametrize("format", RUNNABLE)
def test_a_loaded_export_is_a_model_everywhere(exports, format):
    model = sf.load_model(exports.path(format))
    assert as_predictor(model) is model
    assert (model.card, model.ndim, model.output_stride) == (exports.model.card, 2, 32)
    array = np.random.default_rng(2).normal(70, 20, (70, 90, 5)).astype(np.float32)
    found = sf.predict_array(model, array)
    expected = sf.predict_array(exports.model, array)
    assert (found == expected).mean() > 0.999
    with sf.MemoryScan(array) as scan:
        parts = [(w, p.copy()) for w, p in sf.stream(model, scan, tile=64)]
    assert sum(p[..., 0].size for _, p in parts) == 70 * 90
    # Results of an earlier call are not overwritten by a later one.
    tile, valid = array[None, :64, :64], np.ones((1, 64, 64), bool)
    first = model(tile, valid)
    copy = first.copy()
    model(tile * 2, valid)
    assert (first == copy).all()


def test_hash_and_engine_name_what_computes(exports, tmp_path):
    predictor = as_predictor(exports.model)
    assert predictor.hash == as_predictor(exports.keras).hash
    assert len(predictor.hash) == 64
    assert predictor.engine.startswith("tensorflow 2.")
    assert predictor.engine.endswith(" float32")
    logits = exports.model.get_layer("logits")
    before, bias = predictor.hash, logits.bias.numpy()
    logits.bias.assign(bias + 1e-6)
    assert predictor.hash != before
    logits.bias.assign(bias)
    assert predictor.hash == before
    other = sf.FocalUNet.from_config(exports.model.get_config())
    assert as_predictor(other).hash != before
    function = as_predictor(lambda tiles: tiles)
    assert (function.hash, function.engine) == (None, "function")


def test_hash_of_an_export_is_that_of_its_files(exports, tmp_path):
    path = exports.path("openvino")
    found = load_model(path)
    assert found.hash != load_model(exports.path("onnx")).hash
    for name in (path, path.with_suffix(".bin")):
        shutil.copy(name, tmp_path / f"other{name.suffix}")
    assert load_model(tmp_path / "other.xml").hash == found.hash
    (tmp_path / "other.xml").write_bytes(path.read_bytes() + b"\n")
    assert load_model(tmp_path / "other.xml").hash != found.hash
    assert found.engine.startswith("openvino 20")
    assert found.engine.endswith(" float32")


def test_openvino_runs_onnx_where_its_own_runtime_is_missing(exports, monkeypatch):
    path = exports.path("onnx")
    exports.path("openvino")
    assert isinstance(load_model(path), ONNXPredictor)
    monkeypatch.setattr(predictors, "find_spec", lambda name: name == "openvino" or None)
    instead = load_model(path)
    assert isinstance(instead, OpenVINOPredictor)
    tile = np.random.default_rng(3).normal(70, 20, (2, 64, 96, 5)).astype(np.float32)
    valid = np.random.default_rng(4).random((2, 64, 96)) < 0.7
    assert np.abs(instead(tile, valid) - ONNXPredictor(path)(tile, valid)).max() <= 1e-4


@pytest.mark.parametrize("format", RUNNABLE)
def test_prediction_loads_neither_tensorflow_nor_keras(exports, scene, tmp_path, format):
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import segfocal as sf, numpy as np\n"
        "path, scene, out = sys.argv[1:]\n"
        "sf.predict(path, scene, out)\n"
        "sf.predict_array(sf.load_model(path), np.ones((40, 40, 5), np.float32))\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch', 'onnx', 'tf2onnx', 'albumentations'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert sys.modules.get('openvino_telemetry') is None\n"
    )
    arguments = [exports.path(format), scene, tmp_path / "labels.tif"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "labels.tif").exists()


@pytest.mark.parametrize(
    ("format", "module", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_runtime_is_one_clear_error(exports, monkeypatch, format, module, extra):
    path = exports.path(format)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(predictors, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf"not installed .*pip install 'segfocal\[{extra}\]'$"):
        load_model(path)


@pytest.mark.parametrize("format", RUNNABLE)
@pytest.mark.parametrize("sides", [(32, 32), (64, 96)])
def test_the_batch_makes_no_difference_to_the_bits(exports, format, sides):
    """True by construction, a call per tile: on any processor, the last odd tile too."""
    predictor = sf.load_model(exports.path(format))
    assert model_identity(predictor).batch_matters is False
    rng = np.random.default_rng(11)
    values = rng.normal(70, 20, (5, *sides, 5)).astype(np.float32)
    valid = rng.random((5, *sides)) < 0.9
    whole = predictor(values, valid)
    for size in (1, 2, 3, 4):
        for start in range(0, 5, size):
            part = slice(start, start + size)
            assert predictor(values[part], valid[part]).tobytes() == whole[part].tobytes()


def test_openvino_can_be_asked_to_run_an_onnx_file(exports):
    path = exports.path("onnx")
    assert isinstance(in_engine(path), ONNXPredictor)
    assert isinstance(in_engine(path, "openvino"), OpenVINOPredictor)
    assert isinstance(in_engine(path, "onnxruntime"), ONNXPredictor)


def copy_openvino(exports, folder):
    path = exports.path("openvino")
    for name in (path, path.with_suffix(".bin")):
        shutil.copy(name, folder / f"m{name.suffix}")
    return folder / "m.xml", folder / "m.bin"


def test_a_bin_that_is_missing_damaged_or_of_another_model_is_named(exports, tmp_path):
    xml, weights = copy_openvino(exports, tmp_path)
    content = weights.read_bytes()
    for damaged in (content[:-100], content[:1000] + b"\1" + content[1001:], b"", content + b"\0"):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"m\.xml: m\.bin beside it is damaged or of another"):
            load_model(xml)
    weights.unlink()
    with pytest.raises(ModelError, match=r"m\.xml: m\.bin with its weights is not beside it"):
        load_model(xml)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("format", RUNNABLE)
def test_a_truncated_model_is_one_line(exports, tmp_path, format, share):
    if format == "openvino":
        path, _ = copy_openvino(exports, tmp_path)
    else:
        path = shutil.copy(exports.path("onnx"), tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"m\.(xml|onnx): ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def without_hash(found):
    """Make of an ONNX model one as earlier versions wrote them."""
    entry = next(entry for entry in found.metadata_props if entry.key == CONTENT_HASH)
    found.metadata_props.remove(entry)
    return entry.value


@pytest.mark.parametrize("runtime", [ONNXPredictor, OpenVINOPredictor])
def test_an_onnx_file_with_flipped_bytes_is_refused(exports, tmp_path, runtime):
    path = shutil.copy(exports.path("onnx"), tmp_path / "m.onnx")
    if runtime is OpenVINOPredictor:
        pytest.importorskip("openvino")
    whole = path.read_bytes()
    onnx = pytest.importorskip("onnx")
    for name in ("kernel", "card"):
        damaged = onnx.load_from_string(whole)
        if name == "card":  # a class value: the labels would be others
            (card,) = [entry for entry in damaged.metadata_props if entry.key == "segfocal.card"]
            card.value = card.value.replace('"value":7', '"value":9')
            content = damaged.SerializeToString()
        else:  # in the middle, where the weights are
            content = bytearray(whole)
            for place in range(len(whole) // 2, len(whole) // 2 + 40):
                content[place] ^= 0x40
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"m\.onnx: is damaged, or was changed") as caught:
            runtime(path)
        assert "\n" not in str(caught.value)
        assert "remove segfocal.content_hash from its metadata" in str(caught.value)
    path.write_bytes(whole)
    runtime(path)


def test_the_hash_in_an_onnx_file_is_of_everything_else(exports, tmp_path):
    onnx = pytest.importorskip("onnx")
    found = onnx.load(exports.path("onnx"))
    kept = without_hash(found)
    assert kept == hashlib.sha256(found.SerializeToString()).hexdigest()
    onnx.save(found, tmp_path / "earlier.onnx")  # an earlier version wrote none
    values = np.full((1, 64, 64, 5), 70, np.float32)
    valid = np.ones((1, 64, 64), bool)
    earlier, now = ONNXPredictor(tmp_path / "earlier.onnx"), ONNXPredictor(exports.path("onnx"))
    assert (earlier(values, valid) == now(values, valid)).all()


def test_a_graph_that_the_runtime_refuses_is_one_line(exports, tmp_path):
    xml, _ = copy_openvino(exports, tmp_path)
    content = xml.read_text(encoding="utf-8")
    xml.write_text(content.replace('type="Convolution"', 'type="Convulsion"'), encoding="utf-8")
    with pytest.raises(ModelError, match=r"m\.xml: OpenVINO cannot load this model \(") as caught:
        load_model(xml)
    assert "\n" not in str(caught.value)
    onnx = pytest.importorskip("onnx")
    found = onnx.load(exports.path("onnx"))
    without_hash(found)
    next(node for node in found.graph.node if node.op_type == "Softmax").op_type = "Hardmix"
    onnx.save(found, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: ONNX Runtime cannot load this model \("):
        load_model(tmp_path / "m.onnx")


def test_a_network_with_other_ports_is_refused(exports, tmp_path):
    onnx = pytest.importorskip("onnx")
    found = onnx.load(exports.path("onnx"))
    without_hash(found)
    found.graph.output[0].name = "logits"
    last = next(node for node in found.graph.node if "probabilities" in node.output)
    last.output[0] = "logits"
    onnx.save(found, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"outputs are logits; expected probabilities"):
        load_model(tmp_path / "m.onnx")
    for entry in found.metadata_props:
        if entry.key == "segfocal.output":
            entry.value = "logits"
    onnx.save(found, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"returns 'logits'; this segfocal reads models that"):
        load_model(tmp_path / "m.onnx")


def test_a_saved_model_is_for_others(exports):
    with pytest.raises(ModelError, match=r"exported: is a SavedModel, which is for other programs"):
        load_model(exports.path("saved_model"))


def test_a_missing_file_is_named(tmp_path):
    for name in ("no.xml", "no.onnx"):
        with pytest.raises(ModelError, match=rf"{name}: no such file"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("tiles", [(64, 64), (64, 96)])
@pytest.mark.parametrize("format", RUNNABLE)
def test_sweeps_that_take_turns_share_one_model(exports, format, tiles):
    model = load_model(exports.path(format))
    channels = len(exports.model.card.channels)
    array = np.random.default_rng(0).normal(size=(200, 150, channels)).astype("float32")

    def rows(tile):
        return sf.stream(model, sf.MemoryScan(array), tile=tile, overlap=32, batch_size=2)

    expected = [[found for _, found in rows(tile)] for tile in tiles]
    running = [rows(tile) for tile in tiles]
    found = [[], []]
    while any(len(one) < len(other) for one, other in zip(found, expected, strict=True)):
        for sweep, one in zip(running, found, strict=True):
            if (more := next(sweep, None)) is not None:
                one.append(more[1])
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lanes", [1, 3])
def test_calls_side_by_side_make_no_difference_to_the_bits(exports, monkeypatch, lanes):
    path = exports.path("openvino")
    values = np.random.default_rng(1).normal(70, 20, (4, 64, 64, 5)).astype(np.float32)
    valid = np.ones(values.shape[:-1], bool)
    expected = OpenVINOPredictor(path)(values, valid)
    monkeypatch.setenv("SEGFOCAL_LANES", str(lanes))
    model = OpenVINOPredictor(path)
    compiled = []
    core = model._core

    class Core:
        def compile_model(self, network, device, options):
            compiled.append(options["NUM_STREAMS"])
            return core.compile_model(network, device, options)

    model._core = Core()
    assert np.array_equal(model(values, valid), expected)
    assert compiled == [lanes] == [len(model._requests)]


@pytest.mark.parametrize("asked", ["0", "two", "-1", "1.5", "257"])
def test_a_number_of_calls_that_is_none_is_refused(exports, monkeypatch, asked):
    monkeypatch.setenv("SEGFOCAL_LANES", asked)
    with pytest.raises(ModelError, match=f"SEGFOCAL_LANES is '{asked}'; expected a number"):
        OpenVINOPredictor(exports.path("openvino"))
    _ = exports.model
    # And not taken for a reason to go on in Keras.
    with pytest.raises(ModelError, match="SEGFOCAL_LANES"):
        in_engine(exports.keras, "auto")
