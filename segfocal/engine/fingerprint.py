"""The fingerprint of a run: everything that its result follows from, and nothing else.

Two runs with the same fingerprint write the same bytes. Paths of outputs, limits of memory,
numbers of workers and times do not belong to it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np

from segfocal.version import __version__

__all__ = ["Fingerprint", "processor"]

_WORDS = {
    "input": "the input",
    "model": "the model",
    "engine": "the inference engine",
    "processor": "the processor",
    "parameters": "the parameters",
    "outputs": "the kind of output",
    "versions": "the version of segfocal or of a library",
}


@dataclass(frozen=True)
class Fingerprint:
    """What a result follows from.

    Attributes:
        about: JSON value with the keys ``input``, ``model``, ``engine``, ``processor``,
            ``parameters``, ``outputs`` and ``versions``.
    """

    about: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, hexadecimal."""
        text = json.dumps(self.about, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: object) -> list[str]:
        """Return in words what differs from the ``about`` of another fingerprint."""
        there = other if isinstance(other, dict) else {}
        mine = json.loads(json.dumps(self.about))  # tuples are lists there
        return [word for key, word in _WORDS.items() if mine.get(key) != there.get(key)]


def processor() -> str:
    """Return the machine type and the vector instructions that numpy sees on it.

    Libraries pick their kernels by these, and each kernel rounds in its own way.
    """
    try:
        features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    except AttributeError:
        return platform.machine()
    return " ".join([platform.machine(), *sorted(name for name, has in features.items() if has)])


def library_versions(formats: dict[str, str]) -> dict[str, str]:
    """Return the versions of segfocal, numpy and the libraries of the formats."""
    return {"segfocal": __version__, "numpy": np.__version__, **formats}
