"""Ctrl-C and SIGTERM: stop at once, on the way out remove what is unfinished.

The handler ends the process itself. An exception raised by it would come up wherever the
main thread happens to be, and libraries that are interrupted like that fail in their own
ways: TensorFlow while it traces a function, garbage collection, imports.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from segfocal.quiet import error_stream
from segfocal.unfinished import remove_all

__all__ = ["catch_signals"]

_SHOW_CURSOR = b"\x1b[?25h"


def catch_signals() -> None:
    """Turn SIGINT and SIGTERM into an orderly end: exit code 128 plus the signal's number."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # Twice Ctrl-C must not interrupt the clean-up.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    # Written past Python's buffers: the main thread may be in the middle of a write to them.
    stream = error_stream()
    with contextlib.suppress(OSError):
        if os.isatty(stream):  # a progress bar has hidden the cursor
            os.write(stream, _SHOW_CURSOR + b"\n")
        os.write(stream, b"segfocal: stopping; nothing is left half-written\n")
    remove_all()
    os._exit(128 + number)
