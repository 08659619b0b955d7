"""What a VRT refers to, found without opening it: GDAL would open remote and endless sources."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from segfocal.errors import ScanError

__all__ = ["check_sources_end", "vrt_sources"]

_LARGEST = 256 * 2**20
_SOURCE = re.compile(r"<Source(?:Filename|Dataset|URL)([^>]*)>([^<]+)</")


def vrt_sources(name: str) -> Iterator[str]:
    """Yield the names that a VRT, a file or the text itself, refers to; nothing for others."""
    if name.lstrip().startswith("<VRTDataset"):
        text = name
    elif name.lower().endswith(".vrt"):
        path = Path(name)
        try:
            if path.stat().st_size > _LARGEST:
                return
            text = path.read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return
    else:
        return
    for options, found in _SOURCE.findall(text):
        source = html.unescape(found).strip()
        if 'relativeToVRT="1"' in options and not os.path.isabs(source):
            source = os.path.join(os.path.dirname(name), source)
        yield source


def check_sources_end(name: str) -> None:
    """Raise ``ScanError`` when a VRT is among its own sources, however far down."""
    left: list[tuple[str, tuple[str, ...]]] = [(os.path.normpath(name), ())]
    done: set[str] = set()
    while left:
        one, above = left.pop()
        if one in above:
            raise ScanError(
                f"{name}: Recursion detected: {one} is among its own sources; expected sources "
                "that are files: make the VRT again"
            )
        if one in done:
            continue
        done.add(one)
        for source in vrt_sources(one):
            if source.lower().endswith(".vrt"):
                left.append((os.path.normpath(source), (*above, one)))
