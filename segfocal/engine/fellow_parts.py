"""Parts of an output that other processes have computed: whether they go with one's own."""

from __future__ import annotations

from pathlib import Path

from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.scratch import KeptPart, described_parts

__all__ = ["fitting_parts", "is_redone", "strange_part"]


def fitting_parts(destination: Path, like: str) -> set[str]:
    """Return the names of the complete parts that have the fingerprint of a part.

    Args:
        destination: The output.
        like: Name of the part, such as ``"3-of-8"``.
    """
    there = described_parts(destination)
    own = there.get(like)
    if own is None or own.digest is None:
        return set()
    return {name for name, one in there.items() if one.complete and one.digest == own.digest}


def is_redone(destination: Path, name: str, fingerprint: Fingerprint) -> bool:
    """Return whether a part is there that was computed with something else than now."""
    own = described_parts(destination).get(name)
    return own is not None and own.digest != fingerprint.digest


def strange_part(destination: Path, name: str, fingerprint: Fingerprint) -> str:
    """Return in words which complete part does not go with a part, and why; empty when all do.

    Args:
        destination: The output.
        name: Name of the part, such as ``"3-of-8"``. Those of another number of parts are no
            matter.
        fingerprint: Of the part.
    """
    count = name.partition("-of-")[2]
    for other, kept in described_parts(destination).items():
        if other == name or other.partition("-of-")[2] != count:
            continue
        if kept.complete and kept.digest != fingerprint.digest:
            why = " and ".join(fingerprint.differences(kept.about))
            return f"part {other} is there and differs in {why}{_options(fingerprint, kept)}"
    return ""


def _options(fingerprint: Fingerprint, kept: KeptPart) -> str:
    """Return which parameters differ: ``" (tile [64, 64] there, [96, 96] here)"``."""
    here, there = fingerprint.about.get("parameters", {}), kept.about.get("parameters", {})
    texts = [
        f"{key} {_text(there.get(key))} there, {_text(here.get(key))} here"
        for key in sorted({*here, *there})
        if _text(here.get(key)) != _text(there.get(key))
    ]
    return f" ({'; '.join(texts)})" if texts else ""


def _text(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
