"""Ctrl-C and SIGTERM: stop at once, on the way out remove what is unfinished.

A signal becomes an exception in the main thread. While a library is being imported or runs
a callback from C, such an exception can be swallowed; the request is therefore remembered
and looked at again with every report of progress.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

__all__ = ["catch_signals", "stop_if_asked"]

_asked: list[int] = []


def catch_signals() -> None:
    """Turn SIGINT and SIGTERM into an orderly end of the program."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def stop_if_asked() -> None:
    """End the program if a signal has asked for it.

    Raises:
        SystemExit: With code 128 plus the signal's number, as shells report it.
    """
    if _asked:
        sys.exit(128 + _asked[0])


def _ask(number: int, frame: FrameType | None) -> None:
    if not _asked:
        click.echo("segfocal: stopping; nothing is left half-written", err=True)
    _asked.append(number)
    stop_if_asked()
