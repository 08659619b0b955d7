"""YAML read as YAML 1.2 into models, and errors that name file, key and value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from segfocal.data.document import read_document, write_document
from segfocal.errors import SpecError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(Strict):
    length: int
    width: Annotated[float, Field(gt=0)] = 1.0


class Thing(Strict):
    name: str = ""
    rate: float = 0.0
    count: int = 0
    active: bool = False
    tags: tuple[str, ...] = ()
    main: Part | None = None
    parts: tuple[Part, ...] = ()
    groups: dict[str, tuple[Part, ...]] = {}


@pytest.fixture
def read(tmp_path):
    def read(text: str, encoding: str = "utf-8") -> Thing:
        path = tmp_path / "thing.yaml"
        path.write_text(text, encoding=encoding)
        return read_document(path, Thing)

    return read


@pytest.fixture
def complaint(read, tmp_path):
    """Return a function that gives the message about a text, after the file's name."""

    def complaint(text: str, encoding: str = "utf-8") -> str:
        with pytest.raises(SpecError) as caught:
            read(text, encoding)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{tmp_path / 'thing.yaml'}: ")
        return message.removeprefix(f"{tmp_path / 'thing.yaml'}: ")

    return complaint


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-2.5e+3", -2500),
        (".5", 0.5),
        ("3.", 3),
        ("7", 7),
        ("010", 10),
        ("-.inf", -float("inf")),
    ],
)
def test_numbers_are_those_of_yaml_1_2(read, scalar, value):
    assert read(f"rate: {scalar}").rate == value


@pytest.mark.parametrize(("scalar", "value"), [("010", 10), ("+5", 5), ("-08", -8), ("0", 0)])
def test_leading_zeros_make_no_octal_number(read, scalar, value):
    assert read(f"count: {scalar}").count == value


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "on",
        "yes",
        "off",
        "NO",
        "y",
        "n",
        "1_000",
        "12:30",
        "2001-12-14",
        "<<",
        "=",
        "1e",
        "e5",
    ],
)
def test_words_that_yaml_1_1_took_for_something_else_are_text(read, word):
    assert read(f"name: {word}").name == word
    assert read(f"tags: [{word}, b]").tags == (word, "b")


@pytest.mark.parametrize(("scalar", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_true_and_false_are_the_only_booleans(read, scalar, value):
    assert read(f"active: {scalar}").active is value


@pytest.mark.parametrize("word", ["yes", "on", "1", "'true'"])
def test_other_words_are_no_booleans(complaint, word):
    assert complaint(f"active: {word}").startswith("active: Input should be a valid boolean")


@pytest.mark.parametrize("scalar", ["null", "~", "", "Null"])
def test_null_is_nothing(read, scalar):
    assert read(f"main: {scalar}\ncount: 3") == Thing(main=None, count=3)


def test_lists_and_nested_models_are_read(read):
    found = read("parts:\n- {length: 3}\n- {length: 4, width: 2}\ngroups: {a: [{length: 1}]}")
    assert found == Thing(
        parts=(Part(length=3), Part(length=4, width=2.0)), groups={"a": (Part(length=1),)}
    )


def test_umlauts_are_read_and_written_as_they_are(read, tmp_path):
    thing = Thing(name="Wälder", tags=("forêt", "lës", "森"))
    assert read("name: Wälder\ntags: [forêt, lës, 森]") == thing
    path = tmp_path / "again.yaml"
    write_document(path, thing)
    assert "Wälder" in path.read_bytes().decode("utf-8")
    assert read_document(path, Thing) == thing


@pytest.mark.parametrize(
    "name",
    [
        "1e-4",
        "08",
        "010",
        "no",
        "true",
        "null",
        "~",
        "",
        "1.5",
        ".inf",
        "0x1F",
        "a: b",
        "# c",
        "- d",
    ],
)
def test_text_that_looks_like_something_else_survives_writing(tmp_path, name):
    path = tmp_path / "again.yaml"
    thing = Thing(name=name, tags=(name, "x"), groups={name: (Part(length=1),)})
    write_document(path, thing)
    assert read_document(path, Thing) == thing


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1 / 3, 1e300, -0.0, 123456789.0])
def test_numbers_survive_writing_exactly(tmp_path, rate):
    path = tmp_path / "again.yaml"
    write_document(path, Thing(rate=rate, count=-3, active=True))
    assert read_document(path, Thing) == Thing(rate=rate, count=-3, active=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("count: 1\ncount: 2", "count"),
        ("main: {length: 1, length: 1}", "length"),
        ("groups: {a: [], b: [], a: []}", "a"),
    ],
)
def test_a_key_that_stands_twice_is_refused(complaint, text, key):
    message = complaint(text)
    assert message.startswith(f"not valid YAML: key '{key}' stands twice")
    assert "line " in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmae: x", "unknown key 'nmae'; did you mean 'name'?"),
        ("main: {length: 1, widht: 2}", "unknown key 'main.widht'; did you mean 'width'?"),
        ("parts: [{length: 1}, {lenght: 1, length: 1}]", "unknown key 'parts.1.lenght'; did you "
         "mean 'length'?"),
        ("groups: {train: [{length: 1, with: 1}]}", "unknown key 'groups.train.0.with'; did you "
         "mean 'width'?"),
        ("main: {length: 1, zzz: 2}", "unknown key 'main.zzz'; expected one of length, width"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest_valid_one(complaint, text, expected):
    assert complaint(text) == expected


def test_several_problems_are_counted(complaint):
    assert complaint("nmae: x\ncuont: 1").endswith("did you mean 'name'? (and 1 more)")


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("count: three", "count", "'three'"),
        ("count: 1.5", "count", "1.5"),
        ("count: '3'", "count", "'3'"),
        ("name: 3", "name", "3"),
        ("rate: high", "rate", "'high'"),
        ("tags: [a, 1e-4]", "tags.1", "0.0001"),
        ("parts: [{length: 1, width: -2}]", "parts.0.width", "-2"),
        ("groups: {a: [{length: x}]}", "groups.a.0.length", "'x'"),
        ("parts: 3", "parts", "3"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(complaint, text, key, found):
    message = complaint(text)
    assert message.startswith(f"{key}: Input should be ")
    assert message.endswith(f"; found {found}")


def test_a_list_in_place_of_a_number_is_not_poured_into_the_message(complaint):
    assert complaint(f"count: {list(range(500))}") == "count: Input should be a valid integer"


@pytest.mark.parametrize(
    ("text", "key"), [("parts: [{width: 1}]", "parts.0.length"), ("main: {}", "main.length")]
)
def test_a_missing_key_is_named(complaint, text, key):
    assert complaint(text) == f"key '{key}' is missing"


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: b: c",
        "\tname: x",
        "!!python/name:os.system ''",
        "a: " + 3000 * "[" + 3000 * "]",
        "a: " + 5000 * "9",
    ],
)
def test_what_is_no_yaml_is_refused(complaint, text):
    assert complaint(text).startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["name: {{ template }}", "? [a, b]\n: c", "{[1]: 2}"])
def test_a_key_that_is_a_list_or_a_mapping_is_refused(complaint, text):
    message = complaint(text)
    assert message.startswith("not valid YAML: ")
    assert "found unhashable key" in message


@pytest.mark.parametrize(
    ("text", "kind"), [("", "NoneType"), ("- a", "list"), ("text", "str"), ("1e3", "float")]
)
def test_what_is_no_mapping_is_refused(complaint, text, kind):
    assert complaint(text) == f"holds {kind} at its top level; expected keys and values"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("name: !!binary aGk=", "Object of type bytes"),
        ("tags: !!set {a}", "Object of type set"),
        ("tags: &a [*a]", "Circular reference"),
    ],
)
def test_what_json_does_not_know_is_refused(complaint, text, kind):
    message = complaint(text)
    assert message.startswith(kind)
    assert message.endswith("expected text, numbers, true, false, null, lists and mappings")


def test_a_file_in_another_encoding_is_refused(complaint):
    assert complaint("name: Wälder", "latin-1").startswith("cannot be read as text: 'utf-8' codec")


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "no.yaml"
    with pytest.raises(SpecError) as caught:
        read_document(path, Thing)
    assert str(caught.value) == f"{path}: no such file; expected a YAML file"


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(SpecError, match="cannot be read as text"):
        read_document(tmp_path, Thing)
