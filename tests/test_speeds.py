"""Measuring what is fastest: ways that are tried, what is said, what is refused."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

import segfocal as sf
from segfocal import speeds
from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal
from segfocal.errors import GeometryError, ModelError, OutputError
from segfocal.speeds import Speed

CARD = Card(
    channels=(Channel(name="red", mean=100.0, std=5.0),),
    classes=(
        LabelClass(value=0, name="a", color=(0, 0, 0)),
        LabelClass(value=1, name="b", color=(9, 9, 9)),
    ),
    tile=(64, 64),
)


class Clocked:
    """A predictor by whose calls alone the clock goes on: `cost` of a call in seconds."""

    card, ndim, output_stride, hash, engine = CARD, 2, 32, None, "clocked 1.0"

    def __init__(self, cost, monkeypatch):
        self.cost, self.now, self.calls = cost, 0.0, []
        monkeypatch.setattr(speeds, "perf_counter", lambda: self.now)

    def __call__(self, values, valid):
        assert valid.all()
        self.calls.append(values.shape)
        self.now += self.cost(len(values))
        return np.full((*values.shape[:-1], 2), 0.5, np.float32)


def test_the_batch_that_takes_least_per_tile_comes_first(monkeypatch):
    model = Clocked({1: 1.0, 2: 1.2, 4: 2.0, 8: 8.0}.get, monkeypatch)
    found = sf.measure_speed(model)
    assert [one.batch_size for one in found] == [4, 2, 1, 8]
    assert [one.seconds for one in found] == pytest.approx([0.5, 0.6, 1.0, 1.0])
    assert found[0].mpx_per_second == pytest.approx(64 * 64 / 0.5 / 1e6)
    assert {(one.option, one.engine, one.lanes) for one in found} == {("auto", "clocked 1.0", None)}


def test_each_way_runs_for_the_time_given_and_at_least_three_times(monkeypatch):
    model = Clocked(lambda size: 0.5, monkeypatch)
    sf.measure_speed(model, batch_sizes=(2,), seconds=0.1, tile=32)
    assert model.calls == [(2, 32, 32, 1)] * (1 + 3)
    model.calls.clear()
    sf.measure_speed(model, batch_sizes=(2,), seconds=5)
    assert model.calls == [(2, 64, 64, 1)] * (1 + 10)


def test_the_first_call_which_compiles_is_not_timed(monkeypatch):
    model = Clocked(lambda size: 50.0 if len(model.calls) == 1 else 1.0, monkeypatch)
    assert sf.measure_speed(model, batch_sizes=(1,))[0].seconds == pytest.approx(1)


def test_batches_that_do_not_fit_end_the_trial(monkeypatch):
    def cost(size):
        if size > 2:
            raise MemoryError
        return 1.0

    told = []
    found = sf.measure_speed(Clocked(cost, monkeypatch), tell=told.append)
    assert [one.batch_size for one in found] == [2, 1]
    assert told[-1] == "auto: more do not fit into memory"
    with pytest.raises(MemoryError):
        sf.measure_speed(Clocked(cost, monkeypatch), batch_sizes=(4,))


def test_lanes_up_to_the_number_of_cores_are_tried(monkeypatch):
    monkeypatch.setattr(speeds, "usable_cores", lambda: 8)
    model = Clocked(lambda size: size / min(4, model.lanes), monkeypatch)
    model.tile_by_tile, model.lanes, model.prepared = True, 2, []
    model.prepare = lambda shape: model.prepared.append((model.lanes, shape))
    found = sf.measure_speed(model)
    assert [(one.lanes, one.batch_size) for one in found] == [(4, 4), (8, 8), (2, 4), (1, 4)]
    # At last it is again as it was given.
    assert model.prepared == [(lanes, (64, 64, 1)) for lanes in (1, 2, 4, 8, 2)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tile": 0}, r"tile \(0, 0\); expected multiples"),
        ({"tile": 33}, r"tile \(33, 33\); expected multiples of the network's stride 32"),
        ({"tile": (64, 64, 64)}, "tile .* has 3 numbers"),
        ({"batch_sizes": ()}, r"batch_sizes \(\)"),
        ({"batch_sizes": (0,)}, r"batch_sizes \(0,\)"),
        ({"seconds": 0}, "seconds 0"),
        ({"seconds": float("nan")}, "seconds nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused(monkeypatch, given, message):
    with pytest.raises(GeometryError, match=message):
        sf.measure_speed(Clocked(lambda size: 1.0, monkeypatch), **given)


def test_a_plain_function_has_no_tiles_to_offer():
    with pytest.raises(ModelError, match="has no card"):
        sf.measure_speed(lambda values, valid: values)


def test_engines_of_a_file_are_measured_and_shown_fastest_first(exports):
    pytest.importorskip("openvino")
    path = exports.path("openvino")
    asked = ["speed", str(path), "--tile", "64", "--seconds", "0.01"]
    found = CliRunner().invoke(segfocal, [*asked, "--json"])
    assert found.exit_code == 0, found.output
    ways = json.loads(found.stdout)
    assert {way["option"] for way in ways} == {"openvino"}
    assert sorted(way["lanes"] for way in ways)[:2] == [1, 2][: os.cpu_count()]
    assert [way["seconds"] for way in ways] == sorted(way["seconds"] for way in ways)
    shown = CliRunner().invoke(segfocal, asked)
    assert shown.exit_code == 0
    table = shown.stdout.splitlines()
    assert table[0].split("  ")[0] == "engine"
    assert all(line.startswith("openvino ") for line in table[1:-1])
    assert len(table) == 1 + len(ways) + 1


@pytest.mark.parametrize(
    ("lanes", "given", "expected"),
    [
        (None, [], "segfocal predict --engine keras --batch-size 8"),
        (2, [], "SEGFOCAL_LANES=2 segfocal predict --engine keras --batch-size 8"),
        (
            4,
            ["--tile", "96,64", "--precision", "bfloat16"],
            "SEGFOCAL_LANES=4 segfocal predict --engine keras --batch-size 8 --tile 96,64 "
            "--precision bfloat16",
        ),
    ],
)
def test_the_options_that_are_told_are_those_of_the_fastest(monkeypatch, lanes, given, expected):
    def measured(model, **options):
        ways = [("keras", "tensorflow 2", 8, lanes, 0.5), ("openvino", "openvino 1", 4, 1, 0.6)]
        return [Speed(*way, 1.0, 10**9) for way in ways]

    monkeypatch.setattr(sf, "measure_speed", measured)
    found = CliRunner().invoke(segfocal, ["speed", "model.keras", *given])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == f"fastest: {expected}"
    assert found.stdout.splitlines()[1].split()[-2:] == ["1000", "MB"]


def test_a_keras_file_runs_in_keras_and_in_what_is_installed(exports, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("SEGFOCAL_CACHE", str(tmp_path / "cache"))
    told = []
    path = tmp_path / "model.keras"
    sf.save_model(exports.model, path)
    given = {"tile": 64, "seconds": 0.01, "batch_sizes": (1, 2), "tell": told.append}
    found = sf.measure_speed(path, engines=("keras", "openvino"), **given)
    ways = {(one.option, one.batch_size) for one in found}
    assert ways >= {("keras", 1), ("keras", 2), ("openvino", 4)}
    assert [line for line in told if "is prepared for OpenVINO" in line]
    # The same of a model that is loaded.
    loaded = sf.measure_speed(exports.model, engines=("keras",), **given)
    assert {(one.option, one.batch_size) for one in loaded} == {("keras", 1), ("keras", 2)}


@pytest.mark.parametrize("error", [ModelError("no such operation"), OutputError("a full disk")])
def test_an_engine_that_fails_costs_no_other_figures(exports, monkeypatch, error):
    def refuse(model, engine, **options):
        if engine == "openvino":
            raise error
        return model

    monkeypatch.setattr(speeds, "in_engine", refuse)
    monkeypatch.setattr(speeds, "find_spec", lambda name: name == "openvino" or None)
    told = []
    given = {"tile": 64, "seconds": 0.01, "batch_sizes": (1,), "tell": told.append}
    assert [one.option for one in sf.measure_speed(exports.model, **given)] == ["keras"]
    assert told[0] == f"openvino is left out: {error}"
    with pytest.raises(type(error), match=str(error)):
        sf.measure_speed(exports.model, engines=("openvino",), **given)


def test_models_of_several_slices_and_of_frozen_context_are_measured():
    given = {"tile": 64, "seconds": 0.01, "batch_sizes": (1,), "engines": ("keras",)}
    card = Card(channels=CARD.channels, classes=CARD.classes, slices=3, tile=(64, 64))
    small = {"preset": "nano", "encoder": {"embed_dim": 8}}
    assert sf.measure_speed(sf.FocalUNet(card=card, **small), **given)
    frozen = sf.FocalUNet(card=CARD, **small).with_global_context("frozen")
    assert sf.measure_speed(frozen, **given)


@pytest.mark.parametrize("name", ["model.keras", "model.xml", "model.onnx", "model"])
def test_a_file_that_is_no_model_ends_with_its_own_line(tmp_path, name):
    found = CliRunner().invoke(segfocal, ["speed", str(tmp_path / name)])
    assert found.exit_code == 2
    assert f"segfocal: error: {tmp_path / name}: no such file" in found.stderr
