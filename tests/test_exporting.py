"""Export: the written file gives what the Keras model gives, or there is no file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import segfocal as sf
from segfocal import exporting
from segfocal.card_files import read_facts
from segfocal.engine.predictors import as_predictor
from segfocal.errors import ModelError, NotConvertibleError, OutputError, OutputExistsError
from segfocal.exporting import conversion, verification
from segfocal.exporting.float32_model import converting
from segfocal.exporting.ir import write_ir
from segfocal.io.pending import PendingOutput, writing

FORMATS = ("saved_model", "onnx", "openvino")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def images(card, shape, seed=1):
    """Images with small holes and a large one, of many patches; NaN stands in the holes."""
    rng = np.random.default_rng(seed)
    values = rng.normal(70, 20, (*shape, len(card.channels))).astype(np.float32)
    valid = rng.random(shape) < 0.8
    valid[0][tuple(slice(side // 2, None) for side in shape[1:])] = False
    values[~valid] = np.nan
    return values, valid


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def run(path: Path, format: str, values, valid):
    if format != "saved_model":
        return sf.load_model(path)(values, valid)
    import tensorflow as tf

    endpoint = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = endpoint(image=tf.constant(values), valid=tf.constant(valid))
    return found["probabilities"].numpy()


def check_parity(exports, format, shapes):
    path = exports.path(format)
    for shape in shapes:
        values, valid = images(exports.model.card, shape)
        logits = np.asarray(exports.model({"image": values, "valid": valid}, training=False))
        assert np.ptp(logits) > 3  # else all probabilities would be alike
        found = run(path, format, values, valid)
        assert found.dtype == np.float32
        assert np.abs(found - softmax(logits)).max() <= 1e-4
        # The holes count: as pixels of the mean they would enter the means of features.
        filled = np.where(valid[..., None], values, 70).astype(np.float32)
        other = run(path, format, filled, np.ones_like(valid))
        assert np.abs(other - found).max() > 1e-3


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_scene_model_agrees_with_keras_at_any_size_and_batch(exports, format):
    check_parity(exports, format, [(1, 45, 70), (3, 64, 32), (2, 5, 33)])
    result = exports.results[format]
    assert result.difference <= 1e-4
    assert result.log_difference <= 1e-4
    assert re.match(r"(tensorflow|onnxruntime|openvino) .*float32$", result.engine)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_volume_model_agrees_with_keras_at_any_size_and_batch(volume_exports, format):
    check_parity(volume_exports, format, [(1, 21, 40, 33), (2, 32, 64, 32)])


def test_an_exported_volume_model_agrees_with_keras(volume_exports):
    check_parity(volume_exports, "openvino", [(1, 21, 40, 33)])


@pytest.mark.parametrize("format", FORMATS)
def test_the_card_travels_inside(exports, format):
    facts = read_facts(exports.path(format))
    assert facts.format == format
    assert facts.card == exports.model.card
    assert facts.output_stride == 32
    assert facts.output == "probabilities"
    assert facts.model_hash == as_predictor(exports.model).hash


def test_onnx_says_what_it_is_to_others(exports):
    onnx = pytest.importorskip("onnx")
    found = onnx.load(exports.path("onnx"))
    onnx.checker.check_model(found, full_check=True)
    ports = {
        port.name: [side.dim_param or side.dim_value for side in port.type.tensor_type.shape.dim]
        for port in (*found.graph.input, *found.graph.output)
    }
    assert ports == {
        "image": ["batch", "row", "col", 5],
        "valid": ["batch", "row", "col"],
        "probabilities": ["batch", "row", "col", 3],
    }
    kinds = {port.name: port.type.tensor_type.elem_type for port in found.graph.input}
    assert kinds == {"image": onnx.TensorProto.FLOAT, "valid": onnx.TensorProto.BOOL}
    assert (found.producer_name, found.opset_import[0].version) == ("segfocal", 17)
    assert "segfocal.card" in {entry.key for entry in found.metadata_props}


def test_integer_division_and_remainder_round_down_in_onnx(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    from segfocal.exporting.onnx_file import _mend_conversions

    _mend_conversions()
    numbers = keras.Input((), dtype="int32", name="numbers")
    floats = keras.Input((), name="floats")
    outputs = [numbers // -7, numbers % 7, floats // 2.0, floats % 2.0]
    signature = [[keras.InputSpec(shape=(None,), dtype=kind) for kind in ("int32", "float32")]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        keras.Model([numbers, floats], outputs).export(
            str(tmp_path / "m.onnx"), format="onnx", verbose=False, input_signature=signature
        )
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    n = np.arange(-20, 21, dtype=np.int32)
    quarters = (n / 4).astype(np.float32)
    ports = [port.name for port in session.get_inputs()]
    found = session.run(None, dict(zip(ports, (n, quarters), strict=True)))
    assert sorted(map(bytes, found)) == sorted(
        np.asarray(value).tobytes()
        for value in (
            n // -7,
            n % 7,
            (n / 4 // 2).astype(np.float32),
            (n / 4 % 2).astype(np.float32),
        )
    )


def test_only_the_output_is_left_behind(exports, tmp_path):
    pytest.importorskip("openvino")
    sf.export(exports.model, tmp_path / "a.xml")
    assert names(tmp_path) == ["a.bin", "a.xml"]
    with pytest.raises(OutputExistsError, match=r"a\.xml: exists already; pass overwrite=True"):
        sf.export(tmp_path / "not_looked_at.keras", tmp_path / "a.xml")
    (tmp_path / "a.xml").unlink()
    with pytest.raises(OutputExistsError, match=r"a\.bin: exists already, without a\.xml"):
        sf.export(tmp_path / "not_looked_at.keras", tmp_path / "a.xml")
    assert names(tmp_path) == ["a.bin"]


def test_mixed_precision_is_exported_in_float32(exports, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = sf.FocalUNet.from_config(exports.model.get_config())
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(exports.model.get_weights())
    sf.export(mixed, tmp_path / "m", format="saved_model")
    values, valid = images(mixed.card, (1, 40, 40))
    rough = np.asarray(mixed({"image": values, "valid": valid}, training=False))
    exact = np.asarray(exports.model({"image": values, "valid": valid}, training=False))
    found = run(tmp_path / "m", "saved_model", values, valid)
    assert np.abs(found - softmax(rough)).max() > 1e-3
    assert np.abs(found - softmax(exact)).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("options", [{"encoder": "local"}, {"upsampling": "linear"}])
def test_other_forms_of_the_network_can_be_exported(tmp_path, format, ndim, options):
    for module in {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}[format]:
        pytest.importorskip(module)
    encoder = {"embed_dim": 8, "depths": (1, 1, 1, 1), "focal_levels": 1}
    if "encoder" in options:
        local = {"global_context": "local", "local_context": 32}
        options = {"encoder": {**encoder, **local}}
    model = sf.FocalUNet(3, 2, "nano", ndim, **{"encoder": encoder, **options})
    out = tmp_path / ("m.onnx" if format == "onnx" else "m.xml")
    assert sf.export(model, out).difference <= 1e-4


def test_regions_have_a_probability_each(tmp_path):
    encoder = {"embed_dim": 8, "depths": (1, 1, 1, 1)}
    model = sf.FocalUNet(2, 1, "nano", task="regions", encoder=encoder)
    sf.export(model, tmp_path / "m", format="saved_model")
    values, valid = images(model.card, (1, 40, 40))
    logits = np.asarray(model({"image": values, "valid": valid}, training=False))
    found = run(tmp_path / "m", "saved_model", values, valid)
    assert np.abs(found - 1 / (1 + np.exp(-logits))).max() <= 1e-4
    assert read_facts(tmp_path / "m").card.task == "regions"


@pytest.mark.parametrize(
    ("out", "format", "message"),
    [
        ("m.onnx", "openvino", r"m\.onnx: ends in \.onnx; expected \.xml \(openvino\)"),
        ("m.xml", "onnx", r"ends in \.xml; expected \.onnx"),
        ("m", "onnx", r"ends in no suffix; expected \.onnx"),
        ("m.onnx", "saved_model", r"a SavedModel is a folder"),
        ("m.keras", "saved_model", r"a SavedModel is a folder"),
        ("m", None, r"the suffix names no format; expected \.onnx or \.xml"),
        ("m.tflite", None, r"names no format"),
        ("m.xml", "tflite", r"format 'tflite' is unknown; expected one of saved_model"),
        ("no/m.xml", None, r"folder .*no does not exist"),
        ("no/m", "saved_model", r"folder .*no does not exist"),
    ],
)
def test_a_wrong_output_is_named_before_the_model_is_looked_at(tmp_path, out, format, message):
    with pytest.raises(OutputError, match=message):
        sf.export(lambda x: x, tmp_path / out, format=format)
    assert names(tmp_path) == []


def test_a_folder_with_other_things_is_never_replaced(exports, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"m: is a folder with other things in it"):
        sf.export(exports.model, tmp_path / "m", format="saved_model", overwrite=True)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match=r"file: is no folder"):
        sf.export(exports.model, tmp_path / "file", format="saved_model", overwrite=True)
    assert names(tmp_path) == ["file", "m"]
    assert names(tmp_path / "m") == ["thesis.tex"]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no\.keras: no such file"):
        sf.export(tmp_path / "no.keras", tmp_path / "m", format="saved_model")
    with pytest.raises(ModelError, match=r"function: cannot be exported; expected a segfocal\.Foc"):
        sf.export(lambda x: x, tmp_path / "m", format="saved_model")
    frozen = sf.FocalUNet(2, 1, "nano", encoder={"global_context": "frozen"})
    with pytest.raises(ModelError, match=r"inputs context, image, valid cannot be exported yet"):
        sf.export(frozen, tmp_path / "m", format="saved_model")
    assert names(tmp_path) == []


def test_another_backend_is_told_what_to_do(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"runs on jax here: .* KERAS_BACKEND=tensorflow"):
        sf.export(exports.model, tmp_path / "m", format="saved_model")


@pytest.mark.parametrize(
    ("format", "out", "absent", "message"),
    [
        ("onnx", "m.onnx", {"tf2onnx"}, r"needs tf2onnx, .*pip install 'segfocal\[onnx\]'"),
        ("onnx", "m.onnx", {"onnxruntime", "openvino"}, r"needs onnxruntime, .*segfocal\[onnx\]"),
        ("openvino", "m.xml", {"openvino"}, r"needs openvino, .*pip install 'segfocal\[openvino"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, format, out, absent, message):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name in absent else "here")
    with pytest.raises(ModelError, match=message):
        sf.export(tmp_path / "no.keras", tmp_path / out, format=format)


SLOW_BUT_FOR_OPENVINO = [
    pytest.param("saved_model", marks=pytest.mark.slow),
    pytest.param("onnx", marks=pytest.mark.slow),
    "openvino",
]


@pytest.mark.parametrize("format", SLOW_BUT_FOR_OPENVINO)
def test_a_file_that_differs_from_keras_never_appears(exports, tmp_path, monkeypatch, format):
    exports.path(format)  # skips without the runtime
    suffix = {"saved_model": "", "onnx": ".onnx", "openvino": ".xml"}[format]
    out = tmp_path / f"m{suffix}"
    kept: dict[Path, bytes] = {}
    if format == "openvino":  # an older export stays as it was
        kept = {out: b"old", out.with_suffix(".bin"): b"older"}
        for path, content in kept.items():
            path.write_bytes(content)
    before = names(tmp_path)

    def other_network(model):
        made = conversion.as_float32(model)
        made.get_layer("logits").bias.assign_add([0.001, 0, 0])
        return real(made)

    real = conversion.exported_network
    monkeypatch.setattr(conversion, "exported_network", other_network)
    with pytest.raises(ModelError, match=r"m\S*: the exported network differs .* expected at most"):
        sf.export(exports.model, out, format=format, overwrite=True)
    assert names(tmp_path) == before
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_converter_that_fails_leaves_one_line_and_no_file(exports, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("unsupported operation\nand fifty lines more")

    monkeypatch.setattr(keras.Model, "export", fail)
    expected = "the conversion of the model to a SavedModel failed: unsupported operation"
    with pytest.raises(ModelError, match=f"^{expected}$"):
        sf.export(exports.model, tmp_path / "m", format="saved_model")
    assert names(tmp_path) == []


def test_an_operation_that_a_format_lacks_is_named_as_lasting(tmp_path):
    """Of such a network alone an engine may remember that it cannot be converted."""
    openvino = pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    import tensorflow as tf

    class Bessel(keras.layers.Layer):
        def call(self, values):
            return tf.math.bessel_i0(values)

    values = keras.Input((4,))
    keras.Model(values, Bessel()(values)).export(str(tmp_path / "m"), verbose=False)
    expected = r"^the model cannot be converted to OpenVINO: No conversion rule .*: BesselI0$"
    with pytest.raises(NotConvertibleError, match=expected), converting("OpenVINO"):
        openvino.Core().read_model(tmp_path / "m")
    # tf2onnx writes an operation that it does not know as it is called in TensorFlow.
    ports = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    node = onnx.helper.make_node("BesselI0", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:])
    expected = r"^the model cannot be converted to ONNX: No Op registered for BesselI0"
    with pytest.raises(NotConvertibleError, match=expected), converting("ONNX"):
        onnx.checker.check_model(onnx.helper.make_model(graph))


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), ImportError("no protobuf"), TypeError("odd")]
)
def test_what_may_be_of_the_moment_is_no_lasting_failure(error):
    expected = r"^the conversion of the model to X failed: "
    with pytest.raises(ModelError, match=expected) as caught, converting("X"):
        raise error
    assert not isinstance(caught.value, NotConvertibleError)


def test_a_full_disk_is_a_failure_of_the_output(tmp_path, exports):
    import tensorflow as tf

    message = "/c/saved_model/variables/part-0; No space left on device [Op:SaveV2]"
    caught = pytest.raises(OutputError, match=r"writing failed \(.*No space left on device\); not")
    with caught, writing("saved_model"), converting("a SavedModel"):
        raise tf.errors.ResourceExhaustedError(None, None, message)
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    openvino = pytest.importorskip("openvino")
    network = openvino.Core().read_model(exports.path("openvino"))
    facts = read_facts(exports.path("openvino"))
    with PendingOutput(tmp_path / "m.xml") as pending:
        pending.main.with_suffix(".bin").symlink_to("/dev/full")
        with pytest.raises(OutputError, match=r"m\.xml: writing failed \(.*\); nothing was put"):
            write_ir(network, facts, pending)


def network_of_constants(inputs, training):
    shape = (*inputs["valid"].shape, 3)
    return {"probabilities": np.broadcast_to(np.float32([0.5, 0.3, 0.2]), shape)}


def exported(card, change):
    """Return an exported network that gives what ``change`` makes of the constants."""

    class Stub(SimpleNamespace):
        def __call__(self, values, valid):
            return change(network_of_constants({"valid": valid}, False)["probabilities"].copy())

    return Stub(card=card, engine="stub 1.0 float32")


def last_pixel(value):
    def change(array):
        array[-1, -1, -1, 0] = value
        return array

    return change


def test_the_comparison_reports_the_largest_difference(exports):
    card = exports.model.card
    stub = exported(card, last_pixel(0.50004))
    found = verification.compare(network_of_constants, card, stub, Path("m"))
    assert found.probabilities == pytest.approx(4e-5, rel=1e-2)
    # log(0.2) = -1.609 is the largest logarithm.
    assert found.log_probabilities == pytest.approx(8e-5 / 1.6094, rel=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (last_pixel(0.5002), r"m: the exported network differs .* by 2\.0e-04 in prob"),
        (last_pixel(np.nan), r"differs .* by nan"),
        (lambda array: array[:, 1:], r"gives shape \(1, 36, 75, 3\) .* expected \(1, 37, 75, 3\)"),
    ],
)
def test_the_comparison_refuses(exports, change, message):
    card = exports.model.card
    with pytest.raises(ModelError, match=message):
        verification.compare(network_of_constants, card, exported(card, change), Path("m"))


def test_the_comparison_sees_a_small_probability_that_is_wrong(exports):
    card = exports.model.card

    def confident(inputs, training):
        shape = (*inputs["valid"].shape, 3)
        return {"probabilities": np.broadcast_to(np.float32([1, 1e-6, 1e-7]), shape)}

    wrong = exported(card, lambda array: np.broadcast_to(np.float32([1, 2e-6, 1e-7]), array.shape))
    with pytest.raises(ModelError, match=r"1\.0e-06 in probabilities and 4\.3e-02 in their log"):
        verification.compare(confident, card, wrong, Path("m"))


def test_the_comparison_covers_holes_sizes_and_batches(exports):
    batches = list(verification.sample_batches(exports.model.card))
    assert [valid.shape for _, valid in batches] == [(1, 37, 75), (3, 96, 64)]
    for values, valid in batches:
        assert values.dtype == np.float32
        assert valid.any()
        assert not valid.all()
        assert (np.isnan(values).all(-1) == ~valid).all()
    assert not batches[1][1][-1].any()
