"""Memory as a number: limits that users write, and what the process has taken already."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from segfocal.errors import GeometryError

__all__ = ["is_out_of_memory", "parse_bytes", "peak_bytes", "resident_bytes"]

T = TypeVar("T")

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNKNOWN_RESIDENT = 800 * 10**6
"""What Python, GDAL and TensorFlow take, where the system does not tell."""


def parse_bytes(size: int | str, name: str = "max_memory") -> int:
    """Return a size in bytes from a number or from text such as ``"4GB"`` or ``"1.5 GiB"``.

    Args:
        size: The number or text.
        name: What to call it in messages.

    Raises:
        GeometryError: It is no positive size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", str(size).upper())
    if match is None or not float(match[1]):
        raise GeometryError(
            f"{name} {size!r}; expected bytes, or a number with KB, MB or GB, such as 4GB"
        )
    unit = 1024 ** "KMGT".index(match[2]) * 1024 if match[3] and match[2] else _UNITS[match[2]]
    return int(float(match[1]) * unit)


def peak_bytes(call: Callable[[], T]) -> tuple[T, int]:
    """Return what a call returns, and how much memory the process held at most meanwhile.

    Where the system does not tell, the second is a rough guess.
    """
    known = _reset_peak()
    result = call()
    return result, _status("VmHWM" if known else "VmRSS")


def resident_bytes() -> int:
    """Return how much memory the process holds; where the system does not tell, a rough guess."""
    return _status("VmRSS")


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # another system, or a container that forbids it
        return False
    return True


def _status(name: str) -> int:
    if not sys.platform.startswith("linux"):
        return _UNKNOWN_RESIDENT
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for a MemoryError and for what TensorFlow, PyTorch and JAX raise instead."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    return "XlaRuntimeError" in names and "RESOURCE_EXHAUSTED" in str(error)
