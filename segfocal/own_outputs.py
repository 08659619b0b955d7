"""Outputs of earlier runs among what a folder or pattern stands for: they are no scans of a later.

They are told by their provenance, and only below the folder that the run writes into: elsewhere
a label map may well be what somebody wants to segment.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from segfocal.engine.provenance import read_provenance

__all__ = ["OwnOutputs"]


class OwnOutputs:
    """Files below a folder that segfocal has written, as the provenance beside them says.

    Args:
        out: The folder; it need not be there.

    Attributes:
        found: Those of them that :meth:`hold` was asked about.
    """

    def __init__(self, out: Path) -> None:
        self.found: set[Path] = set()
        self._out = Path(os.path.realpath(out))
        self._is_below = cache(self._lies_below)
        self._names = cache(_names_of_outputs)

    def hold(self, path: Path) -> bool:
        """Return whether a file is one of them: a label map, or a layer beside one."""
        folder = path.parent
        if not self._is_below(folder) or path.name not in self._names(folder):
            return False
        self.found.add(path)
        return True

    def _lies_below(self, folder: Path) -> bool:
        return Path(os.path.realpath(folder)).is_relative_to(self._out)


def _names_of_outputs(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("*.json"):
        provenance = read_provenance(path.with_suffix(""))
        # Renamed, it is of nothing that is here.
        if provenance is not None and provenance.get("output") == path.stem:
            layers = provenance["result"].get("layers", {})
            found |= {path.stem, *(layer["file"] for layer in layers.values())}
    return found
