"""What a VRT refers to, found without opening it: GDAL would open remote and endless sources.

A VRT is known as GDAL knows it: by ``<VRTDataset`` near the beginning of a file of any name, or
in the name itself. It is read as XML without entities, and with the names of its elements in any
case, as GDAL reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from segfocal.errors import ScanError

__all__ = ["VRTContent", "check_sources_end", "is_vrt", "vrt_content", "vrt_sources"]

CONNECTION = "vrt://"
"""Begins a name that stands for a VRT of one dataset: ``vrt://a.tif?bands=1``."""

_BEGINS = "<VRTDataset"
_HEAD_BYTES = 4096  # GDAL looks into the first 1024
_CHUNK = 2**20
_SOURCES = ("sourcefilename", "sourcedataset", "sourceurl")
_DESCRIPTIONS = ("srs", "description", "categorynames", "unittype", "pixelfunctioncode")


class VRTContent(NamedTuple):
    """What stands in a VRT.

    Attributes:
        sources: Names of its sources.
        texts: Other texts that may name something: all but descriptions and metadata.
        broken: What is wrong with it as XML, or ``""``. GDAL reads what is not well-formed
            in its own way: the rest may be incomplete then.
    """

    sources: tuple[str, ...]
    texts: tuple[str, ...]
    broken: str


def is_vrt(name: str) -> bool:
    """Return whether GDAL takes a name, or the local file of that name, for a VRT."""
    if name[: len(CONNECTION)].lower() == CONNECTION or _BEGINS in name:
        return True
    try:
        if not os.path.isfile(name):  # a pipe would not end
            return False
        with open(name, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return _BEGINS.encode() in head.split(b"\0")[0]


def vrt_content(name: str) -> VRTContent:
    """Return what stands in a VRT, a file or a name that is one; nothing of what is none."""
    if not is_vrt(name):
        return VRTContent((), (), "")
    if name[: len(CONNECTION)].lower() == CONNECTION:
        source, _, options = name[len(CONNECTION) :].partition("?")
        return VRTContent((source,), (options,) if options else (), "")
    reader = _Reader("" if _BEGINS in name else os.path.dirname(name))
    try:
        if _BEGINS in name:
            reader.read(name)
        else:
            with open(name, encoding="utf-8", errors="replace", newline="") as file:
                while (chunk := file.read(_CHUNK)) and reader.read(chunk):
                    pass
        reader.end()
    except (expat.ExpatError, _UnwantedError, OSError, ValueError) as error:
        return VRTContent(tuple(reader.sources), tuple(reader.texts), str(error) or "not readable")
    return VRTContent(tuple(reader.sources), tuple(reader.texts), "")


def vrt_sources(name: str) -> Iterator[str]:
    """Yield the names that a VRT, a file or a name that is one, refers to; nothing for others."""
    yield from vrt_content(name).sources


def check_sources_end(name: str) -> None:
    """Raise ``ScanError`` when a VRT is among its own sources, however far down."""
    left: list[tuple[str, tuple[str, ...]]] = [(name, ())]
    done: set[str] = set()
    while left:
        one, above = left.pop()
        place = os.path.realpath(one) if os.path.isfile(one) else one
        if place in above:
            raise ScanError(
                f"{name}: Recursion detected: {one} is among its own sources; expected sources "
                "that are files: make the VRT again"
            )
        if place in done:
            continue
        done.add(place)
        left.extend((source, (*above, place)) for source in vrt_sources(one))


class _UnwantedError(Exception):
    """Entities are declared, which could stand for anything, and for very much of it."""


class _Reader:
    """Collects sources and other texts of a VRT from its XML, piece by piece."""

    def __init__(self, folder: str) -> None:
        self.sources: list[str] = []
        self.texts: list[str] = []
        self._folder = folder
        # Element, its attributes, and the text in it so far.
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self._begun = False
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse
        self._parser = parser

    def read(self, chunk: str) -> bool:
        """Take a piece; return False behind the end that GDAL sees, a zero byte."""
        text, zero, _ = chunk.partition("\0")
        if not self._begun:
            text = text.lstrip("\ufeff \t\r\n")
            self._begun = bool(text)
        self._parser.Parse(text, False)
        return not zero

    def end(self) -> None:
        self._parser.Parse("", True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        lower = {key.lower(): value for key, value in attributes.items()}
        self._open.append((name.lower(), lower, []))
        if self._describes():
            return
        for key, value in lower.items():
            if key in _SOURCES:  # GDAL takes an attribute for an element of that name
                self.sources.append(value)
            elif not key.startswith(("xmlns", "xsi:")):
                self.texts.append(value)

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1][2].append(text)

    def _end(self, name: str) -> None:
        describes = self._describes()
        element, attributes, parts = self._open.pop()
        text = "".join(parts).strip()
        if not text or describes:
            return
        if element not in _SOURCES:
            self.texts.append(text)
            return
        if attributes.get("relativetovrt", "0").strip() != "0" and not os.path.isabs(text):
            text = os.path.join(self._folder, text)
        self.sources.append(text)

    def _describes(self) -> bool:
        """Return whether what is open says something to people only."""
        return any(
            name in _DESCRIPTIONS
            or (name == "metadata" and attributes.get("domain", "").lower() != "geolocation")
            for name, attributes, _ in self._open
        )

    def _refuse(self, *declaration: object) -> None:
        raise _UnwantedError("it declares a document type; expected none")
