"""The cache of converted models: made once, found again by what they were made from.

An entry is a folder ``KEY/model.xml`` (or ``.onnx``), renamed to its place when it is complete;
``KEY.refused`` is a text that says why a model cannot be converted, so that it is not tried
again. The key holds the model and the versions of everything that converts and runs it. What
was not used for longest is removed when all entries take more than ``LIMIT``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from segfocal.errors import ModelError
from segfocal.io.pending import writing
from segfocal.version import __version__

__all__ = ["LIMIT", "ModelCache", "cache_folder", "cache_key", "installed_version"]

LIMIT = 4 * 2**30
"""Bytes that entries take in all; the newest stays whatever it takes."""

_FORMAT = "1"
_ABANDONED_SECONDS = 24 * 3600


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

    Args:
        folder: The folder, made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str, suffix: str) -> Path | None:
        """Return the file of an entry, and note its use; None when there is none."""
        path = self.folder / key / f"model{suffix}"
        if not path.is_file():
            return None
        with contextlib.suppress(OSError):
            os.utime(path.parent)
        return path

    def refusal(self, key: str) -> str | None:
        """Return why a model was not converted, None when nothing is known against it."""
        try:
            return self._refused(key).read_text(encoding="utf-8")
        except OSError:
            return None

    def drop(self, key: str) -> None:
        """Remove an entry that turned out to be damaged."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def make(self, key: str, suffix: str, convert: Callable[[Path], object]) -> Path:
        """Return the file of an entry, made now unless another process has just made it.

        Args:
            key: The key.
            suffix: Suffix of the file.
            convert: Writes the file to the path it is given, and what belongs beside it.

        Raises:
            ModelError: The model cannot be converted, which is remembered.
            OutputError: The cache cannot be written.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{key}.lock")
            with lock:
                found = self.find(key, suffix)
                if found is None:
                    found = self._make(key, suffix, convert)
        self._prune(keep=key)
        return found

    def _make(self, key: str, suffix: str, convert: Callable[[Path], object]) -> Path:
        place = Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        try:
            convert(place / f"model{suffix}")
            os.replace(place, self.folder / key)
        except ModelError as error:
            self._refused(key).write_text(" ".join(str(error).split()), encoding="utf-8")
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)
        self._refused(key).unlink(missing_ok=True)
        return self.folder / key / f"model{suffix}"

    def _refused(self, key: str) -> Path:
        return self.folder / f"{key}.refused"

    def _prune(self, keep: str) -> None:
        """Remove the longest unused entries beyond the limit, and what killed runs left."""
        used: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                age = path.stat().st_mtime
                if path.name.startswith(".making-"):
                    if time.time() - age > _ABANDONED_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)
                elif path.is_dir():
                    size = sum(file.stat().st_size for file in path.iterdir())
                    used.append((age, size, path))
        total = sum(size for _, size, _ in used)
        for _, size, path in sorted(used):
            if total > LIMIT and path.name != keep:
                # Another process may be reading it: on Windows it stays then.
                shutil.rmtree(path, ignore_errors=True)
                total -= size
