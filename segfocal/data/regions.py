"""Regions: the boxes of cases that make up a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

from pydantic import Field

from segfocal.data.cases import Name
from segfocal.data.document import Entry
from segfocal.errors import SpecError
from segfocal.types import Window

__all__ = ["AXIS_NAMES", "Region", "Spans", "refuse_shared_pixels"]

AXIS_NAMES = {2: ("rows", "cols"), 3: ("planes", "rows", "cols")}
"""Keys by which a region names the spatial axes, in axis order."""

Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]]


class Spans(Entry):
    """A box: ``[start, stop]`` in pixels of the canonical orientation for each axis.

    An axis that is left out is taken whole. For volumes ``planes``, ``rows`` and ``cols`` are
    the first, second and third axis of the spec's orientation.
    """

    planes: Span | None = None
    rows: Span | None = None
    cols: Span | None = None


class Region(Spans):
    """A case, or a box of it, that belongs to a split."""

    case: Name

    def window(self, shape: tuple[int, ...]) -> Window:
        """Return the region as a window of a scan of spatial shape ``shape``.

        Raises:
            SpecError: The region reaches outside the scan.
        """
        sides = []
        for axis, length in zip(AXIS_NAMES[len(shape)], shape, strict=True):
            start, stop = getattr(self, axis) or (0, length)
            if not start < stop <= length:
                raise SpecError(
                    f"case {self.case!r}: {axis} [{start}, {stop}] is not inside the scan, "
                    f"which has {length} {axis}"
                )
            sides.append(slice(start, stop))
        return tuple(sides)


def refuse_shared_pixels(
    splits: Mapping[str, Iterable[Region]], ndim: int, files_of: Callable[[str], Iterable[str]]
) -> None:
    """Refuse a pixel that would be in two splits: scores on it would be leakage.

    Args:
        splits: Regions by the name of their split.
        ndim: Number of spatial axes.
        files_of: The image files of a case: two cases may name the same.

    Raises:
        ValueError: Two regions of different splits share a pixel of a file.
    """
    axes = AXIS_NAMES[ndim]
    by_file: dict[str, list[tuple[str, Region]]] = defaultdict(list)
    for split, regions in splits.items():
        for region in regions:
            for file in dict.fromkeys(files_of(region.case)):
                by_file[file].append((split, region))
    for entries in by_file.values():
        if len({split for split, _ in entries}) < 2:
            continue
        for i, (split, region) in enumerate(entries):
            for other_split, other in entries[i + 1 :]:
                if split != other_split and not _apart(region, other, axes):
                    raise ValueError(
                        f"splits {split!r} and {other_split!r} share pixels of case "
                        f"{region.case!r}; give them disjoint {' or '.join(axes)}"
                    )


def _apart(region: Region, other: Region, axes: tuple[str, ...]) -> bool:
    return any(
        a is not None and b is not None and (a[1] <= b[0] or b[1] <= a[0])
        for a, b in ((getattr(region, axis), getattr(other, axis)) for axis in axes)
    )
