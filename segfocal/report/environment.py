"""What a run or an evaluation was done with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from segfocal.version import __version__

__all__ = ["environment"]

LIBRARIES = ("keras", "tensorflow", "jax", "torch", "openvino", "onnxruntime", "numpy", "rasterio",
             "nibabel")  # fmt: skip


def environment() -> list[tuple[str, str]]:
    """Return names and values: versions, system, processor."""
    found = [("segfocal", __version__), ("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return [
        *found,
        ("Keras backend", os.environ.get("KERAS_BACKEND", "tensorflow")),
        ("system", f"{platform.system()} {platform.release()}"),
        ("processor", f"{platform.machine()}, {os.cpu_count()} cores"),
    ]
