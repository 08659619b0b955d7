"""The order of parts: what they are made from and what for, noted beside them.

Whoever puts the parts together reads it, wherever that process is started; a part that is begun
compares what it is told itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfocal.engine.parts import Part
from segfocal.engine.polygons import is_suffix
from segfocal.engine.scratch import kept_parts, scratch_folder
from segfocal.errors import OutputError
from segfocal.io.pending import writing
from segfocal.prepared import ScanSource

__all__ = ["absolute_options", "absolute_paths", "note_order", "refuse_other_order"]

ORDER = "order.json"
"""File in the scratch folder that says what the parts are made from."""

OF_POLYGONS = ("polygons", "simplify", "min_area")
"""Options that the parts do not follow from, but what is made of them."""


def note_order(
    destination: Path, part: Part, model: Any, source: ScanSource, options: Mapping[str, Any]
) -> None:
    """Note what the parts are made from; all of them would write the same."""
    folder = scratch_folder(destination)
    order = {
        "parts": part.count,
        "model": absolute_paths(model),
        "input": absolute_paths(source),
        "options": absolute_options(options),
    }
    text = json.dumps(order, default=str, indent=1)
    place = folder / ORDER
    begun = place.with_name(f"{ORDER}.{os.getpid()}.new")
    try:
        with writing(destination):
            begun.write_text(text + "\n", encoding="utf-8")
            os.replace(begun, place)
    except OutputError:
        if folder.is_dir():
            raise
        # Another process has made the output, and removed what it is made of.


def refuse_other_order(destination: Path, part: Part, options: Mapping[str, Any]) -> None:
    """Raise when the parts that are there are to become something else than this one.

    What they are computed with is compared by their fingerprints. A part that is there already
    is run again on purpose: what it is told now counts.
    """
    try:
        order = json.loads((scratch_folder(destination) / ORDER).read_text(encoding="utf-8"))
        told = order["options"] if order.get("parts") == part.count else None
        there = None if told is None else [told.get(name) for name in OF_POLYGONS]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # there is none, or assembling tells
    if there is None or part.name in kept_parts(destination):
        return
    known = absolute_options(options)
    mine = json.loads(json.dumps([known.get(name) for name in OF_POLYGONS], default=str))
    changed = [
        f"{name} {_or_none(before)} there, {_or_none(now)} here"
        for name, before, now in zip(OF_POLYGONS, there, mine, strict=True)
        if before != now
    ]
    if changed:
        raise OutputError(
            f"{destination}: other parts were told something else ({'; '.join(changed)}); expected "
            "the same for all: give this one what they were given, or run one of them again"
        )


def _or_none(value: Any) -> Any:
    return "none" if value is None else value


def absolute_paths(value: Any) -> Any:
    """Return paths as absolute text, for a process that is started elsewhere.

    Args:
        value: A path, or a list or mapping of some. Names that are none of existing files stay.

    Returns:
        The same with text; None of anything else.
    """
    if isinstance(value, str | os.PathLike):
        name = os.fspath(value)
        return os.path.abspath(name) if os.path.exists(name) else name
    if isinstance(value, list | tuple):
        found = [absolute_paths(one) for one in value]
        return None if None in found else found
    if isinstance(value, dict):
        return {key: absolute_paths(one) for key, one in value.items()}
    return None


def absolute_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of :func:`~segfocal.predict` with their paths as absolute text."""
    found = dict(options)
    if isinstance(found.get("area"), str | os.PathLike):  # bounds as text stay as they are
        found["area"] = absolute_paths(found["area"])
    if found.get("polygons") is not None and not is_suffix(found["polygons"]):
        found["polygons"] = os.path.abspath(found["polygons"])
    return found
