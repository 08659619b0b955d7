"""The journal: a list that survives a kill at any moment.

One line per entry, ``CRC32 JSON``, each on disk before :meth:`Journal.append` returns. A line
that a kill has torn, or that the disk has damaged, is left out on reading.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Journal", "sync_folder"]


def sync_folder(folder: Path) -> None:
    """Make renamed and new names in a folder last over a power cut, where that is possible."""
    if os.name == "nt":  # cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Journal:
    """An append-only file of JSON values.

    Args:
        path: The file. It is made by the first :meth:`append`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Any]:
        """Return the entries that are whole, in order."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        entries = []
        for line in content.split(b"\n"):
            checksum, _, text = line.partition(b" ")
            if checksum == b"%08x" % zlib.crc32(text):
                entries.append(json.loads(text))
        return entries

    def append(self, entry: Any) -> None:
        """Add an entry and wait until it is on disk.

        Raises:
            OSError: It cannot be written; the entries before it stand.
        """
        text = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()
        new = not self._path.exists()
        with open(self._path, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a torn line, which stays unreadable
                    file.write(b"\n")
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self._path.parent)
