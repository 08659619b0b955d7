"""Shards of a list of scans: what each of several processes does, without a coordinator.

Which shard a scan belongs to follows from the list and from the sizes of all scans in it, which
every process reads from the headers. Large scans are dealt out first, each to the shard that has
the fewest pixels. One that is larger than a fair share, and long enough, is dealt out in parts.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.engine import part_layout
from segfocal.engine.parts import Part
from segfocal.errors import SegfocalWarning
from segfocal.io import open_scan
from segfocal.io.formats import is_local_path
from segfocal.scan_lists import ScanInput

__all__ = [
    "ScanSize",
    "Share",
    "describe_shard",
    "divide",
    "measure",
    "summary_name",
    "warn_of_other_list",
]


@dataclass(frozen=True)
class ScanSize:
    """How large a scan is.

    Attributes:
        pixels: How many it has.
        parts: How many it may be divided into.
    """

    pixels: int
    parts: int = 1


@dataclass(frozen=True)
class Share:
    """What a shard has of a scan.

    Attributes:
        scan: Number of the scan in the list.
        part: Which part; None: all of it.
    """

    scan: int
    part: Part | None = None


def divide(sizes: Sequence[ScanSize | None], count: int) -> list[list[Share]]:
    """Deal out scans to shards.

    Args:
        sizes: Of each scan; None where it cannot be read: it is taken for one of mean size, and
            fails in the shard that it comes to.
        count: How many shards there are.

    Returns:
        Per shard what it has, in the order of the list.
    """
    known = [size.pixels for size in sizes if size is not None]
    mean = max(1, sum(known) // max(1, len(known)))
    taken = [size or ScanSize(mean) for size in sizes]
    fair = max(1.0, sum(size.pixels for size in taken) / count)
    loads = [0.0] * count
    shares: list[list[Share]] = [[] for _ in range(count)]
    for scan in sorted(range(len(taken)), key=lambda scan: (-taken[scan].pixels, scan)):
        size = taken[scan]
        parts = max(1, min(count, size.parts, math.ceil(size.pixels / fair)))
        least = sorted(range(count), key=lambda shard: (loads[shard], shard))[:parts]
        for number, shard in enumerate(least, 1):
            loads[shard] += size.pixels / parts
            shares[shard].append(Share(scan, Part(number, parts) if parts > 1 else None))
    return [sorted(some, key=lambda share: share.scan) for some in shares]


def measure(scan: ScanInput) -> ScanSize | None:
    """Return the size of a scan by its header; None where it cannot be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=SegfocalWarning),
            open_scan(scan.source) as opened,
        ):
            # Volumes are never so long.
            length = max(opened.shape) if len(opened.shape) == 2 else 0
            # Of what has no checksum and no time, nothing tells whether all parts are of it.
            divisible = all(is_local_path(name) for name in scan.files)
            parts = length // part_layout.REGION_PIXELS if divisible else 1
            return ScanSize(math.prod(opened.shape), max(1, parts))
    except Exception:  # whatever it is, segmenting it tells
        return None


def summary_name(name: str, shard: Part) -> str:
    """Return the name of a shard's summary: ``summary.3-of-8.json`` for ``summary.json``."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{shard.name}.{suffix}"


def describe_shard(
    shard: Part, outputs: Sequence[str], sizes: Sequence[ScanSize | None]
) -> dict[str, Any]:
    """Return, as a JSON value, which shard of which list a run does.

    Args:
        shard: Which one.
        outputs: Names of the outputs of all scans, the same wherever the folder is mounted.
        sizes: Of all scans, which also tell who has which.
    """
    digest = hashlib.sha256()
    for name, size in zip(outputs, sizes, strict=True):
        known = "unreadable" if size is None else f"{size.pixels} {size.parts}"
        digest.update(os.fsencode(f"{name}\0{known}\n"))
    return {"shard": shard.name, "scans": len(outputs), "list_sha256": digest.hexdigest()}


def warn_of_other_list(summary: Path, shard: Part, described: Mapping[str, Any]) -> None:
    """Warn when another shard of as many did its share of another list.

    Args:
        summary: Where the summary of all would be; those of shards are beside it.
        shard: The one that is done now.
        described: Its list, see :func:`describe_shard`.

    Warns:
        SegfocalWarning: It did; once, of the first of them.
    """
    for number in range(1, shard.count + 1):
        if number == shard.number:
            continue
        path = summary.with_name(summary_name(summary.name, Part(number, shard.count)))
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["run"]["list"]
            same = there["list_sha256"] == described["list_sha256"]
            scans = there["scans"]
        except (OSError, ValueError, KeyError, TypeError):  # none, or of an older version
            continue
        if not same:
            here = described["scans"]
            lists = f"{scans} scans, not {here}" if scans != here else "other names or sizes"
            warnings.warn(
                f"{path}: is of another list ({lists}): scans may be left out; run all shards with "
                "the same list, or once without --shard",
                SegfocalWarning,
                stacklevel=3,
            )
            return
