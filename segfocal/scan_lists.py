"""Lists of scans: what a folder, a pattern or a table stands for."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io.formats import is_local_path

__all__ = ["SCENE_SUFFIXES", "VOLUME_SUFFIXES", "ScanInput", "absolute", "list_scans"]

SCENE_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".nc", ".zarr")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class ScanInput:
    """A scan to be segmented.

    Attributes:
        files: One file, or several that make up the scan.
        place: What its output is called after, relative to the folder of outputs.
        output: Where its output is to go, relative to that folder; None: named by ``place``.
    """

    files: tuple[str, ...]
    place: PurePath
    output: str | None = None

    @property
    def name(self) -> str:
        """What to call it: its first file."""
        return self.files[0]

    @property
    def source(self) -> str | list[str]:
        """What to open: its file, or a list of several."""
        return self.files[0] if len(self.files) == 1 else list(self.files)


def list_scans(
    inputs: Iterable[str | os.PathLike[str] | Sequence[str]],
    left_out: Callable[[Path], bool] | None = None,
) -> list[ScanInput]:
    """Return the scans that a list of inputs stands for, each once, in order.

    Args:
        inputs: Files, URLs and other names that GDAL opens; folders (all scans directly in
            them); patterns such as ``scenes/**/*.tif``; tables (``.csv`` or ``.tsv``) with a
            column ``input``, optionally ``output``, and files of one scan separated by ``;``;
            sequences of files that make up one scan.
        left_out: Whether a file is not one of the scans that a folder or pattern stands for.

    Raises:
        ScanNotFoundError: A folder or pattern holds no scan, or nothing was given.
        ScanError: A table cannot be read, has a row without an input, or a scan is to have two
            outputs.
    """
    found: dict[tuple[str, ...], ScanInput] = {}
    for one in inputs:
        for scan in _expand(one, left_out or (lambda path: False)):
            known = found.setdefault(tuple(absolute(name) for name in scan.files), scan)
            if known.output != scan.output:
                first, second = (one.output or "one by its name" for one in (known, scan))
                raise ScanError(
                    f"{scan.name}: is to have two outputs, {first} and {second}; expected it once"
                )
    if not found:
        raise ScanNotFoundError("no scans to segment; expected files, folders or patterns")
    return list(found.values())


def _expand(
    one: str | os.PathLike[str] | Sequence[str], left_out: Callable[[Path], bool]
) -> list[ScanInput]:
    if not isinstance(one, str | os.PathLike):
        files = tuple(os.fspath(part) for part in one)
        if not files:
            raise ScanError("a scan of no files; expected at least one")
        return [ScanInput(files, PurePath(PurePath(files[0]).name))]
    name = os.fspath(one)
    if not is_local_path(name):
        return [ScanInput((name,), PurePath(PurePath(name).name))]
    if os.path.isdir(name) and not name.lower().endswith(".zarr"):
        return _in_folder(Path(name), left_out)
    if name.lower().endswith(TABLE_SUFFIXES):
        return _in_table(Path(name))
    if not os.path.exists(name) and glob.has_magic(name):
        return _by_pattern(name, left_out)
    return [ScanInput((name,), PurePath(PurePath(name).name))]


def _in_folder(folder: Path, left_out: Callable[[Path], bool]) -> list[ScanInput]:
    paths = sorted(path for path in folder.iterdir() if _is_scan(path))
    paths = _without(paths, left_out, folder)
    if not paths:
        raise ScanNotFoundError(
            f"{folder}: holds no scans; expected files that end in "
            f"{', '.join((*SCENE_SUFFIXES, *VOLUME_SUFFIXES))}"
        )
    return [ScanInput((str(path),), PurePath(path.name)) for path in paths]


def _by_pattern(pattern: str, left_out: Callable[[Path], bool]) -> list[ScanInput]:
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    paths = [path for path in paths if _is_there(path) and not path.name.startswith(".")]
    paths = _without(paths, left_out, pattern)
    if not paths:
        raise ScanNotFoundError(f"{pattern}: no file matches; check the pattern")
    # Folders below the part without wildcards are kept, so that names stay apart.
    fixed = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    root = Path(*fixed)
    return [ScanInput((str(path),), PurePath(path.relative_to(root))) for path in paths]


def _without(paths: list[Path], left_out: Callable[[Path], bool], what: object) -> list[Path]:
    kept = [path for path in paths if not left_out(path)]
    if paths and not kept:
        raise ScanNotFoundError(
            f"{what}: nothing but outputs of segfocal in the folder of outputs; expected "
            "scans, or another folder for outputs"
        )
    return kept


def _in_table(table: Path) -> list[ScanInput]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if table.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScanError(f"{table}: cannot be read ({error}); expected a table of scans") from error
    if not rows or "input" not in rows[0]:
        found = ", ".join(name or "" for name in rows[0]) if rows else "no rows"
        raise ScanError(f"{table}: has {found}; expected a row per scan and a column 'input'")
    scans = []
    for number, row in enumerate(rows, 1):
        files = tuple(
            name if not is_local_path(name) else str(table.parent / name)
            for name in (part.strip() for part in (row["input"] or "").split(";"))
            if name
        )
        if not files:
            if not any(value for value in row.values() if value):  # spreadsheets leave such
                continue
            raise ScanError(f"{table}: row {number} has no input; expected a file, or no row")
        output = (row.get("output") or "").strip() or None
        scans.append(ScanInput(files, PurePath(PurePath(files[0]).name), output))
    return scans


def _is_scan(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or not name.endswith((*SCENE_SUFFIXES, *VOLUME_SUFFIXES)):
        return False
    return _is_there(path)


def _is_there(path: Path) -> bool:
    """Return whether a path is to be tried: what cannot be read is to fail, and not to vanish."""
    is_dangling = path.is_symlink() and not path.exists()  # data that was not fetched
    return path.is_file() or is_dangling or path.name.lower().endswith(".zarr")


def absolute(name: str) -> str:
    """Return the absolute path of a file; other names are returned as they are."""
    return os.path.abspath(name) if is_local_path(name) else name
