"""What a file is: a scan, a model or a dataset spec, as a JSON value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segfocal.card import read_card
from segfocal.data.spec import load_spec
from segfocal.io import open_scan

__all__ = ["inspect"]


def inspect(path: str | Path) -> dict[str, Any]:
    """Describe a scan, a ``.keras`` model or a ``.yaml`` dataset spec, without loading it.

    Raises:
        ScanError, ModelError, SpecError: The file cannot be understood.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".keras":
        return {"kind": "model", "path": str(path), "card": read_card(path).model_dump(mode="json")}
    if suffix in (".yaml", ".yml"):
        spec = load_spec(path)
        return {"kind": "spec", "path": str(path), **spec.model_dump(mode="json")}
    with open_scan(path) as scan:
        return {
            "kind": "scene" if len(scan.shape) == 2 else "volume",
            "path": str(path),
            "shape": list(scan.shape),
            "channels": list(scan.channels),
            "dtype": str(scan.dtype),
            "resolution": None if scan.resolution is None else list(scan.resolution),
            **scan.georeference(),
        }
