"""Engines: which one runs a model, and that none changes what comes out."""

from __future__ import annotations

import json
import os
import shutil
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
from segfocal.engine import engines, model_cache
from segfocal.engine.engines import in_engine
from segfocal.engine.identity import model_identity
from segfocal.engine.keras_archive import hash_archive
from segfocal.engine.model_cache import ModelCache, cache_folder, cache_key
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.engine.predictors import as_predictor
from segfocal.errors import ModelError, NotConvertibleError, OutputError

SCENE = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and engines that are chosen as for a user."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("SEGFOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGFOCAL_ENGINE", raising=False)
    monkeypatch.setattr(engines, "_GPUS", ())
    return ModelCache(tmp_path / "cache")


@pytest.fixture
def converter(exports, monkeypatch):
    """Conversions that copy the model exported once for all tests; a list of those asked for."""
    asked = []

    def convert(model, place, *, global_context=None):
        asked.append((model, global_context))
        source = exports.path("openvino" if place.suffix == ".xml" else "onnx")
        shutil.copy(source, place)
        if place.suffix == ".xml":
            shutil.copy(source.with_suffix(".bin"), place.with_suffix(".bin"))

    exports.path("openvino")
    monkeypatch.setattr("segfocal.exporting.export", convert)
    return asked


def tiles(batch, *sides, channels=5):
    rng = np.random.default_rng(11)
    values = rng.normal(70, 20, (batch, *sides, channels)).astype(np.float32)
    return values, rng.random((batch, *sides)) < 0.9


def test_auto_converts_a_file_once_and_stands_for_the_keras_model(exports, cache, converter):
    said = []
    first = in_engine(exports.keras, tell=said.append)
    assert isinstance(first, OpenVINOPredictor)
    assert len(said) == 1
    assert said[0].startswith("model.keras: is prepared for OpenVINO, once;")
    again = in_engine(str(exports.keras), "openvino", tell=said.append)
    assert len(converter) == len(said) == 1
    identity = model_identity(again)
    assert identity.hash == as_predictor(exports.model).hash
    assert identity.engine.startswith("openvino 20")
    assert " float32, converted by tensorflow 2." in identity.engine
    assert in_engine(exports.keras, global_context="tile").global_context == "tile"
    assert converter[1][1] == "tile"


def test_a_copy_saved_at_another_time_is_the_same_model(exports, tmp_path):
    _ = exports.model
    time.sleep(1.1)
    sf.save_model(exports.model, tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() != exports.keras.read_bytes()
    assert hash_archive(tmp_path / "again.keras") == hash_archive(exports.keras)
    other = sf.FocalUNet.from_config(exports.model.get_config())
    sf.save_model(other, tmp_path / "other.keras")
    assert hash_archive(tmp_path / "other.keras") != hash_archive(exports.keras)


def test_auto_leaves_a_model_in_memory_in_keras(exports, cache, converter):
    assert in_engine(exports.model) is exports.model
    assert isinstance(in_engine(exports.model, "openvino"), OpenVINOPredictor)
    function = exports.model.predict_on_batch
    assert in_engine(function) is function
    loaded = in_engine(exports.path("openvino"))
    assert in_engine(loaded) is loaded
    assert in_engine(loaded, "openvino") is loaded
    both = in_engine([exports.keras, exports.model])
    assert [type(one).__name__ for one in both] == ["OpenVINOPredictor", "FocalUNet"]


def test_the_environment_says_what_auto_means(exports, cache, converter, monkeypatch):
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    assert isinstance(in_engine(exports.keras), sf.FocalUNet)
    assert isinstance(in_engine(exports.keras, "openvino"), OpenVINOPredictor)
    assert isinstance(in_engine(exports.path("openvino")), OpenVINOPredictor)
    monkeypatch.setenv("SEGFOCAL_ENGINE", "abacus")
    with pytest.raises(ModelError, match="engine 'abacus' is unknown; expected one of auto, kera"):
        in_engine(exports.keras)


@pytest.mark.parametrize("reason", ["gpu", "jax", "absent", "frozen"])
def test_auto_stays_in_keras_where_openvino_would_not_do(
    exports, cache, converter, monkeypatch, tmp_path, reason
):
    said, options = [], {}
    if reason == "gpu":
        (tmp_path / "gpu").touch()
        monkeypatch.setattr(engines, "_GPUS", (str(tmp_path / "gpu"),))
    elif reason == "jax":
        monkeypatch.setattr(engines, "keras_backend", lambda: "jax")
    elif reason == "absent":
        monkeypatch.setattr(engines, "find_spec", lambda name: None)
    else:
        options["global_context"] = "frozen"
    assert isinstance(in_engine(exports.keras, tell=said.append, **options), sf.FocalUNet)
    assert not converter
    assert [text.partition(",")[0] for text in said] == (
        ["model.keras: runs in Keras"] if reason in ("gpu", "frozen") else []
    )


def test_a_model_that_cannot_be_converted_is_tried_once(exports, cache, monkeypatch):
    tried, said = [], []

    def refuse(model, place, **_):
        tried.append(model)
        raise NotConvertibleError("unsupported\noperation")

    monkeypatch.setattr("segfocal.exporting.export", refuse)
    _ = exports.model
    for _ in range(2):
        assert isinstance(in_engine(exports.keras, tell=said.append), sf.FocalUNet)
    assert len(tried) == 1
    (remembered,) = cache.folder.glob("*.refused")
    assert said[-1] == (
        "model.keras: runs in Keras, for it cannot be converted to OpenVINO: unsupported operation "
        f"(found by an earlier run; to have it tried again, remove {remembered})"
    )
    with pytest.raises(ModelError, match=r"^unsupported operation \(found by an earlier run"):
        in_engine(exports.keras, "openvino")
    assert not list(cache.folder.glob(".making-*"))
    remembered.unlink()
    with pytest.raises(ModelError, match=r"^unsupported\noperation$"):
        in_engine(exports.keras, "openvino")
    assert len(tried) == 2


@pytest.mark.parametrize(
    "failure",
    [
        ModelError("export needs the TensorFlow backend"),
        OutputError("writing failed"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_failure_of_the_moment_is_told_and_tried_again(
    exports, cache, converter, monkeypatch, failure
):
    def fail(model, place, **_):
        place.write_bytes(b"a part")
        raise failure

    said = []
    with monkeypatch.context() as change:
        change.setattr("segfocal.exporting.export", fail)
        assert isinstance(in_engine(exports.keras, tell=said.append), sf.FocalUNet)
        with pytest.raises((ModelError, OutputError)):
            in_engine(exports.keras, "openvino")
    assert "runs in Keras, for this time it cannot be run by OpenVINO: " in said[-1]
    assert isinstance(in_engine(exports.keras), OpenVINOPredictor)


def test_a_refusal_that_was_written_in_part_does_not_count(tmp_path):
    cache = ModelCache(tmp_path)
    for content in (b"", b"\n", b"\xc3"):
        (tmp_path / "k.refused").write_bytes(content)
        assert cache.refusal("k") is None
    cache.make("k", ".xml", lambda place: place.write_bytes(b"model"))
    assert cache.find("k", ".xml") is not None


def test_a_cache_that_cannot_be_written_costs_speed_only(exports, cache, converter, monkeypatch):
    cache.folder.write_text("a file where the folder should be")
    said = []
    assert isinstance(in_engine(exports.keras, tell=said.append), sf.FocalUNet)
    assert "writing failed" in said[-1]


def test_a_damaged_entry_is_made_again(exports, cache, converter):
    in_engine(exports.keras)
    (weights,) = cache.folder.glob("*/model.bin")
    weights.write_bytes(b"torn")
    assert isinstance(in_engine(exports.keras), OpenVINOPredictor)
    assert len(converter) == 2


def test_a_damaged_onnx_entry_is_made_again(exports, cache, converter):
    exports.path("onnx")
    first = in_engine(exports.keras, "onnxruntime")
    (entry,) = cache.folder.glob("*/model.onnx")
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 0x40
    entry.write_bytes(content)
    values, valid = tiles(1, 64, 64)
    again = in_engine(exports.keras, "onnxruntime")
    assert len(converter) == 2
    assert (again(values, valid) == first(values, valid)).all()


def test_a_good_entry_is_kept_whatever_else_fails(exports, cache, converter, monkeypatch):
    in_engine(exports.keras)
    real = engines._load

    def fail(path, precision):
        raise ModelError("OpenVINO is not installed (libtbb is missing)")

    monkeypatch.setattr(engines, "_load", fail)
    with pytest.raises(ModelError, match="libtbb"):
        in_engine(exports.keras, "openvino")
    monkeypatch.setattr(engines, "_load", real)
    in_engine(exports.keras)
    assert len(converter) == 1


@pytest.mark.parametrize("is_cached", [False, True])
def test_without_bfloat16_nothing_is_converted(exports, cache, converter, monkeypatch, is_cached):
    if is_cached:
        in_engine(exports.keras)
    done = len(converter)
    import openvino

    def abilities(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8"]

    monkeypatch.setattr(openvino.Core, "get_property", abilities)
    for _ in range(2):
        with pytest.raises(ModelError, match="this processor does not compute in bfloat16"):
            in_engine(exports.keras, precision="bfloat16")
    in_engine(exports.keras)
    assert len(converter) == 1
    assert done == is_cached


MAKER = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from segfocal.engine.model_cache import ModelCache\n"
    "def convert(place):\n"
    "    place.write_bytes(b'of the first')\n"
    "    print('begun', flush=True)\n"
    "    sys.stdin.readline()\n"
    "ModelCache(Path(sys.argv[1])).make('k', '.xml', convert)\n"
)


@pytest.fixture
def other_maker(tmp_path):
    """Another process that is making the entry ``k``, until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, tmp_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_run_left_goes_when_the_cache_is_opened_next(tmp_path, other_maker):
    ModelCache(tmp_path)
    assert (tmp_path / ".making-k" / "model.xml").is_file()  # its maker lives
    (tmp_path / ".making-unknown").mkdir()
    other_maker.send_signal(signal.SIGTERM)
    other_maker.wait()
    assert (tmp_path / ".making-k").is_dir()
    ModelCache(tmp_path)
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize("ending", ["done", "killed"])
def test_who_waits_for_the_conversion_of_another_run_says_so(tmp_path, other_maker, ending):
    said, found = [], []
    cache = ModelCache(tmp_path)
    told = threading.Event()

    def waiting():
        said.append("waits")
        told.set()

    def make():
        own = cache.make("k", ".xml", lambda place: place.write_bytes(b"of mine"), waiting)
        found.append(own.read_bytes())

    thread = threading.Thread(target=make)
    thread.start()
    assert told.wait(60)
    assert not found
    if ending == "done":
        other_maker.stdin.write("\n")
        other_maker.stdin.flush()
    else:
        other_maker.kill()
    thread.join(60)
    assert found == [b"of the first" if ending == "done" else b"of mine"]
    assert said == ["waits"]
    assert not list(tmp_path.glob(".making-*"))


def test_the_waiting_line_names_the_model(exports, cache, converter, monkeypatch):
    monkeypatch.setattr(model_cache, "_SILENT_SECONDS", 0.05)
    key = cache_key(hash_archive(exports.keras), ".xml", None)
    cache.folder.mkdir()
    said = []

    def tell(text):
        said.append(text)
        if "waits" in text:
            lock.release()

    lock = cache._lock(key)
    lock.acquire()
    assert isinstance(in_engine(exports.keras, tell=tell), OpenVINOPredictor)
    assert said[0] == "model.keras: waits for another run that is preparing it for OpenVINO"
    assert said[1].startswith("model.keras: is prepared for OpenVINO")


def test_what_was_not_used_for_longest_leaves_the_cache(tmp_path, monkeypatch):
    cache = ModelCache(tmp_path)
    monkeypatch.setattr(model_cache, "LIMIT", 2500)
    for age, name in enumerate("abc"):
        cache.make(name, ".xml", lambda place: place.write_bytes(bytes(1000)))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert cache.find("a", ".xml") is None
    assert cache.find("b", ".xml") is not None  # which was now used
    cache.make("d", ".xml", lambda place: place.write_bytes(bytes(4000)))
    assert [name for name in "abcd" if cache.find(name, ".xml")] == ["d"]


def test_downloads_beside_the_entries_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(model_cache, "LIMIT", 2500)
    (tmp_path / "timm--focalnet").mkdir()
    (tmp_path / "timm--focalnet" / "model.safetensors").write_bytes(bytes(4000))
    ModelCache(tmp_path).make("a", ".xml", lambda place: place.write_bytes(bytes(1000)))
    assert (tmp_path / "timm--focalnet" / "model.safetensors").is_file()


def test_the_cache_is_where_the_platform_has_it(monkeypatch):
    monkeypatch.setenv("SEGFOCAL_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("SEGFOCAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path("/caches/segfocal")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "segfocal"


def test_the_key_holds_model_context_and_versions(monkeypatch):
    keys = {cache_key("m", ".xml", None), cache_key("n", ".xml", None)}
    keys |= {cache_key("m", ".onnx", None), cache_key("m", ".xml", "local")}
    monkeypatch.setattr(model_cache, "installed_version", lambda name: "99")
    keys.add(cache_key("m", ".xml", None))
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("abacus", "float32", "engine 'abacus' is unknown; expected one of auto, keras, openvino"),
        ("openvino", "int4", "precision 'int4' is unknown; expected one of float32, bfloat16"),
        ("keras", "bfloat16", "precision bfloat16 is for OpenVINO"),
    ],
)
def test_what_does_not_go_together_is_refused(exports, engine, precision, message):
    with pytest.raises(ModelError, match=message):
        in_engine(exports.keras, engine, precision=precision)


def test_an_engine_that_cannot_run_a_file_is_refused(exports, cache):
    with pytest.raises(ModelError, match=r"exported\.xml: an exported model is not run by keras"):
        in_engine(exports.path("openvino"), "keras")
    with pytest.raises(ModelError, match="function cannot be run by openvino"):
        in_engine(lambda x: x, "openvino")


def test_in_keras_the_batch_stays_in_the_fingerprint(exports):
    assert model_identity(as_predictor(exports.model)).batch_matters is True


def test_batches_of_any_size_give_the_same_file(exports, cache, converter, tmp_path):
    results = [
        sf.predict(exports.keras, SCENE, tmp_path / f"{size}.tif", batch_size=size, tile=128)
        for size in (1, 4)
    ]
    assert results[0].sha256 == results[1].sha256
    assert results[0].fingerprint == results[1].fingerprint


def test_labels_on_a_real_scene_are_those_of_keras_except_on_ties(
    exports, cache, converter, tmp_path
):
    scores = {}
    for engine in ("keras", "openvino"):
        with sf.open_scan(SCENE) as scan:
            parts = sf.stream(exports.keras, scan, engine=engine, tile=256)
            scores[engine] = np.concatenate([found for _, found in parts])
    known = ~np.isnan(scores["keras"][..., 0])
    assert np.abs(scores["keras"] - scores["openvino"])[known].max() <= 1e-4
    best = np.sort(scores["keras"][known], axis=-1)
    certain = best[:, -1] - best[:, -2] > 2e-4
    labels = {engine: found[known].argmax(-1) for engine, found in scores.items()}
    assert (labels["keras"] == labels["openvino"])[certain].all()
    assert certain.mean() > 0.95


def test_bfloat16_only_where_it_is_asked_for(exports):
    pytest.importorskip("openvino")
    path = exports.path("openvino")
    values, valid = tiles(1, 64, 64)
    exact = OpenVINOPredictor(path)(values, valid)
    import openvino

    abilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in abilities:
        with pytest.raises(ModelError, match="this processor does not compute in bfloat16"):
            in_engine(path, precision="bfloat16")
        return
    rough = in_engine(path, precision="bfloat16")
    assert rough.engine.endswith(" bfloat16")
    difference = np.abs(rough(values, valid) - exact).max()
    assert 1e-4 < difference < 0.2


def test_a_run_begun_in_keras_is_continued_in_keras(exports, cache, converter, tmp_path):
    """Another engine rounds otherwise, so that it would have to start afresh."""
    out = tmp_path / "labels.tif"

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    options = {"tile": 64, "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        sf.predict(exports.keras, SCENE, out, engine="keras", progress=stop, **options)
    said = []
    sf.predict(exports.keras, SCENE, out, notice=said.append, **options)
    assert "model.keras: goes on in Keras, in which the output was begun" in said
    assert any("continues with" in line for line in said)
    begun = json.loads((tmp_path / "labels.tif.json").read_text())
    assert begun["engine"].startswith("tensorflow")
    assert sf.predict(exports.keras, SCENE, out, **options).unchanged
    other = tmp_path / "other.tif"
    sf.predict(exports.keras, SCENE, other, **options)
    assert json.loads((tmp_path / "other.tif.json").read_text())["engine"].startswith("openvino")


def test_a_cached_model_runs_without_tensorflow_and_is_soon_ready(
    exports, cache, converter, tmp_path
):
    in_engine(exports.keras)
    with rasterio.open(SCENE) as source:
        profile = {**source.profile, "width": 130, "height": 150}
        with rasterio.open(tmp_path / "scene.tif", "w", **profile) as scene:
            scene.write(source.read(window=((100, 250), (100, 230))))
            scene.descriptions = source.descriptions
    code = (
        "import sys, time\n"
        "import segfocal as sf\n"
        "started = []\n"
        "sf.predict(*sys.argv[1:], progress=lambda *_: started.append(time.process_time()))\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(started[0])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SEGFOCAL_ENGINE"}
    done = subprocess.run(
        [sys.executable, "-c", code, exports.keras, tmp_path / "scene.tif", tmp_path / "l.tif"],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    # Of the processor's time, since other tests may run beside: its cores make it less.
    assert float(done.stdout) < 6
    assert json.loads((tmp_path / "l.tif.json").read_text())["engine"].startswith("openvino")
