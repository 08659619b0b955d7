"""What a file is: a scan, a model or a dataset spec, as a JSON value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segfocal.card_files import is_exported_model, read_encoder_facts, read_facts
from segfocal.data.spec import read_spec
from segfocal.engine.provenance import file_digest, read_provenance
from segfocal.io import open_scan
from segfocal.work import read_work

__all__ = ["inspect"]


def inspect(path: str | Path) -> dict[str, Any]:
    """Describe a scan, a model or a ``.yaml`` dataset spec, without loading it.

    Models are ``.keras`` files and what :func:`~segfocal.export` writes: SavedModel folders,
    ``.onnx`` and OpenVINO's ``.xml``, and encoders that :func:`~segfocal.convert_weights` writes.
    None needs the program that runs it. ``gmacs_per_mpx`` is the work of the
    encoder and decoder: 10^9 multiply-accumulate operations per 10^6 pixels or voxels.

    Of an output of :func:`segfocal.predict`, what it was made from is told too.

    Raises:
        ScanError, ModelError, SpecError: The file cannot be understood.
    """
    suffix = Path(path).suffix.lower()
    encoder = read_encoder_facts(path) if suffix == ".keras" else None
    if encoder is not None:
        return {"kind": "encoder", "path": str(path), **encoder}
    if suffix == ".keras" or is_exported_model(path):
        facts = read_facts(path)
        found: dict[str, Any] = {"kind": "model", "path": str(path), "file_format": facts.format}
        if facts.format != "keras":
            found["output"] = facts.output
            found["output_stride"] = facts.output_stride
            found["model_hash"] = facts.model_hash
            if facts.global_context is not None:
                found["global_context"] = facts.global_context
        work = read_work(path) if facts.format == "keras" else facts.work
        if work is not None:
            found["gmacs_per_mpx"] = {part: round(n / 1e3, 3) for part, n in work.items()}
        if facts.precision != "float32":
            found["precision"] = facts.precision
        return {**found, "card": facts.card.model_dump(mode="json")}
    if suffix in (".yaml", ".yml"):
        described = read_spec(path).model_dump(mode="json", exclude_defaults=True)
        return {"kind": "spec", "path": str(path), **described}
    provenance = read_provenance(Path(path))
    with open_scan(path) as scan:
        return {
            "kind": "scene" if len(scan.shape) == 2 else "volume",
            "path": str(path),
            "shape": list(scan.shape),
            "channels": list(scan.channels),
            "dtype": str(scan.dtype),
            "resolution": None if scan.resolution is None else list(scan.resolution),
            **scan.georeference(),
            **({"notes": list(notes)} if (notes := getattr(scan, "notes", ())) else {}),
            **({} if provenance is None else {"provenance": provenance}),
            **({} if provenance is None else _state(Path(path), provenance)),
        }


def _state(path: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return whether a label map is still the file that its provenance tells of."""
    same = file_digest(path) == provenance["sha256"]
    return {} if same else {"changed": "since it was written: its SHA-256 is another"}
