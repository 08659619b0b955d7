"""Ctrl-C, SIGTERM and SIGHUP: stop, on the way out remove what cannot be continued.

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
from segfocal.unfinished import end_with, how_to_continue, kept, remove_all, say_last

__all__ = ["catch_signals"]

# Windows knows no SIGHUP, the end of a terminal or an ssh connection.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))

_NAMED = 3

_SHOW_CURSOR = b"\x1b[?25h"


def catch_signals() -> None:
    """Turn signals into an orderly end: exit code 128 plus the signal's number."""
    for number in _SIGNALS:
        # `nohup` has a run outlive its terminal.
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # Twice Ctrl-C must not interrupt the clean-up.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    end_with(lambda: _end(number))


def _end(number: int) -> None:
    remove_all()
    say_last(signal.Signals(number).name)
    # Written past Python's buffers: the main thread may be in the middle of a write to them.
    stream = error_stream()
    with contextlib.suppress(OSError):
        if os.isatty(stream):  # a progress bar has hidden the cursor
            os.write(stream, _SHOW_CURSOR + b"\n")
        os.write(stream, f"segfocal: stopped; {_what_is_left()}\n".encode())
    os._exit(128 + number)


def _what_is_left() -> str:
    folders = [folder for folder in kept() if folder.exists()]
    if not folders:
        return "nothing is left half-written"
    names = ", ".join(str(folder) for folder in folders[:_NAMED])
    if len(folders) > _NAMED:
        names += f" and {len(folders) - _NAMED} others"
    which = "that folder" if len(folders) == 1 else "these folders"
    return (
        f"{how_to_continue()}: what is finished is kept in {names} (remove {which} to give it up)"
    )
