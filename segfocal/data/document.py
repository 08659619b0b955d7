"""YAML files read into pydantic models, with errors that name file, key and value.

The reader follows YAML 1.2's core schema where PyYAML follows 1.1: ``1e-4`` is a number,
``no`` and ``on`` are text, ``010`` is ten, and a key that stands twice is an error.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from segfocal.errors import SpecError

__all__ = ["Entry", "document_of", "parse_document", "read_document", "write_document"]

Model = TypeVar("Model", bound=BaseModel)

LONGEST_VALUE = 200
"""Characters of a wrong value that a message shows."""


class Entry(BaseModel):
    """A mapping in a document: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the keys of the document, which may differ from names of attributes."""
        return super().model_dump(**{"by_alias": True, **options})


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and without silent duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused by SafeLoader: not hashable
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what YAML 1.1 or 1.2 would not read back as text."""


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def read_document(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into a pydantic model.

    Raises:
        SpecError: The file is missing, is no YAML, or does not fit the model; one line that
            names the file, the key, the value, and the nearest valid key for an unknown one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; expected a YAML file") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read as text: {error}") from error
    return parse_document(text, path, model)


def parse_document(text: str, path: str | Path, model: type[Model]) -> Model:
    """Read YAML text into a pydantic model.

    A model with a static method ``spelled_out`` gets the document through it first: it turns
    short forms (one number for all channels) into those that the model's fields have.

    Args:
        text: The document.
        path: What to call it in messages.
        model: What it should be.

    Raises:
        SpecError: See :func:`read_document`.
    """
    path = Path(path)
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a number of 5000 digits
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise SpecError(
            f"{path}: holds {type(value).__name__} at its top level; expected keys and values"
        )
    try:
        spelled_out = getattr(model, "spelled_out", None)
        if spelled_out is not None:
            json.dumps(value)  # cycles end here
            value = spelled_out(value)
        plain = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:  # a tag, an anchor inside itself
        raise SpecError(
            f"{path}: {error}; expected text, numbers, true, false, null, lists and mappings"
        ) from error
    try:
        return model.model_validate_json(plain, strict=True)
    except ValidationError as error:
        raise SpecError(_one_line(path, value, error, model)) from error


def write_document(path: str | Path, model: BaseModel) -> None:
    """Write a pydantic model as YAML."""
    value = model.model_dump(mode="json", exclude_none=True)
    Path(path).write_text(document_of(value), encoding="utf-8")


def document_of(value: Any, width: float = 100, *, one_line: bool = False) -> str:
    """Return a JSON value as YAML text that is read back as the same value.

    Args:
        value: The value.
        width: Length of lines, about.
        one_line: Whether to write all of it on one line, in braces or brackets.
    """
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True if one_line else None,
        width=float("inf") if one_line else width,
    )
    return text


def _one_line(path: Path, value: Any, error: ValidationError, model: type[BaseModel]) -> str:
    problems = error.errors()
    first = problems[0]
    if first["type"] == "missing":  # a misspelt key is missing under its right name
        unknown = (problem for problem in problems if problem["type"] == "extra_forbidden")
        first = next(unknown, first)
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        return f"{path}: unknown key {where!r}; {hint}{more}"
    if first["type"] == "missing":
        return f"{path}: key {where!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict | list):
        return f"{path}: {where}: {message}{more}"
    found = repr(first["input"])
    if len(found) > LONGEST_VALUE:
        found = f"{found[:LONGEST_VALUE]}..."
    return f"{path}: {where}: {message}; found {found}{more}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a model accepts at a location of its document."""
    current: Any = model
    for part in location:
        fields = {} if current is None else _fields(current)
        if part not in fields:
            continue  # an index, or a key that the user chose, such as the name of a split
        current = _model_in(fields[part].annotation)
    return [str(key) for key in _fields(current)] if current else []


def _fields(model: type[BaseModel]) -> dict[int | str, Any]:
    """Return a model's fields by the key that stands in documents."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None
