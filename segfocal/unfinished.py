"""What a run has made and not finished, so that a signal can take it away.

A signal arrives between any two instructions of any library, where raising an exception can
break the library instead of ending the program. The command line therefore ends the process
from the signal's handler, and ``with`` blocks get no say; what they would have removed is
noted here. What a later run can continue from is noted too, as kept.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "before_end",
    "end_with",
    "forget",
    "how_to_continue",
    "keep",
    "kept",
    "note",
    "release",
    "remove_all",
    "say_last",
    "undivided",
]

_paths: set[Path] = set()
_kept: dict[Path, str] = {}
_last: list[Callable[[str], object]] = []
_depth = 0
_end: Callable[[], object] | None = None


def note(path: Path) -> None:
    """Note a file or folder of this process that is not to outlive an interrupted run."""
    _paths.add(path.absolute())


def forget(path: Path) -> None:
    """Take back a note: the path is gone, or is to stay."""
    _paths.discard(path.absolute())


def keep(path: Path, how: str = "run the same command again to continue") -> None:
    """Note a folder from which a later run continues, and what to do for it."""
    _kept[path.absolute()] = how


def release(path: Path) -> None:
    """Take back :func:`keep`: the folder is gone or of no more use."""
    _kept.pop(path.absolute(), None)


def kept() -> list[Path]:
    """Return the folders from which a later run continues."""
    return sorted(_kept)


def how_to_continue() -> str:
    """Return what to do so that a later run continues."""
    return ", or ".join(sorted(set(_kept.values())))


def remove_all() -> None:
    """Remove every noted file and folder."""
    for path in sorted(_paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    _paths.clear()


@contextlib.contextmanager
def before_end(action: Callable[[str], object]) -> Iterator[None]:
    """Call a function before a signal ends the process, if that happens within the block.

    Args:
        action: Given the name of the signal. The main thread may be anywhere in the block but in
            an undivided part of it.
    """
    _last.append(action)
    try:
        yield
    finally:
        _last.remove(action)


def say_last(signal: str) -> None:
    """Call what is to be called before a signal ends the process; nothing keeps it from that."""
    for action in reversed(_last):
        with contextlib.suppress(Exception):
            action(signal)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Let the block run to its end before :func:`end_with` acts."""
    global _depth, _end
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _end is not None:
            # Once: what is called last, such as writing a summary, has undivided parts itself.
            action, _end = _end, None
            action()


def end_with(action: Callable[[], object]) -> None:
    """Call a function that ends the process, once: now, or after an undivided block."""
    global _end
    if _depth:
        _end = action
    else:
        action()
