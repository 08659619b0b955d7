"""Parts of one scan for processes that work on it at the same time, without a coordinator.

Part *k of n* is every stretch of finished rows that begins in the k-th of n areas of the scan
(:mod:`segfocal.engine.part_layout`); of a resampled scan, it is that area. What belongs to which
part follows from the scan, its tiles and n alone; no two processes compute the same stretch. Tiles
that reach over the border between two parts are run by both.
"""

from __future__ import annotations

import contextlib
import glob
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segfocal.card import Card
from segfocal.engine.assembly import compute_units
from segfocal.engine.fellow_parts import is_redone, strange_part
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.identified import identified
from segfocal.engine.job import Job
from segfocal.engine.layers import Layers
from segfocal.engine.part_layout import lay_out
from segfocal.engine.scratch import ScratchStore, kept_fingerprint, kept_parts
from segfocal.engine.sweep import Progress
from segfocal.errors import (
    GeometryError,
    OutputError,
    ScanError,
    SegfocalError,
    SegfocalWarning,
)
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

    @property
    def text(self) -> str:
        """``"3/8"``."""
        return f"{self.number}/{self.count}"


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
    note: Callable[[], None],
    tell: Callable[[str], None],
    restart: bool = False,
) -> int:
    """Put the units of a part into the scratch store of an output.

    Args:
        destination: The output.
        job, card, layers, layout, progress: See :func:`segfocal.engine.output.produce`.
        part: Which part.
        note: Called when all is there, before other processes can see that it is.
        tell: Called with a line of text when units of this part are there already.
        restart: The caller computes all parts: those of something else are no matter.

    Returns:
        How many units the part has now, those of earlier runs included.

    Raises:
        OutputError: Another part was computed with something else.
        ModelError, ScanError, MemoryError: See the messages.

    Warns:
        SegfocalWarning: The same, where this part replaces an older one: they may follow.
    """
    known = identified(destination, job, card, layers, layout)
    if known.run is not None:
        raise ScanError(
            f"{job.scan.name}: nothing tells whether all parts are of the same scan; expected "
            "local files, or an address whose server sends an ETag: or run it as one"
        )
    job = known.job
    if known.finished() is not None:
        return 0

    areas, axis = lay_out(job, part.count), job.scan.slow_axis
    # Rows that tiles finish begin in one part and may end in another; of a resampled scan, they
    # are finished in any number, up to the border.
    exact = job.resampled is not None
    area = areas.area(part.number) if exact else areas.column(part.number)

    def mine(window: Window) -> bool:
        return part.number in areas.owners(window)

    fingerprint = known.fingerprint_of(job)
    redone = restart or is_redone(destination, part.name, fingerprint)
    if not redone:  # found now, and not when everything has been computed
        _refuse_stranger(destination, part, fingerprint)
    store = ScratchStore(destination, fingerprint, part.name)
    with store:
        kept = sum(mine(unit.window) for unit in store.units)
        if kept:
            tell(f"{destination}: part {part.name} continues with {kept} units kept")
        try:
            if area[axis].start < area[axis].stop:
                compute_units(job, card, layers, store, progress, only=mine, within=area)
            note()
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
    if not redone:  # of two that were at work at once, the later one finds the other
        _refuse_stranger(destination, part, fingerprint)
    elif not restart and (strange := strange_part(destination, part.name, fingerprint)):
        text = f"{destination}: {strange}; run that one again too"
        warnings.warn(text, SegfocalWarning, stacklevel=3)
    return sum(mine(unit.window) for unit in store.units)


def _refuse_stranger(destination: Path, part: Part, fingerprint: Fingerprint) -> None:
    strange = strange_part(destination, part.name, fingerprint)
    if strange:
        raise OutputError(
            f"{destination}: {strange}; expected the same for all parts: run part {part.name} with "
            "what that one was computed with, or that one again with this"
        )


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
    areas = lay_out(job, count)
    owners = {number for window in missing for number in areas.owners(window)}
    return [Part(number, count).name for number in sorted(owners)]
