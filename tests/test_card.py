"""The card: what it accepts, what it refuses, and that old ones stay readable."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from segfocal.card import IGNORE_INDEX, Card, Channel, LabelClass, index_of_values
from segfocal.card_files import read_card
from segfocal.errors import ModelError

# Written by the first release. Never edit it: files like this are on people's disks.
FORMAT_1 = """
{"format": 1, "segfocal": "0.1.0", "ndim": 3,
 "channels": [{"name": "ct", "mean": 41.5, "std": 312.25, "low": -1000.0, "high": 1800.5},
              {"name": "pet", "mean": 0.0, "std": 1.0, "low": null, "high": null}],
 "named_channels": true, "valid_when": "any",
 "classes": [{"value": 0, "name": "other", "color": [0, 0, 0]},
             {"value": 20, "name": "Wirbelkörper", "color": [86, 204, 242]},
             {"value": 7, "name": "arch", "color": [242, 153, 74]}],
 "tile": [96, 64, 32], "resolution": [1.5, 0.75, 3.0], "orientation": "LPS"}
"""

CLASSES = (
    LabelClass(value=0, name="land", color=(0, 0, 0)),
    LabelClass(value=4, name="water", color=(0, 0, 255)),
)


def archive(path: Path, **members: object) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, value in members.items():
            out.writestr(f"{name}.json", json.dumps(value))
    return path


def test_a_card_of_format_1_stays_readable():
    assert Card.from_json(json.loads(FORMAT_1)) == Card(
        format=1,
        segfocal="0.1.0",
        ndim=3,
        channels=(
            Channel(name="ct", mean=41.5, std=312.25, low=-1000, high=1800.5),
            Channel(name="pet", mean=0, std=1, low=None, high=None),
        ),
        named_channels=True,
        valid_when="any",
        classes=(
            LabelClass(value=0, name="other", color=(0, 0, 0)),
            LabelClass(value=20, name="Wirbelkörper", color=(86, 204, 242)),
            LabelClass(value=7, name="arch", color=(242, 153, 74)),
        ),
        tile=(96, 64, 32),
        resolution=(1.5, 0.75, 3.0),
        orientation="LPS",
    )


def test_a_card_of_format_1_is_written_with_the_same_keys_and_values():
    golden = json.loads(FORMAT_1)
    assert json.loads(Card.from_json(golden).model_dump_json()) == golden


def test_the_least_card_of_format_1_has_the_defaults_it_always_had():
    card = Card.from_json(
        {
            "channels": [{"name": "a"}],
            "classes": [
                {"value": 0, "name": "x", "color": [0, 0, 0]},
                {"value": 1, "name": "y", "color": [255, 255, 255]},
            ],
        }
    )
    assert card.model_dump(exclude={"classes"}) == {
        "format": 1,
        "segfocal": "",
        "ndim": 2,
        "channels": ({"name": "a", "mean": 0.0, "std": 1.0, "low": None, "high": None},),
        "named_channels": False,
        "valid_when": "all",
        "tile": None,
        "resolution": None,
        "orientation": None,
    }


def test_a_generic_card_numbers_channels_from_one_and_classes_from_zero():
    card = Card.generic(ndim=2, in_channels=2, num_classes=4)
    assert [channel.name for channel in card.channels] == ["channel_1", "channel_2"]
    assert [label.name for label in card.classes] == ["class_0", "class_1", "class_2", "class_3"]
    assert card.class_values.tolist() == [0, 1, 2, 3]
    assert card.num_classes == 4
    assert not card.named_channels
    # Black, then hues 0, 120 and 240 degrees: 0.95 * 255 = 242, a quarter of it 61.
    assert [label.color for label in card.classes] == [
        (0, 0, 0),
        (242, 61, 61),
        (61, 242, 61),
        (61, 61, 242),
    ]


@pytest.mark.parametrize(("ndim", "orientation"), [(2, None), (3, "RAS")])
def test_only_a_generic_card_of_volumes_has_an_orientation(ndim, orientation):
    assert Card.generic(ndim=ndim, in_channels=1, num_classes=2).orientation == orientation


@pytest.mark.parametrize("newer", [2, 99, "2"])
def test_a_newer_format_is_refused_with_the_way_out(newer):
    value = {**json.loads(FORMAT_1), "format": newer, "something new": 1}
    with pytest.raises(ModelError, match=rf"x\.keras: card format {newer}; .*update segfocal"):
        Card.from_json(value, "x.keras")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"classes": None}, "at classes:"),
        ({"channels": []}, "at channels:"),
        ({"channels": [{"name": "a", "std": 0}]}, r"at channels\.0\.std:"),
        ({"channels": [{"name": ""}]}, r"at channels\.0\.name:"),
        ({"ndim": 4}, "at ndim:"),
        ({"valid_when": "most"}, "at valid_when:"),
        ({"orientation": "RAX"}, "at orientation:"),
        ({"colour": "red"}, "at colour:"),
        ({"tile": [64, 64]}, r"tile \(64, 64\) has 2 numbers; expected 3"),
        ({"resolution": [1.0]}, r"resolution \(1\.0,\) has 1 numbers; expected 3"),
        ({"tile": [64, 0, 64]}, r"at tile\.1:"),
    ],
)
def test_an_unusable_card_is_refused_with_source_and_place(change, named):
    with pytest.raises(ModelError, match=f"^x.keras: card is unusable .*{named}"):
        Card.from_json({**json.loads(FORMAT_1), **change}, "x.keras")


@pytest.mark.parametrize("value", [None, 3, "card", [1]])
def test_what_is_no_mapping_is_no_card(value):
    with pytest.raises(ModelError, match=r"^card: card is unusable at card:"):
        Card.from_json(value)


@pytest.mark.parametrize(
    ("channels", "classes", "twice"),
    [
        (("a", "b", "a"), [(0, "x"), (1, "y")], "channel name 'a'"),
        (("a",), [(3, "x"), (3, "y")], "class value 3"),
        (("a",), [(0, "x"), (1, "x")], "class name 'x'"),
    ],
)
def test_what_stands_twice_is_refused(channels, classes, twice):
    with pytest.raises(ValidationError, match=f"{twice} stands twice"):
        Card(
            channels=tuple(Channel(name=name) for name in channels),
            classes=tuple(LabelClass(value=v, name=n, color=(0, 0, 0)) for v, n in classes),
        )


@pytest.mark.parametrize("value", [-1, 65536])
def test_class_values_are_those_of_a_16_bit_file(value):
    with pytest.raises(ValidationError, match="value"):
        LabelClass(value=value, name="x", color=(0, 0, 0))
    assert LabelClass(value=65535, name="x", color=(0, 0, 0)).value == 65535


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float32"])
@pytest.mark.parametrize("values", [(0, 1, 2), (7, 0, 3), (200, 100)])
def test_values_map_to_their_position_in_the_table(dtype, values):
    labels = np.arange(256).reshape(16, 16) % 250
    expected = [
        [values.index(v) if v in values else IGNORE_INDEX for v in row] for row in labels.tolist()
    ]
    found = index_of_values(labels.astype(dtype), values)
    assert found.dtype == np.int32
    assert found.tolist() == expected


def test_negative_fractional_and_missing_values_are_of_no_class():
    labels = np.array([-1, -7, 0.5, 2.9999, np.nan, np.inf, -np.inf, 3.0, 0.0])
    assert index_of_values(labels, (3, 0)).tolist() == [-1, -1, -1, -1, -1, -1, -1, 0, 1]


def test_an_empty_array_of_labels_has_no_indices():
    assert index_of_values(np.zeros((0, 4), np.uint8), (0, 1)).tolist() == []


def test_a_card_is_read_from_an_archive_without_keras(tmp_path):
    golden = json.loads(FORMAT_1)
    path = archive(tmp_path / "model.keras", config={"config": {"card": golden}}, metadata={})
    assert read_card(path) == read_card(str(path)) == Card.from_json(golden)


def test_a_missing_model_is_named(tmp_path):
    path = tmp_path / "no.keras"
    for place, what in ((path, "no such file"), (tmp_path, "is a folder and no SavedModel")):
        with pytest.raises(ModelError, match=rf"{what}; expected .*\.keras") as caught:
            read_card(place)
        assert str(caught.value).startswith(f"{place}: ")


def test_a_file_that_is_no_archive_is_named(tmp_path):
    for content in (b"", b"not a zip archive", b"PK\x03\x04 cut off"):
        path = tmp_path / "model.keras"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"not a Keras model archive .*expected a \.keras"):
            read_card(path)


def test_an_archive_without_or_with_a_broken_config_is_named(tmp_path):
    path = archive(tmp_path / "other.keras", metadata={})
    with pytest.raises(ModelError, match=r"other\.keras: not a Keras model archive .*config\.json"):
        read_card(path)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("config.json", "{broken")
    with pytest.raises(ModelError, match=r"other\.keras: not a Keras model archive"):
        read_card(path)


@pytest.mark.parametrize(
    "config",
    [{"config": {"layers": []}}, {"class_name": "Sequential"}, {"config": None}, {"config": []}, 3],
)
def test_a_keras_model_of_another_kind_has_no_card(tmp_path, config):
    path = archive(tmp_path / "plain.keras", config=config)
    with pytest.raises(ModelError, match=r"plain\.keras: a Keras model without a segfocal card"):
        read_card(path)


def test_a_broken_card_in_an_archive_names_the_archive(tmp_path):
    path = archive(tmp_path / "bad.keras", config={"config": {"card": {"format": 7}}})
    with pytest.raises(ModelError, match=r"bad\.keras: card format 7"):
        read_card(path)


def test_classes_of_a_card_may_have_gaps():
    card = Card(channels=(Channel(name="a"),), classes=CLASSES)
    assert card.class_values.tolist() == [0, 4]
    assert index_of_values(np.array([4, 0, 1]), card.class_values).tolist() == [1, 0, -1]


def regions(*values):
    return Card(
        channels=(Channel(name="t1"),),
        classes=tuple(LabelClass(value=v, name=f"r{v}", color=(v, 0, 0)) for v in values),
        task="regions",
    )


def test_a_label_map_shows_the_last_region_that_holds_a_pixel():
    card = regions(2, 4, 1)
    probabilities = np.array([[0.9, 0.2, 0.1], [0.9, 0.6, 0.1], [0.9, 0.6, 0.8], [0.5, 0.4, 0.3]])
    np.testing.assert_array_equal(card.label_values(probabilities), [2, 4, 1, 0])


def test_a_label_map_shows_the_likeliest_class():
    card = Card.generic(ndim=2, in_channels=1, num_classes=3)
    classes = [
        label.model_copy(update={"value": value})
        for label, value in zip(card.classes, (7, 0, 200), strict=True)
    ]
    card = card.model_copy(update={"classes": tuple(classes)})
    probabilities = np.array([[[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.1, 0.2, 0.7]]])
    np.testing.assert_array_equal(card.label_values(probabilities), [[0, 7, 200]])


def test_regions_say_so_in_json_and_one_is_enough():
    card = regions(3)
    stored = card.model_dump(mode="json")
    assert stored["task"] == "regions"
    assert Card.from_json(stored) == card


def test_no_region_may_have_the_value_of_no_region():
    with pytest.raises(ModelError, match="a region has value 0, which stands for no region"):
        Card.from_json(regions(1).model_dump(mode="json") | {"classes": [
            {"value": 0, "name": "a", "color": [0, 0, 0]}]})  # fmt: skip
