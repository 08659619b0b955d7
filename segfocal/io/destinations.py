"""Where outputs may go: to file systems, not to object storage."""

from __future__ import annotations

import os
import re

from segfocal.errors import OutputError

__all__ = ["check_is_on_file_system"]

# Also what is left of "s3://bucket" in a Path, "s3:/bucket"; one letter is a Windows drive.
_REMOTE = re.compile(r"/vsi[a-z0-9_]+(?:/|$)|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def check_is_on_file_system(output: str | os.PathLike[str]) -> None:
    """Raise if an output's path is one that only GDAL or a service can resolve.

    Locks, continuing and the renaming by which an output appears in one step need a file
    system; object storage has none of them.

    Args:
        output: Path of a file or folder that is to be written.

    Raises:
        OutputError: It is a ``/vsi...`` path or a URL.
    """
    name = os.fspath(output)
    if _REMOTE.match(name):
        raise OutputError(
            f"{name}: is no place on a file system; expected a local or mounted folder: write the "
            "output there and copy it to the storage when it is finished"
        )
