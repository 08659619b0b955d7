"""Specs written by the program: drafted from a folder, or imported from other conventions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfocal.errors import SpecError
from segfocal.spec_drafts.bids import from_bids
from segfocal.spec_drafts.dataset_json import from_decathlon, from_nnunet, read_json
from segfocal.spec_drafts.draft import Draft, write_draft
from segfocal.spec_drafts.folders import from_folder

__all__ = ["draft_spec", "import_spec"]

Kind = Literal["nnunet", "decathlon", "bids", "folder"]


def draft_spec(folder: str | Path, output: str | Path, *, overwrite: bool = False) -> list[str]:
    """Draft a spec from the scans and labels that lie in a folder.

    Args:
        folder: Folder of the data.
        output: YAML file to write, with comments that tell what to fill in.
        overwrite: Replace an existing file.

    Returns:
        Lines that tell what was found.

    Raises:
        SpecError, ScanError: No images and labels that belong together were found.
        OutputError: ``output`` is there already or cannot be written.
    """
    draft = from_folder(Path(folder))
    if (Path(folder) / "dataset.json").is_file():
        draft.notes.append("dataset.json is there: spec import takes names and splits from it")
    return write_draft(draft, Path(output), overwrite=overwrite)


def import_spec(
    source: str | Path, output: str | Path, *, kind: str | None = None, overwrite: bool = False
) -> list[str]:
    """Write a spec for a dataset of another convention.

    Args:
        source: ``dataset.json`` of nnU-Net v2 or of the Medical Segmentation Decathlon, its
            folder, a BIDS dataset, or a folder of images and masks.
        output: YAML file to write.
        kind: ``"nnunet"``, ``"decathlon"``, ``"bids"`` or ``"folder"``; left out, found out.
        overwrite: Replace an existing file.

    Returns:
        Lines that tell what was found.

    Raises:
        SpecError, ScanError: The dataset is not of that kind, or incomplete.
        OutputError: ``output`` is there already or cannot be written.
    """
    return write_draft(_draft(Path(source), kind), Path(output), overwrite=overwrite)


def _draft(source: Path, kind: str | None) -> Draft:
    if not source.exists():
        raise SpecError(f"{source}: no such file or folder; check the path")
    table = source / "dataset.json" if source.is_dir() else source
    if kind is None:
        kind = _found_out(source, table)
    if kind in ("nnunet", "decathlon"):
        return from_nnunet(table) if kind == "nnunet" else from_decathlon(table)
    folder = source if source.is_dir() else source.parent
    if kind == "bids":
        return from_bids(folder)
    if kind == "folder":
        return from_folder(folder)
    raise SpecError(f"kind {kind!r}: expected nnunet, decathlon, bids or folder")


def _found_out(source: Path, table: Path) -> Kind:
    if table.is_file():
        value = read_json(table)
        if "channel_names" in value or "file_ending" in value:
            return "nnunet"
        if "training" in value or "modality" in value:
            return "decathlon"
        raise SpecError(
            f"{table}: neither channel_names (nnU-Net v2) nor training (Decathlon) is in it; "
            "expected one of the two"
        )
    if (source / "dataset_description.json").is_file() or any(source.glob("sub-*")):
        return "bids"
    return "folder"
