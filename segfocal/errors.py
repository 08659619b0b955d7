"""Errors of segfocal: one root, and each child is also the builtin that one would catch.

A message is one line that says what was found, what was expected and how to mend it.
The command line prints it and exits with code 2.
"""

from __future__ import annotations

__all__ = [
    "ChannelError",
    "GeometryError",
    "ModelError",
    "NotConvertibleError",
    "OutputError",
    "OutputExistsError",
    "OutputInUseError",
    "ScanError",
    "ScanNotFoundError",
    "SegfocalError",
    "SegfocalWarning",
    "SpecError",
]


class SegfocalError(Exception):
    """Root of every error that segfocal raises on purpose."""


class SegfocalWarning(UserWarning):
    """Something that is done differently than one might think; the command line prints it."""


class ScanError(SegfocalError, ValueError):
    """A file is not a scan that can be read: unknown format, truncated, unusable header."""


class ScanNotFoundError(ScanError, FileNotFoundError):
    """The path of a scan does not exist."""


class ChannelError(SegfocalError, ValueError):
    """The channels of a scan are not the ones that the model was trained on."""


class GeometryError(SegfocalError, ValueError):
    """Tile, halo and overlap do not go together, or do not suit the model."""


class ModelError(SegfocalError, ValueError):
    """A file or object is not a model that segfocal can run."""


class NotConvertibleError(ModelError):
    """A network that a format cannot hold: it would fail again, whatever else changes."""


class SpecError(SegfocalError, ValueError):
    """A dataset spec or plan is wrong; the message names file, key and value."""


class OutputError(SegfocalError, OSError):
    """An output cannot be written: folder missing, read-only, disk full, verification failed."""


class OutputExistsError(OutputError, FileExistsError):
    """The output is there already and overwriting was not asked for."""


class OutputInUseError(OutputError):
    """Another process is writing the output."""
