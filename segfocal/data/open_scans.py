"""A bounded number of open files for datasets of any number of scans."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from segfocal.io import Scan, open_scan

__all__ = ["OpenScans"]

LIMIT = 64


class OpenScans:
    """Opens scans when they are asked for and closes those that were not used for longest.

    Args:
        orientation: Canonical orientation of volumes.
    """

    def __init__(self, orientation: str) -> None:
        self._orientation = orientation
        self._open: OrderedDict[Path, Scan] = OrderedDict()
        self._closed = False

    def get(self, path: Path) -> Scan:
        """Return the open scan of a path.

        Raises:
            ValueError: Everything was closed already.
            ScanError: The file cannot be opened.
        """
        if self._closed:
            raise ValueError(f"{path}: read after the dataset was closed")
        if path not in self._open:
            self._open[path] = open_scan(path, orientation=self._orientation)
            if len(self._open) > LIMIT:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close all files for good."""
        self._closed = True
        while self._open:
            self._open.popitem()[1].close()
