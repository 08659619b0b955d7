"""A folder as an output that appears only when it is complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from segfocal import unfinished
from segfocal.errors import OutputError, OutputExistsError
from segfocal.io.pending import PendingOutput, writing

__all__ = ["PendingFolder"]


class PendingFolder(PendingOutput):
    """As :class:`PendingOutput`, for an output that is a folder.

    ``main`` is to be made as a folder; ``commit`` renames it to the destination. With
    ``overwrite`` an older folder is renamed away first and removed afterwards; of a run that
    is killed between the two renames nothing half-written is seen, but the old folder is
    gone.

    Args:
        destination: Path of the folder.
        overwrite: Replace an existing folder, if it is one of the same kind.
        marker: Name of a file that every folder of this kind holds; a folder without it is
            never replaced.
    """

    def __init__(
        self, destination: str | os.PathLike[str], *, overwrite: bool = False, marker: str
    ) -> None:
        super().__init__(destination, overwrite=overwrite)
        self._marker = marker

    def commit(self) -> None:
        """Move the folder to its place.

        Raises:
            OutputError: It was not written, or cannot be moved.
        """
        if not (self.main / self._marker).is_file():
            raise OutputError(f"{self.destination}: nothing was written; nothing to commit")
        self._deferred.close()
        self.check_destination()
        with writing(self.destination):
            for path in sorted(self.main.rglob("*"), reverse=True):
                _sync(path)
            _sync(self.main)
            with unfinished.undivided():
                old = self.folder / "old"
                if self.destination.exists():
                    os.rename(self.destination, old)
                try:
                    os.rename(self.main, self.destination)
                except OSError:
                    if old.exists():
                        os.rename(old, self.destination)
                    raise
            shutil.rmtree(old, ignore_errors=True)
        _sync(self.destination.parent)
        self._remove_folder()

    def check_destination(self) -> None:
        """Raise unless the destination may be written.

        Raises:
            OutputExistsError: A folder of this kind exists and ``overwrite`` is False.
            OutputError: Something else is there.
        """
        if not self.destination.exists() and not self.destination.is_symlink():
            return
        if not self.destination.is_dir() or self.destination.is_symlink():
            raise OutputError(f"{self.destination}: is no folder; choose another output")
        if not self.overwrite:
            raise OutputExistsError(
                f"{self.destination}: exists already; pass overwrite=True or --overwrite to "
                "replace it"
            )
        if not (self.destination / self._marker).is_file():
            raise OutputError(
                f"{self.destination}: is a folder with other things in it (no {self._marker}); "
                "choose another output"
            )


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
