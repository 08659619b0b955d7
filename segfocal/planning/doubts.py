"""What a plan warns of: that the training split is hard to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segfocal.data.fingerprint import Measurement
from segfocal.data.reading import RegionReader
from segfocal.data.spec import DatasetSpec
from segfocal.planning.course import absent_classes
from segfocal.planning.scale import resolution_doubts

__all__ = ["doubts_of"]


def doubts_of(
    spec: DatasetSpec, readers: Sequence[RegionReader], found: Measurement
) -> Iterator[str]:
    """Yield a line for each thing that makes the training split hard to learn from."""
    by_case = {reader.case.id: reader.resolution for reader in readers}
    sizes = [sides for sides in by_case.values() if sides is not None]
    yield from resolution_doubts(sizes, spec.resolution, spec.ndim)
    # The fingerprint gives a channel without any deviation that of 1.
    flat = [c.name for c in found.channels if c.std == 1 and c.low == c.high == c.mean]
    if flat:
        many = "channels" if len(flat) > 1 else "channel"
        yield (
            f"{many} {', '.join(map(repr, flat))}: one value everywhere in split 'train', from "
            "which nothing can be learned"
        )
    absent = absent_classes(spec, found.fingerprint)
    if absent:
        what, them = ("classes", "them") if len(absent) > 1 else ("class", "it")
        yield (
            f"{what} {', '.join(map(repr, absent))}: no pixel in split 'train', and the model will "
            f"have an output for {them} all the same: take {them} out of the spec, or add cases"
        )
