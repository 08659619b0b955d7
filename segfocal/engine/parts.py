"""Parts of one scan for processes that work on it at the same time, without a coordinator.

Part *k of n* is every stretch of finished rows that begins in the k-th of n equal lengths of
the scan, along the axis that it is swept along. Which part a stretch belongs to follows from
the stretch and from n alone; no two processes compute the same one. Tiles that reach over the
border between two parts are run by both.
"""

from __future__ import annotations

import contextlib
import glob
import re
from dataclasses import dataclass
from pathlib import Path

from segfocal.card import Card
from segfocal.engine.assembly import compute_units
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.identified import identified
from segfocal.engine.job import Job
from segfocal.engine.layers import Layers
from segfocal.engine.scratch import ScratchStore, kept_fingerprint, kept_parts
from segfocal.engine.sweep import Progress
from segfocal.errors import GeometryError, OutputError, ScanError, SegfocalError
from segfocal.io.identity import scan_identity
from segfocal.io.labels import Layout
from segfocal.io.pending import PendingOutput
from segfocal.types import Window

__all__ = [
    "Part",
    "clear_parts",
    "compute_part",
    "fingerprint_of_parts",
    "missing_parts",
    "parse_part",
    "part_lock",
]

_OF_COMPUTING = {"the processor", "the inference engine"}
"""What makes no difference to who puts parts together, for nothing is computed."""


@dataclass(frozen=True)
class Part:
    """One of several parts of a scan.

    Attributes:
        number: Which one, from 1 on.
        count: How many there are.
    """

    number: int
    count: int

    @property
    def name(self) -> str:
        """``"3-of-8"``."""
        return f"{self.number}-of-{self.count}"

    def holds(self, window: Window, covered: Window, axis: int) -> bool:
        """Return whether a stretch belongs to this part.

        Args:
            window: The stretch.
            covered: What is segmented.
            axis: The axis that the scan is swept along.
        """
        return self.number == _owner(window, covered, axis, self.count)


def parse_part(text: str | Part) -> Part:
    """Return a part from text such as ``"3/8"``.

    Raises:
        GeometryError: It is no part.
    """
    if isinstance(text, Part):
        return text
    match = re.fullmatch(r"\s*(\d+)\s*(?:/|-of-)\s*(\d+)\s*", str(text))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise GeometryError(f"part {text!r}; expected a number and how many, such as 1/8 to 8/8")
    return Part(int(match[1]), int(match[2]))


def part_lock(destination: Path, part: Part) -> PendingOutput:
    """Return what keeps two processes from computing the same part of an output."""
    return PendingOutput(destination.with_name(f".{destination.name}.part-{part.name}"))


def clear_parts(destination: Path) -> None:
    """Remove what processes that were killed at work on parts of an output have left."""
    locks = destination.with_name(f".{destination.name}.part-").name
    for path in destination.parent.glob(f".{glob.escape(locks)}*.lock"):
        name = path.name[len(locks) + 1 : -len(".lock")]
        with contextlib.suppress(SegfocalError), part_lock(destination, parse_part(name)):
            pass  # what was left goes with the lock; one that is at work keeps it


def compute_part(
    destination: Path,
    job: Job,
    card: Card,
    part: Part,
    *,
    layers: Layers,
    layout: Layout,
    progress: Progress | None,
) -> int:
    """Put the units of a part into the scratch store of an output.

    Returns:
        How many units the part has now, those of earlier runs included.

    Raises:
        ModelError, ScanError, OutputError, MemoryError: See the messages.
    """
    known = identified(destination, job, card, layers, layout)
    if known.run is not None:
        raise ScanError(
            f"{job.scan.name}: nothing tells whether all parts are of the same scan; expected "
            "local files, or an address whose server sends an ETag: or run it as one"
        )
    job, axis = known.job, known.job.scan.slow_axis
    if known.finished() is not None:
        return 0

    def mine(window: Window) -> bool:
        return part.holds(window, job.covered, axis)

    store = ScratchStore(destination, known.fingerprint_of(job), part.name)
    with store:
        try:
            compute_units(job, card, layers, store, progress, only=mine)
            if part.name not in store.complete:
                store.mark_complete()
        except BatchTooLargeError as error:
            raise MemoryError(
                f"{error}; all parts must use the same batch size: choose a smaller one for all"
            ) from error
    if scan_identity(job.scan) != known.source:
        raise ScanError(
            f"{job.scan.name}: changed while it was read; expected a file that stays as it is: run "
            "all parts again"
        )
    return sum(mine(unit.window) for unit in store.units)


def fingerprint_of_parts(destination: Path, fingerprint: Fingerprint) -> Fingerprint:
    """Return the fingerprint that the parts of an output have, which are to be put together.

    Another processor or inference engine may do that than have computed them.

    Raises:
        OutputError: Something else differs. The parts stay.
    """
    there = kept_fingerprint(destination)
    if there is None:
        return fingerprint
    differences = fingerprint.differences(there)
    if {*differences} <= _OF_COMPUTING:
        return Fingerprint(there)
    raise OutputError(
        f"{destination}: its parts are there, but were computed before "
        f"{' and '.join(differences)} changed; assemble with what they were computed with, or "
        "compute all parts again"
    )


def missing_parts(destination: Path, job: Job, store: ScratchStore) -> list[str]:
    """Return the names of the parts that have not put all they should into a store.

    Raises:
        OutputError: Parts of different numbers of parts are there.
    """
    missing = store.missing(job.covered)
    if not missing:
        return []
    counts = {parse_part(name).count for name in kept_parts(destination)}
    if len(counts) > 1:
        numbers = " and of ".join(str(count) for count in sorted(counts))
        raise OutputError(
            f"{destination}: parts of {numbers} are there; expected one number of parts for all"
        )
    count = counts.pop() if counts else 1
    parts = [Part(number, count).name for number in range(1, count + 1)]
    unfinished = [name for name in parts if name not in store.complete]
    if unfinished:
        return unfinished
    # All were there, so units have been lost since.
    axis = job.scan.slow_axis
    owners = {_owner(window, job.covered, axis, count) for window in missing}
    return [Part(number, count).name for number in sorted(owners)]


def _owner(window: Window, covered: Window, axis: int, count: int) -> int:
    first, length = covered[axis].start, covered[axis].stop - covered[axis].start
    return (window[axis].start - first) * count // length + 1
