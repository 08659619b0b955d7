"""Short forms in spec files, spelled out as the fields of the models have them.

Nothing is checked here: what is no short form is passed on as it is, for the models to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["spelled_out"]


def spelled_out(document: dict[str, Any]) -> dict[str, Any]:
    """Return a spec document without its short forms.

    * one ``scale``, ``offset``, ``nodata``, ``normalization`` or list of ``bands`` for all
      channels or files stands under ``"*"``;
    * ``labels: colors`` is ``labels: {kind: colors}``;
    * ``images`` as a list has the keys ``1``, ``2``, ...;
    * a case that is named in a split, by its id alone or beside ``where``, is an entry;
    * a colour ``"#ff8000"`` is three numbers.
    """
    found = dict(document)
    for key in ("scale", "offset", "nodata", "normalization"):
        _change(found, key, lambda value: {"*": value} if _is_scalar(value) else value)
    _change(found, "bands", lambda value: {"*": value} if isinstance(value, list) else value)
    _change(found, "labels", lambda value: {"kind": value} if isinstance(value, str) else value)
    _change(found, "pairing", _with_images)
    _change(found, "cases", lambda value: _each(value, _with_images))
    _change(found, "classes", lambda value: _each(value, _with_color))
    splits = found.get("splits")
    if isinstance(splits, dict):
        found["splits"] = {name: _entries(value) for name, value in splits.items()}
    return found


def _change(mapping: dict[str, Any], key: str, change: Callable[[Any], Any]) -> None:
    if key in mapping:
        mapping[key] = change(mapping[key])


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else value


def _with_images(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("images"), list):
        numbered = {str(number): path for number, path in enumerate(value["images"], 1)}
        return {**value, "images": numbered}
    return value


def _with_color(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("color"), str):
        return value
    digits = value["color"].removeprefix("#")
    try:
        if len(digits) != 6:
            return value
        return {**value, "color": [int(digits[i : i + 2], 16) for i in (0, 2, 4)]}
    except ValueError:
        return value


def _entries(value: Any) -> Any:
    if isinstance(value, dict | str):
        value = [value]
    return _each(value, _entry)


def _entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"case": value}
    if isinstance(value, dict) and isinstance(value.get("where"), dict):
        where = {
            group: [texts] if isinstance(texts, str) else texts
            for group, texts in value["where"].items()
        }
        return {**value, "where": where}
    return value
