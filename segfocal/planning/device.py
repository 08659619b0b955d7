"""The device at hand, and how much memory training may take on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segfocal.engine.memory import parse_bytes
from segfocal.errors import SpecError

__all__ = ["Device", "DeviceKind", "bytes_text", "device_at_hand"]

DeviceKind = Literal["auto", "cpu", "gpu"]

UNKNOWN = {"cpu": 8 * 2**30, "gpu": 8 * 2**30}
"""Bytes that are assumed where the system does not tell."""


@dataclass(frozen=True)
class Device:
    """What is trained on.

    Attributes:
        name: For people.
        bytes: Memory that training may take.
        is_gpu: Whether it is a GPU.
    """

    name: str
    bytes: int
    is_gpu: bool


def device_at_hand(kind: DeviceKind = "auto", memory: int | str | None = None) -> Device:
    """Return the GPU that the driver lists first, or the processor.

    No library of tensors is loaded for that: nvidia-smi is asked.

    Args:
        kind: ``"auto"``, or which of the two to plan for, whether it is here or not.
        memory: What training may take, in bytes or as text. Left out: nine tenths of the GPU's
            memory, or half of the memory that is free.

    Raises:
        SpecError: ``kind`` is unknown.
        GeometryError: ``memory`` is no size.
    """
    if kind not in get_args(DeviceKind):
        raise SpecError(f"device {kind!r}; expected one of {', '.join(get_args(DeviceKind))}")
    asked = None if memory is None else parse_bytes(memory, "memory")
    total = None if kind == "cpu" else _gpu_bytes()
    if kind == "gpu" or (kind == "auto" and total):
        size = asked or (total or UNKNOWN["gpu"]) * 9 // 10
        return Device(f"GPU, {bytes_text(size)}", size, True)
    size = asked or _free_bytes() // 2
    return Device(f"CPU, {bytes_text(size)}", size, False)


def bytes_text(size: int) -> str:
    """Return a size for people, in the largest unit of which it is a tenth."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power / 10:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size} bytes"


def _gpu_bytes() -> int | None:
    """Return the memory of the first NVIDIA GPU that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    program = shutil.which("nvidia-smi")
    if program is None or visible in ("", "-1"):
        return None
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        sizes = [int(line) * 2**20 for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    first = (visible or "0").split(",")[0]
    chosen = int(first) if first.isdigit() else 0
    return sizes[chosen] if chosen < len(sizes) else None


def _free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return UNKNOWN["cpu"]
