"""What an output may not replace, and what it leaves outdated when it replaces another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from segfocal.errors import OutputError

__all__ = ["is_same_file", "refuse_to_replace_inputs", "remove_outdated"]


def refuse_to_replace_inputs(
    outputs: Iterable[Path], identity: dict[str, Any], others: Sequence[str | os.PathLike[str]]
) -> None:
    """Raise when a file to be written is one that is read.

    Args:
        outputs: All files of the output.
        identity: Of the scan, with all its files, see :func:`~segfocal.io.identity.scan_identity`.
        others: What else is read: model, area.

    Raises:
        OutputError: One is.
    """
    read = [file["path"] for file in identity["files"] if "path" in file] + [*others]
    for output in outputs:
        for path in read:
            if is_same_file(output, path):
                raise OutputError(
                    f"{output}: is read for this very output, as {Path(path).name}; expected "
                    "another path for what is written"
                )


def is_same_file(output: Path, path: str | os.PathLike[str]) -> bool:
    """Return whether two names are of one file, by links too."""
    try:
        return output.samefile(path)
    except (OSError, ValueError):  # one is not there, or is a name that only GDAL can resolve
        return False


def remove_outdated(
    destination: Path,
    earlier: dict[str, Any] | None,
    fresh: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    """Remove layers and polygons of an output that was replaced: they'd pass for the new one's.

    Args:
        destination: The output.
        earlier: Provenance of the one before, if any.
        fresh: The result in the provenance of the new one.
        tell: Called with a line of text for each file.
    """
    before, after = ((one or {}).get("result", {}) for one in (earlier, {"result": fresh}))
    kept = {_place(destination, file) for file in _files(after)}
    for file in _files(before):
        place = _place(destination, file)
        if place not in kept and place.is_file():
            with contextlib.suppress(OSError):
                place.unlink()
                tell(f"{place}: removed, as it belonged to the output that was replaced")


def _files(result: dict[str, Any]) -> list[str]:
    beside = [*result.get("layers", {}).values(), result.get("polygons") or {}]
    return [one["file"] for one in beside if "file" in one]


def _place(destination: Path, file: str) -> Path:
    return Path(os.path.normpath(destination.parent / file))
