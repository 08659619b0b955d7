"""Provenance: the JSON file beside a finished output that says what it was made from.

``labels.tif`` gets ``labels.tif.json``. By its fingerprint and checksum a later run knows
that an output is finished and its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from segfocal.engine.fingerprint import Fingerprint

__all__ = ["file_digest", "is_as_written", "is_finished", "provenance_path", "read_provenance"]

KIND = "segfocal provenance"
FORMAT = 1


def provenance_path(output: Path) -> Path:
    """Return where the provenance of an output stands."""
    return output.with_name(f"{output.name}.json")


def describe(
    output: Path,
    written: Path,
    fingerprint: Fingerprint,
    result: dict[str, Any],
    model_name: str | None,
) -> str:
    """Return the text of a provenance file.

    Args:
        output: Where the main file is going.
        written: Where it is now.
        fingerprint: What it follows from.
        result: What to say of its content.
        model_name: What to call the model.
    """
    value = {
        "kind": KIND,
        "format": FORMAT,
        "output": output.name,
        "bytes": written.stat().st_size,
        "sha256": file_digest(written),
        "fingerprint": fingerprint.digest,
        "model_name": model_name,
        **fingerprint.about,
        "result": result,
    }
    return _text(value)


def amend(output: Path, provenance: dict[str, Any], begun: Path) -> None:
    """Replace the provenance beside a finished output.

    Args:
        output: The output.
        provenance: The whole of the new one.
        begun: Where to write it until it is complete, in the same file system.

    Raises:
        OSError: It cannot be written; the old one stands.
    """
    with open(begun, "w", encoding="utf-8") as file:
        file.write(_text(provenance))
        file.flush()
        os.fsync(file.fileno())
    os.replace(begun, provenance_path(output))


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_provenance(output: Path) -> dict[str, Any] | None:
    """Return the provenance that stands beside an output, or None."""
    try:
        value = json.loads(provenance_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if _is_ours(value) else None


def _is_ours(value: Any) -> bool:
    """Return True when a document has all of a provenance that is relied upon, of its types."""
    if not (
        isinstance(value, dict) and value.get("kind") == KIND and value.get("format") == FORMAT
    ):
        return False
    result = value.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("classes"), list):
        return False
    layers, polygons = result.get("layers", {}), result.get("polygons") or {}
    if not isinstance(layers, dict) or not isinstance(polygons, dict):
        return False
    described = [{"file": "", "sha256": value.get("sha256")}, *layers.values()]
    described += [polygons] if polygons else []
    return isinstance(value.get("fingerprint"), str) and all(
        isinstance(one, dict) and isinstance(one.get(key), str)
        for one in described
        for key in ("file", "sha256")
    )


def is_finished(output: Path, provenance: dict[str, Any], fingerprint: Fingerprint) -> bool:
    """Return True when an output is what a run with this fingerprint would write."""
    return provenance.get("fingerprint") == fingerprint.digest and is_as_written(output, provenance)


def is_as_written(output: Path, provenance: dict[str, Any]) -> bool:
    """Return True when an output, and what is beside it, is what its provenance says."""
    if not output.is_file():
        return False
    files = {output: provenance.get("sha256")}
    for layer in provenance.get("result", {}).get("layers", {}).values():
        files[output.with_name(layer["file"])] = layer["sha256"]
    # Programs that show an output add to what stands beside it: that it is there is enough.
    beside = provenance.get("result", {}).get("beside", [])
    if not all(output.with_name(name).is_file() for name in beside):
        return False
    return all(path.is_file() and file_digest(path) == known for path, known in files.items())


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
