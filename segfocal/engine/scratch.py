"""The scratch store: finished units of a run, kept beside the destination until assembled.

A *unit* is a window of finished results. Each of its arrays is a compressed file; the journal
lists units with the checksums of their files, behind a first line with the fingerprint of the
run. A unit is listed only once its files are on disk, so that what the journal lists is there
whenever the run was killed. Units do not overlap.

Several processes may fill one store, each a *part* of the scan: each has a journal of its own
(``journal.3-of-8``), so that none waits for another. Whoever opens the store sees the units of
all journals with its fingerprint. A process with a part compares the files of its own journal with
their checksums at once, and those of others when it would otherwise compute what they hold; one
without compares all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal import unfinished
from segfocal.engine.coverage import uncovered
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.journal import Journal, sync_folder
from segfocal.engine.window_index import WindowIndex
from segfocal.errors import OutputError
from segfocal.io.pending import writing
from segfocal.types import Window, window_shape

__all__ = [
    "KeptPart",
    "ScratchStore",
    "Unit",
    "described_parts",
    "kept_bytes",
    "kept_digest",
    "kept_fingerprint",
    "kept_parts",
    "remove_scratch",
    "scratch_folder",
]

_FORMAT = 1
_JOURNAL = "journal"
_SUFFIX = ".unit"


@dataclass(frozen=True)
class Unit:
    """A window of finished results.

    Attributes:
        window: Where it lies in the scan, in its pixels.
        files: Per array: its file's name, type, size in bytes and SHA-256.
    """

    window: Window
    files: Mapping[str, Mapping[str, Any]]


def scratch_folder(destination: Path) -> Path:
    """Return the hidden folder in which units for a destination are kept."""
    return destination.with_name(f".{destination.name}.scratch")


class ScratchStore:
    """Units of one run, found again by the next run with the same fingerprint.

    The caller holds the lock of the destination. As a context manager it removes, at an
    exception, a folder that holds no unit yet; units are kept for the next run.

    Args:
        destination: The output that the units are for.
        fingerprint: What the results follow from. Units of another fingerprint are removed.
        part: Name of the part that this process fills, such as ``"3-of-8"``; what is in the
            folder besides is left to others then. None: all of it is this process's.

    Attributes:
        destination: The output.
        folder: Where the units are.
        units: Units that are there: undamaged, where they have been compared.
        damaged: How many units were found damaged on opening, and dropped.
        complete: Names of the parts that are complete.
        replaced: What differed in the fingerprint of units that were removed, in words;
            empty when there were none.

    Raises:
        OutputError: The folder cannot be made or read.
    """

    def __init__(
        self, destination: Path, fingerprint: Fingerprint, part: str | None = None
    ) -> None:
        self.folder = scratch_folder(destination)
        self.damaged = 0
        self.complete: list[str] = []
        self.replaced: list[str] = []
        self.destination = destination
        self._part = part
        self._units: dict[str, Unit] = {}
        self._index: WindowIndex[Unit] = WindowIndex()
        self._unread: set[str] = set()
        name = _JOURNAL if part is None else f"{_JOURNAL}.{part}"
        self._journal = Journal(self.folder / name)
        with writing(destination):
            self.folder.mkdir(exist_ok=True)
            journals = {path.name: Journal(path).read() for path in _journals(self.folder)}
            fits = {
                key: entries[1:]
                for key, entries in journals.items()
                if _header(entries).get("digest") == fingerprint.digest
            }
            strange = [entries for key, entries in journals.items() if key not in fits]
            if strange and (part is None or name in journals) and name not in fits:
                there = _header(journals.get(name) or strange[0]).get("fingerprint", {})
                self.replaced = fingerprint.differences(there)
            if part is None and not fits:
                _clear(self.folder)
            if name not in fits:
                (self.folder / name).unlink(missing_ok=True)
                first = {
                    "format": _FORMAT,
                    "digest": fingerprint.digest,
                    "fingerprint": fingerprint.about,
                }
                self._journal.append(first)
            own = sorted(fits) if part is None else [name] * (name in fits)
            self._take([entry for key in own for entry in fits[key] if "window" in entry])
            for key in sorted({*fits} - {*own}):
                self._trust([entry for entry in fits[key] if "window" in entry])
            self.complete = [
                key.removeprefix(f"{_JOURNAL}.")
                for key in sorted(fits)
                if {"complete": True} in fits[key]
            ]
        unfinished.keep(self.folder)

    @property
    def units(self) -> list[Unit]:
        return list(self._units.values())

    def covers(self, window: Window) -> bool:
        """Return whether undamaged units hold all of a window."""
        self._read(window)
        return self._index.covers(window)

    def missing(self, window: Window) -> list[Window]:
        """Return disjoint windows that make up what no undamaged unit holds of a window."""
        if self.covers(window):
            return []
        return uncovered(window, (there for there, _ in self._index.overlapping(window)))

    def add(self, window: Window, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep results; what other units hold already is left out.

        Args:
            window: Where they lie.
            arrays: Per name an array that begins with the window's sides.

        Raises:
            OutputError: They cannot be written. Units before stay.
        """
        for piece in self.missing(window):
            within = tuple(
                slice(part.start - whole.start, part.stop - whole.start)
                for part, whole in zip(piece, window, strict=True)
            )
            with writing(self.destination):
                self._add({name: array[within] for name, array in arrays.items()}, piece)

    def mark_complete(self) -> None:
        """Note that this process's part is complete."""
        with writing(self.destination):
            self._journal.append({"complete": True})

    def load(self, unit: Unit, name: str) -> NDArray[Any]:
        """Return an array of a unit.

        Raises:
            OutputError: Its file is gone or damaged.
        """
        about = unit.files[name]
        try:
            content = (self.folder / about["file"]).read_bytes()
        except OSError as error:
            content, cause = b"", str(error)
        else:
            cause = "its checksum is wrong"
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise OutputError(
                f"{self.destination}: {self.folder / about['file']} cannot be used ({cause}); "
                "run again: what it held is computed anew"
            )
        array = np.frombuffer(zlib.decompress(content), dtype=about["dtype"])
        return array.reshape(*window_shape(unit.window), *about["behind"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.units and (kind is not None or self._part is None):
            self.remove()

    def remove(self) -> None:
        """Remove what this process may: its content is at the destination or of no more use."""
        unfinished.release(self.folder)
        if self._part is None:
            remove_scratch(self.destination)
            return
        with contextlib.suppress(OSError):  # others may still be at work
            (self.folder / f"{_JOURNAL}.{self._part}").unlink(missing_ok=True)
            self.folder.rmdir()

    def _add(self, arrays: Mapping[str, NDArray[Any]], window: Window) -> None:
        stem = _stem(window)
        files = {}
        for name, array in arrays.items():
            content = zlib.compress(np.ascontiguousarray(array).data, 1)
            place = self.folder / f"{stem}.{name}{_SUFFIX}"
            _write(place, content)
            files[name] = {
                "file": place.name,
                "dtype": array.dtype.str,
                "behind": list(array.shape[len(window) :]),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        sync_folder(self.folder)
        self._journal.append({"window": [[side.start, side.stop] for side in window], **files})
        self._keep(Unit(window, files))

    def _take(self, entries: list[dict[str, Any]]) -> None:
        """Take over listed units whose files are as listed."""
        broken = []
        for unit in map(_listed, entries):
            if not self._is_whole(unit.files):
                broken.append(unit.window)
            else:
                self._keep(unit)
        self.damaged = sum(1 for window in broken if not self._index.covers(window))

    def _trust(self, entries: list[dict[str, Any]]) -> None:
        """Take over listed units, whose files are read when it matters."""
        for unit in map(_listed, entries):
            if self._keep(unit):
                self._unread.add(_stem(unit.window))

    def _keep(self, unit: Unit) -> bool:
        """Hold a unit, unless it overlaps another: what it has besides is computed anew."""
        if self._index.overlapping(unit.window):  # listed twice when it was computed anew
            return False
        self._units[_stem(unit.window)] = unit
        self._index.add(unit.window, unit)
        return True

    def _read(self, window: Window) -> None:
        """Drop the units of others that lie in a window and are damaged."""
        if not self._unread:
            return
        for _, unit in self._index.overlapping(window):
            stem = _stem(unit.window)
            if stem in self._unread:
                if not self._is_whole(unit.files):
                    self._index.remove(unit.window, unit)
                    del self._units[stem]
                self._unread.discard(stem)

    def _is_whole(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        for about in files.values():
            digest = hashlib.sha256()
            try:
                with open(self.folder / about["file"], "rb") as file:
                    while chunk := file.read(2**20):
                        digest.update(chunk)
            except OSError:
                return False
            if digest.hexdigest() != about["sha256"]:
                return False
        return True


def _listed(entry: Mapping[str, Any]) -> Unit:
    """Return a unit from its line in a journal."""
    window = tuple(slice(start, stop) for start, stop in entry["window"])
    return Unit(window, {name: about for name, about in entry.items() if name != "window"})


def _stem(window: Window) -> str:
    """Return what the names of a unit's files begin with."""
    return "_".join(f"{side.start}-{side.stop}" for side in window)


def kept_digest(destination: Path) -> str | None:
    """Return the digest of the fingerprint of what is kept for a destination, or None."""
    return _kept_header(destination).get("digest")


def kept_fingerprint(destination: Path) -> dict[str, Any] | None:
    """Return what the fingerprint of what is kept for a destination is about, or None."""
    return _kept_header(destination).get("fingerprint")


def _kept_header(destination: Path) -> dict[str, Any]:
    try:
        headers = [_header(Journal(path).read()) for path in _journals(scratch_folder(destination))]
    except OSError:
        return {}
    return next((header for header in headers if "digest" in header), {})


def kept_parts(destination: Path) -> list[str]:
    """Return the names of the parts that have a journal for a destination."""
    journals = _journals(scratch_folder(destination))
    return [path.name.removeprefix(f"{_JOURNAL}.") for path in journals if path.name != _JOURNAL]


@dataclass(frozen=True)
class KeptPart:
    """What the journal of a part says.

    Attributes:
        digest: Of its fingerprint; None where the journal has no whole first line.
        about: What its fingerprint is about.
        complete: Whether all of it is there.
    """

    digest: str | None
    about: dict[str, Any]
    complete: bool


def described_parts(destination: Path) -> dict[str, KeptPart]:
    """Return by name what the parts that have a journal for a destination are."""
    found = {}
    for name in kept_parts(destination):
        entries = Journal(scratch_folder(destination) / f"{_JOURNAL}.{name}").read()
        header = _header(entries)
        about, complete = header.get("fingerprint") or {}, {"complete": True} in entries
        found[name] = KeptPart(header.get("digest"), about, complete)
    return found


def kept_bytes(destination: Path) -> int:
    """Return how many bytes are kept for a destination."""
    files = scratch_folder(destination).glob(f"*{_SUFFIX}")
    return sum(path.stat().st_size for path in files)


def remove_scratch(destination: Path) -> None:
    """Remove the units kept for a destination, if there are any."""
    folder = scratch_folder(destination)
    with contextlib.suppress(OSError):
        _clear(folder)
        folder.rmdir()


def _clear(folder: Path) -> None:
    """Remove what a store makes, the journal first; a stranger's files stay."""
    for path in _journals(folder):
        path.unlink(missing_ok=True)
    for pattern in (f"*{_SUFFIX}*", "order.json*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _journals(folder: Path) -> list[Path]:
    """Return the journals in a folder: that of the whole first, those of parts after it."""
    return sorted(path for path in folder.glob(f"{_JOURNAL}*") if path.is_file())


def _header(entries: list[Any]) -> dict[str, Any]:
    return entries[0] if entries and isinstance(entries[0], dict) else {}


def _write(place: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the whole of it or nothing under its name."""
    begun = place.with_name(place.name + ".new")
    try:
        with open(begun, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(begun, place)
    except OSError:
        with contextlib.suppress(OSError):
            begun.unlink(missing_ok=True)
        raise
