"""Regions: the boxes of cases that make up a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
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
        shared = _sharing(entries, axes)
        if shared is not None:
            (split, region), (other, _) = shared
            raise ValueError(
                f"splits {split!r} and {other!r} share pixels of case {region.case!r}; give them "
                f"disjoint {' or '.join(axes)}"
            )


def _sharing(
    entries: Sequence[tuple[str, Region]], axes: tuple[str, ...]
) -> tuple[tuple[str, Region], tuple[str, Region]] | None:
    """Return two regions of different splits that share a pixel, if there are such.

    Scenes divided into blocks have many thousands: those are compared that meet along the first
    axis that tells them apart.
    """
    everything = (-np.inf, np.inf)
    spans = np.array(
        [[getattr(region, axis) or everything for axis in axes] for _, region in entries]
    )
    splits = np.unique([split for split, _ in entries], return_inverse=True)[1]
    finite = np.isfinite(spans).all((0, 2))
    axis = int(np.argmax(finite))
    order = np.argsort(spans[:, axis, 0], kind="stable")
    spans, splits = spans[order], splits[order]
    ends = np.searchsorted(spans[:, axis, 0], spans[:, axis, 1], side="left")
    found = []
    for place, end in enumerate(ends.tolist()):
        others = slice(place + 1, end)
        low, high = spans[others, :, 0], spans[others, :, 1]
        meets = (low < spans[place, :, 1]) & (high > spans[place, :, 0])
        meets = meets.all(-1) & (splits[others] != splits[place])
        if meets.any():
            other = order[place + 1 + int(np.argmax(meets))]
            found.append(tuple(sorted((int(order[place]), int(other)))))
    if not found:
        return None
    one, other = min(found)
    return entries[one], entries[other]
