"""The cache of converted models: made once, found again by what they were made from.

An entry is a folder ``KEY/model.xml`` (or ``.onnx``) with the hashes of its files beside them,
renamed to its place when it is complete; ``KEY.refused`` is a text that says why a network cannot
be converted, so that it is not tried again. The key holds the model and the versions of everything
that converts and runs it. Who makes an entry holds the lock ``KEY.lock`` and works in
``.making-KEY``: one without a held lock is of a killed run. What was not used for longest is
removed when all entries take more than ``LIMIT``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from segfocal import unfinished
from segfocal.engine.exported_model import hash_files
from segfocal.errors import NotConvertibleError, OutputError
from segfocal.io.pending import writing
from segfocal.version import __version__

__all__ = ["LIMIT", "ModelCache", "cache_folder", "cache_key", "installed_version"]

LIMIT = 4 * 2**30
"""Bytes that entries take in all; the newest stays whatever it takes."""

_FORMAT = "2"
_MAKING = ".making-"
_HASHES = "hashes.json"
_SILENT_SECONDS = 1.0


def cache_folder() -> Path:
    """Return the folder of the cache: ``SEGFOCAL_CACHE``, or where the platform has such."""
    chosen = os.environ.get("SEGFOCAL_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "segfocal" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "segfocal"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "segfocal"


def installed_version(package: str) -> str:
    """Return the version of an installed package without importing it, or ``"none"``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def cache_key(model: str, suffix: str, global_context: str | None) -> str:
    """Return the key of a converted model.

    Args:
        model: Hash of the model.
        suffix: ``.xml`` or ``.onnx``.
        global_context: What its last focal level is to average; None: as it was made.
    """
    packages = ("tensorflow", "keras", "openvino", "onnxruntime", "tf2onnx", "onnx")
    versions = [f"{name} {installed_version(name)}" for name in packages]
    parts = (_FORMAT, model, suffix, str(global_context), __version__, *versions)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ModelCache:
    """Converted models in a folder that several processes may share.

    What killed runs left in it is removed when it is opened.

    Args:
        folder: The folder, made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._remove_abandoned()

    def find(self, key: str, suffix: str) -> Path | None:
        """Return the file of an entry, and note its use; None when there is none."""
        path = self.folder / key / f"model{suffix}"
        if not path.is_file():
            return None
        with contextlib.suppress(OSError):
            os.utime(path.parent)
        return path

    def is_whole(self, key: str) -> bool:
        """Say whether the files of an entry are as they were written."""
        place = self.folder / key
        try:
            hashes = json.loads((place / _HASHES).read_text(encoding="utf-8"))
            return all(hash_files(place / name) == found for name, found in hashes.items())
        except (OSError, ValueError, AttributeError):
            return False

    def refusal(self, key: str) -> str | None:
        """Return why a network cannot be converted and what to do to have it tried again.

        None when nothing is known against it.
        """
        path = self._refused(key)
        try:
            reason = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        if not reason:
            return None
        return f"{reason} (found by an earlier run; to have it tried again, remove {path})"

    def drop(self, key: str) -> None:
        """Remove an entry that turned out to be damaged."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def make(
        self,
        key: str,
        suffix: str,
        convert: Callable[[Path], object],
        waiting: Callable[[], object] | None = None,
    ) -> Path:
        """Return the file of an entry, made now unless another process has just made it.

        Args:
            key: The key.
            suffix: Suffix of the file.
            convert: Writes the file to the path it is given, and what belongs beside it.
            waiting: Called once when another process is making it, which is waited for.

        Raises:
            NotConvertibleError: The network cannot be converted; remembered from an earlier run,
                or from now on. Whatever else ``convert`` raises is not remembered.
            OutputError: The cache cannot be written.
        """
        self._check_refusal(key)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(key, waiting):
                self._check_refusal(key)  # by the process that was waited for
                found = self.find(key, suffix)
                if found is None:
                    found = self._make(key, suffix, convert)
        self._prune(keep=key)
        return found

    def _check_refusal(self, key: str) -> None:
        known = self.refusal(key)
        if known is not None:
            raise NotConvertibleError(known)

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.folder / f"{key}.lock")

    @contextlib.contextmanager
    def _locked(self, key: str, waiting: Callable[[], object] | None) -> Iterator[None]:
        lock = self._lock(key)
        try:
            # Who removes what a killed run left holds the lock as well, for a moment.
            lock.acquire(timeout=_SILENT_SECONDS)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()  # the system frees it when the other process dies
        try:
            yield
        finally:
            lock.release()

    def _make(self, key: str, suffix: str, convert: Callable[[Path], object]) -> Path:
        place = self.folder / f"{_MAKING}{key}"
        shutil.rmtree(place, ignore_errors=True)  # the lock is ours: of a killed run
        place.mkdir()
        unfinished.note(place)
        try:
            convert(place / f"model{suffix}")
            files = [path for path in place.iterdir() if path.is_file()]
            hashes = {path.name: hash_files(path) for path in files}
            (place / _HASHES).write_text(json.dumps(hashes), encoding="utf-8")
            self.drop(key)  # what is left of an entry that was not removed completely
            os.replace(place, self.folder / key)
        except NotConvertibleError as error:
            self._remember(key, error)
            raise
        except OutputError as error:  # who asked for a prediction knows of no such output
            raise OutputError(f"cache of models {self.folder}: {error}") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
            unfinished.forget(place)
        return self.folder / key / f"model{suffix}"

    def _remember(self, key: str, error: NotConvertibleError) -> None:
        path = self._refused(key)
        try:
            path.write_text(" ".join(str(error).split()), encoding="utf-8")
        except OSError:  # a full disk, which may have taken a part of it
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _refused(self, key: str) -> Path:
        return self.folder / f"{key}.refused"

    def _remove_abandoned(self) -> None:
        """Remove the folders of makers that live no longer."""
        with contextlib.suppress(OSError, NotImplementedError):
            for path in self.folder.glob(f"{_MAKING}*"):
                key = path.name.removeprefix(_MAKING)
                with contextlib.suppress(Timeout), self._lock(key).acquire(timeout=0):
                    shutil.rmtree(path, ignore_errors=True)

    def _prune(self, keep: str) -> None:
        """Remove the longest unused entries beyond the limit."""
        used: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob("[!.]*"):
                # Downloaded encoders lie in folders beside the entries.
                if any((path / f"model{suffix}").is_file() for suffix in (".xml", ".onnx")):
                    size = sum(file.stat().st_size for file in path.iterdir())
                    used.append((path.stat().st_mtime, size, path))
        total = sum(size for _, size, _ in used)
        for _, size, path in sorted(used):
            if total > LIMIT and path.name != keep:
                # Another process may be reading it: on Windows it stays then.
                shutil.rmtree(path, ignore_errors=True)
                total -= size
