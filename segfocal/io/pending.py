"""Outputs that appear only when they are complete.

A :class:`PendingOutput` is a hidden folder beside the destination. What is written there
moves to its place by renaming, the main file last; a run that fails or is killed leaves the
destination as it was. A lock file keeps two runs to the same destination apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from segfocal import unfinished
from segfocal.errors import OutputError, OutputExistsError, OutputInUseError, SegfocalError
from segfocal.io.destinations import check_is_on_file_system

__all__ = ["RASTER_SIDECARS", "PendingOutput", "writing"]

RASTER_SIDECARS = (".aux.xml", ".ovr", ".msk")


@contextlib.contextmanager
def writing(what: object, *kinds: type[BaseException]) -> Iterator[None]:
    """Turn an ``OSError`` (or one of ``kinds``) of the block into an ``OutputError``."""
    try:
        yield
    except SegfocalError:  # of which some are OSErrors too
        raise
    except BaseException as error:
        if not isinstance(error, (OSError, *kinds)):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(
            f"{what}: writing failed ({text}); nothing was put there: check free space and "
            "permissions and run again"
        ) from error


class PendingOutput:
    """Context manager around one output file and its sidecars.

    Entering checks the destination, takes the lock and makes the folder; leaving removes
    both. ``commit`` moves the files that lie directly in the folder to the destination's
    folder; what lies in its subfolders (``scratch``) is dropped.

    Args:
        destination: Path of the main file.
        overwrite: Replace an existing file.

    Attributes:
        destination: Path of the main file once committed.
        folder: The hidden folder, valid inside the ``with`` block.

    Raises:
        OutputExistsError: On entering: the destination exists and ``overwrite`` is False.
        OutputInUseError: On entering: another run is writing it.
        OutputError: The destination is no path of a file, or not on a file system; on entering:
            it cannot be written.
    """

    def __init__(self, destination: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        check_is_on_file_system(destination)
        self.destination = Path(destination)
        if not self.destination.name:
            raise OutputError(f"{str(destination)!r}: expected the path of a file as output")
        try:
            str(self.destination).encode()
        except UnicodeEncodeError:
            raise OutputError(
                f"{str(destination)!r}: expected a name in UTF-8, which GDAL asks for"
            ) from None
        self.overwrite = overwrite
        self._lock_path = self.destination.with_name(f".{self.destination.name}.lock")
        self._lock = FileLock(self._lock_path, timeout=0, thread_local=False)
        self._folder: Path | None = None
        self._deferred = contextlib.ExitStack()

    @property
    def folder(self) -> Path:
        """The hidden folder.

        Raises:
            ValueError: Not inside the ``with`` block, or committed already.
        """
        if self._folder is None:
            raise ValueError(f"{self.destination}: the pending output is not open")
        return self._folder

    @property
    def main(self) -> Path:
        """Where to write the main file."""
        return self.folder / self.destination.name

    def path(self, name: str) -> Path:
        """Return where to write a sidecar that is to be called ``name``."""
        return self.folder / name

    def scratch(self, name: str) -> Path:
        """Return where to write an intermediate file; it is never moved out."""
        place = self.folder / "scratch"
        with writing(self.destination):
            place.mkdir(exist_ok=True)
        return place / name

    def defer(self, action: Callable[[], object]) -> None:
        """Run an action before the folder is removed: closing a file that lies in it."""
        self._deferred.callback(action)

    def require_space(self, size: int) -> None:
        """Raise ``OutputError`` unless about ``size`` bytes are free beside the destination."""
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise OutputError(
                f"{self.destination}: about {_size(size)} are needed and {_size(free)} "
                "are free; free space or choose another folder"
            )

    def check_destination(self) -> None:
        """Raise unless the destination may be written.

        Raises:
            OutputExistsError: It exists and ``overwrite`` is False.
            OutputError: It is a folder.
        """
        if self.destination.is_dir():
            raise OutputError(f"{self.destination}: is a folder; expected the path of a file")
        if os.path.lexists(self.destination) and not self.overwrite:
            raise OutputExistsError(
                f"{self.destination}: exists already; pass overwrite=True or --overwrite to "
                "replace it"
            )

    def __enter__(self) -> Self:
        parent = self.destination.parent
        if not parent.is_dir():
            raise OutputError(f"{self.destination}: folder {parent} does not exist; create it")
        self.check_destination()
        try:
            self._lock.acquire()
            unfinished.note(self._lock_path)
        except Timeout:
            raise OutputInUseError(
                f"{self.destination}: another run is writing this file; wait for it or choose "
                "another output"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise self._not_writable(error) from error
        try:
            # The lock is ours, so what is there is of a run that was killed. One name and no
            # other: to look for names takes long in a folder of many outputs.
            folder = parent / f".{self.destination.name}.partial"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            self._folder = folder
        except OSError as error:
            self._release()
            raise self._not_writable(error) from error
        unfinished.note(self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._remove_folder()
        finally:
            self._release()

    def commit(self) -> None:
        """Move everything to its place: sidecars first, the main file last.

        Raises:
            OutputError: The main file was not written, or a file cannot be moved.
        """
        if not self.main.is_file():
            raise OutputError(f"{self.destination}: nothing was written; nothing to commit")
        self._deferred.close()
        self.check_destination()
        parent = self.destination.parent
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        sidecars = [path for path in files if path != self.main]
        with writing(self.destination):
            for path in files:
                _sync(path)
            # A signal waits: the new sidecars must not stay beside an old main file.
            with unfinished.undivided():
                for path in sidecars:
                    os.replace(path, parent / path.name)
                # Readers would apply what an older output left there to the new one.
                fresh = {path.name for path in sidecars}
                for suffix in RASTER_SIDECARS:
                    stale = self.destination.with_name(self.destination.name + suffix)
                    if stale.name not in fresh:
                        stale.unlink(missing_ok=True)
                os.replace(self.main, self.destination)
        with contextlib.suppress(OSError):  # Windows cannot open folders
            _sync(parent)
        self._remove_folder()

    def _not_writable(self, error: BaseException) -> OutputError:
        return OutputError(
            f"{self.destination}: folder {self.destination.parent} cannot be written ({error}); "
            "check its permissions or choose another folder"
        )

    def _remove_folder(self) -> None:
        self._deferred.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            unfinished.forget(self._folder)
            self._folder = None

    def _release(self) -> None:
        unfinished.forget(self._lock_path)
        # Removed while still held, so that nobody can be holding the file that goes.
        with contextlib.suppress(OSError):
            self._lock_path.unlink(missing_ok=True)
        self._lock.release()
        with contextlib.suppress(OSError):  # Windows removes no open file
            if os.name == "nt":
                self._lock_path.unlink(missing_ok=True)


def _size(count: float) -> str:
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.3g} MB"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
