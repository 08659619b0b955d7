"""Names for the outputs of many scans: none is that of another, or of a file beside another."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from segfocal.engine.layers import LAYERS, Layers
from segfocal.engine.provenance import provenance_path
from segfocal.errors import ScanError
from segfocal.io.formats import is_volume_path
from segfocal.io.pending import RASTER_SIDECARS
from segfocal.scan_lists import SCENE_SUFFIXES, VOLUME_SUFFIXES, ScanInput, absolute

__all__ = ["name_outputs"]


def name_outputs(scans: Sequence[ScanInput], polygons: str | None = None) -> list[PurePath]:
    """Return where the output of each scan goes, relative to the folder of outputs.

    ``.tif`` for scenes and ``.nii.gz`` for volumes. An output that would have the name of
    another, or of a file that stands beside another (its provenance, layers and sidecars), on
    a file system that does not tell capitals apart either, gets a part of a hash of the paths
    of its input's files.

    Args:
        scans: The scans.
        polygons: Suffix of the files of polygons beside the outputs, if there are to be any.

    Raises:
        ScanError: A table sends two scans to one output, one to where a file of another goes,
            or out of the folder.
    """
    names = [_output_name(scan) for scan in scans]
    found = []
    for scan, name, is_alone in zip(scans, names, _alone(names, polygons), strict=True):
        if is_alone:
            found.append(name)
            continue
        if scan.output is not None:
            raise _not_alone(name)
        files = "\n".join(absolute(one) for one in scan.files)
        digest = hashlib.sha256(files.encode()).hexdigest()[:8]
        stem, suffix = _split(name.name)
        found.append(name.with_name(f"{stem}-{digest}{suffix}"))
    if found != names:
        for name, is_alone in zip(found, _alone(found, polygons), strict=True):
            if not is_alone:
                raise _not_alone(name)
    return found


def _output_name(scan: ScanInput) -> PurePath:
    if scan.output is not None:
        place = PurePath(scan.output)
        if place.is_absolute() or ".." in place.parts:
            raise ScanError(f"{place}: lies outside the folder of outputs; expected a name in it")
        return place
    stem, _ = _split(scan.place.name)
    suffix = ".nii.gz" if is_volume_path(scan.name) else ".tif"
    return scan.place.with_name(f"{stem}{suffix}")


def _split(name: str) -> tuple[str, str]:
    for suffix in sorted((*SCENE_SUFFIXES, *VOLUME_SUFFIXES), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def _beside(name: PurePath, polygons: str | None) -> set[str]:
    """Return what may come to stand beside an output, wanted in this run or not."""
    output = Path(name)
    found = {provenance_path(output), *(Layers().path(output, one) for one in LAYERS)}
    found |= {output.with_name(output.name + suffix) for suffix in RASTER_SIDECARS}
    if is_volume_path(name.name):  # names of classes
        found.add(output.with_name(f"{_split(name.name)[0]}.ctbl"))
    if polygons is not None:
        found.add(output.with_name(output.stem + polygons))
    return {_folded(one) for one in found}


def _alone(names: Sequence[PurePath], polygons: str | None) -> list[bool]:
    """Return of each name whether neither it nor what stands beside it is another's."""
    starts = [_start(name) for name in names]
    common = Counter(starts)
    mains: Counter[str] = Counter()
    besides: Counter[str] = Counter()
    close = {}
    for number, name in enumerate(names):
        if common[starts[number]] > 1:  # of a million names these are few
            close[number] = _folded(name), _beside(name, polygons)
            mains[close[number][0]] += 1
            besides.update(close[number][1])
    found = [True] * len(names)
    for number, (main, beside) in close.items():
        others = besides[main] or any(besides[one] > 1 for one in beside)
        found[number] = mains[main] == 1 and not others
    return found


def _start(name: PurePath) -> str:
    """Return the path up to the first dot of the name, which files beside an output share."""
    text = _folded(name)
    folder, separator, last = text.rpartition(os.sep)
    return folder + separator + last.partition(".")[0]


def _not_alone(name: PurePath) -> ScanError:
    return ScanError(
        f"{name}: is the output of two scans, or stands beside the output of another; expected "
        "a name of its own for each"
    )


def _folded(name: PurePath) -> str:
    return str(name).casefold()
