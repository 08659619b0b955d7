"""Polygons as a part of an output: what is asked for, whether it is there, and making it.

They are made from the finished label map and do not enter its fingerprint: a later run that
finds the labels finished makes polygons alone. The provenance tells which polygons were made.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.card import Card
from segfocal.engine.areas import parse_area
from segfocal.engine.provenance import amend, file_digest
from segfocal.engine.scratch import scratch_folder
from segfocal.errors import OutputError, OutputExistsError
from segfocal.io import PendingOutput, Scan
from segfocal.io.pending import writing
from segfocal.io.polygons_writer import SUFFIXES

__all__ = ["Polygons", "add_polygons", "is_suffix", "polygons_of"]

_NOTE = "polygons.unit"  # with units, so that it goes when they go


@dataclass(frozen=True)
class Polygons:
    """Polygons that are wanted beside a label map.

    Attributes:
        path: The vector file.
        simplify: Tolerance in units of the CRS, or None.
        min_area: Polygons below are left out: pixels, or an area such as ``"0.5ha"``.
    """

    path: Path
    simplify: float | None = None
    min_area: float | str | None = None

    @property
    def least_area(self) -> tuple[float, bool] | None:
        """The minimum area, and whether it is in square metres; else it is in pixels.

        Raises:
            OutputError: It is no area.
        """
        return None if self.min_area is None else parse_area(self.min_area, "min_area")

    def check(self, scan: Scan, scratch: Path, *, overwrite: bool) -> None:
        """Raise unless they can be written.

        Args:
            scan: The scan, or the region of it, that is segmented.
            scratch: The scratch folder of the label map.
            overwrite: Replace an existing file.

        Raises:
            OutputExistsError: The file is there, is not left from a run that was killed when
                all but the label map was in place, and ``overwrite`` is False.
            OutputError: See :func:`segfocal.io.polygons.check_polygons`.
        """
        from segfocal.io.polygons import check_polygons

        least = self.least_area
        in_metres = least is not None and least[1]
        check_polygons(self.path, scan, simplify=self.simplify, area_in_metres=in_metres)
        if self.path.exists() and not overwrite and not self._is_left_over(scratch):
            raise OutputExistsError(
                f"{self.path}: exists already; pass overwrite=True or --overwrite to replace it"
            )

    def are_finished(self, output: Path, provenance: dict[str, Any]) -> bool:
        """Return True when the provenance of a label map tells of these, and they are there."""
        known = provenance.get("result", {}).get("polygons")
        if known is None or {**known, **self._description(output)} != known:
            return False
        return self.path.is_file() and file_digest(self.path) == known["sha256"]

    def begin(self, pending: PendingOutput, scratch: Path, *, overwrite: bool) -> PendingOutput:
        """Return the pending output for the file, entered until that of the label map is left.

        Raises:
            OutputError: The file cannot be written, or another run is writing it.
        """
        vector = PendingOutput(self.path, overwrite=overwrite or self._is_left_over(scratch))
        vector.__enter__()
        pending.defer(lambda: vector.__exit__(None, None, None))
        return vector

    def make(
        self,
        labels: Path,
        output: Path,
        card: Card,
        pending: PendingOutput,
        max_memory: int | None,
    ) -> dict[str, Any]:
        """Write the polygons of a label map to an entered pending output.

        Args:
            labels: Where the label map is now.
            output: Where it is going.
            card: Class values and names. Of regions, no region is no polygon.
            pending: Where they go; not committed.
            max_memory: Bytes that the process may take, or None.

        Returns:
            What the provenance tells of them.
        """
        from segfocal.io.polygons import polygonize

        count = polygonize(
            labels,
            pending,
            card.classes,
            simplify=self.simplify,
            min_area=self.least_area,
            max_memory=max_memory,
        )
        digest = file_digest(pending.main)
        return {**self._description(output), "features": count, "sha256": digest}

    def note(self, scratch: Path, digest: str) -> None:
        """Note in a scratch folder, before the file is put in place, that it is ours."""
        with writing(self.path):
            note = {"path": str(self.path.absolute()), "sha256": digest}
            (scratch / _NOTE).write_text(json.dumps(note), encoding="utf-8")

    def _description(self, output: Path) -> dict[str, Any]:
        place = self.path.absolute()
        try:
            file = os.path.relpath(place, output.absolute().parent)
        except ValueError:  # on another drive
            file = str(place)
        least = self.least_area
        unit = "" if least is None else (" m2" if least[1] else " pixels")
        return {
            "file": file,
            "simplify": self.simplify,
            "min_area": None if least is None else f"{least[0]:g}{unit}",
        }

    def _is_left_over(self, scratch: Path) -> bool:
        try:
            note = json.loads((scratch / _NOTE).read_text(encoding="utf-8"))
            return note["path"] == str(self.path.absolute()) and (
                file_digest(self.path) == note["sha256"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False


def is_suffix(path: str | Path) -> bool:
    """Return whether a path is only a suffix, such as ``.gpkg``."""
    name = os.fspath(path)
    return name.startswith(".") and name.lower() in SUFFIXES


def polygons_of(
    path: str | Path | None,
    output: Path,
    simplify: float | None = None,
    min_area: float | str | None = None,
) -> Polygons | None:
    """Return what is wanted, or None without a path.

    Args:
        path: The vector file; only a suffix stands for the label map's name with it.
        output: The label map.
        simplify: Tolerance in units of the CRS, or None.
        min_area: See :class:`Polygons`.

    Raises:
        OutputError: There are options and no path, or the minimum area is none.
    """
    if path is None:
        if simplify is not None or min_area is not None:
            what = "simplify" if simplify is not None else "min_area"
            raise OutputError(f"{what} is for polygons; give the path of a file for them too")
        return None
    place = output.with_name(output.stem + os.fspath(path)) if is_suffix(path) else Path(path)
    polygons = Polygons(place, simplify, min_area)
    _ = polygons.least_area
    return polygons


def add_polygons(
    polygons: Polygons,
    pending: PendingOutput,
    card: Card,
    target: Scan,
    provenance: dict[str, Any],
    *,
    overwrite: bool,
    max_memory: int | None,
) -> dict[str, Any]:
    """Make polygons of a label map that is finished already, unless they are there.

    Args:
        polygons: What is wanted.
        pending: The entered pending output of the label map; nothing of it is committed.
        card: Class values and names.
        target: A scan on the grid of the label map.
        provenance: That of the label map.
        overwrite: Replace an existing vector file.
        max_memory: Bytes that the process may take, or None.

    Returns:
        The provenance, the same object when there was nothing to do.

    Raises:
        OutputError: They cannot be written; the label map is as it was.
    """
    output = pending.destination
    if polygons.are_finished(output, provenance):
        return provenance
    scratch = scratch_folder(output)
    polygons.check(target, scratch, overwrite=overwrite)
    vector = polygons.begin(pending, scratch, overwrite=overwrite)
    about = polygons.make(output, output, card, vector, max_memory)
    amended = {**provenance, "result": {**provenance["result"], "polygons": about}}
    with writing(output):
        amend(output, amended, pending.scratch("provenance.json"))
    vector.commit()
    return amended
