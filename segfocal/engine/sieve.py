"""The sieve: components smaller than a number of pixels take the value of a neighbour.

The result is that of GDAL's ``GDALSieveFilter`` with 4-connectivity, as ``gdal_sieve.py`` and
``rasterio.features.sieve`` have it: each small component goes to its largest neighbour (of
equally large ones, the first met row by row, above before left), or, where that is small too,
to that one's largest neighbour, and so on; where no chain ends in a large component, nothing
changes. Pixels without data are no neighbours and stay.

GDAL holds the whole map; here it is read by strips, three times, and memory holds one strip
and a table of the components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segfocal.components import ComponentTable, label_strip, survey
from segfocal.engine.areas import pixels_of_area
from segfocal.engine.label_map import LabelMap
from segfocal.errors import OutputError
from segfocal.io.base import Scan

__all__ = ["Sieve", "sieve_of"]

TABLE_BYTES = 64
"""Memory per component, at the peak."""

_LARGEST_SIZE = 2**31 - 1  # what GDAL counts up to


@dataclass(frozen=True)
class Sieve:
    """A step of cleaning; see :class:`~segfocal.engine.cleaning.Cleaning`.

    Attributes:
        min_pixels: Components of fewer pixels are merged.
    """

    min_pixels: int
    name = "sieve"

    @property
    def parameters(self) -> dict[str, int]:
        """What the result follows from."""
        return {"min_pixels": self.min_pixels}

    def __call__(self, labels: LabelMap) -> None:
        """Sieve a label map of two axes in place.

        Raises:
            OutputError: There are more components than ``max_memory`` holds a table of.
        """
        table = survey(
            (labels.read(window) for window in labels.strips()),
            labels.nodata,
            lambda count: _check_memory(labels, count),
        )
        table = replace(table, sizes=np.minimum(table.sizes, _LARGEST_SIZE))
        largest = _largest_neighbours(labels, table, self.min_pixels)
        target = _follow(largest, table.sizes >= self.min_pixels)
        values = table.values[target].astype(labels.dtype)
        for index, window in enumerate(labels.strips()):
            strip = labels.read(window)
            of = table.of_strip(index, label_strip(strip, labels.nodata))
            labels.write(window, values[of])


def sieve_of(min_size: int | str, scan: Scan) -> Sieve:
    """Return the sieve for a minimum size in pixels, or an area such as ``"0.5ha"``.

    Raises:
        OutputError: It is no size, or the scan is a volume.
    """
    if len(scan.shape) != 2:
        raise OutputError(
            f"min_size {min_size!r}: {scan.name} is a volume; expected a scene (GDAL's sieve "
            "knows two axes)"
        )
    return Sieve(pixels_of_area(min_size, scan, "min_size"))


def _check_memory(labels: LabelMap, components: int) -> None:
    needed = components * TABLE_BYTES
    if labels.max_memory is not None and needed > labels.max_memory:
        raise OutputError(
            f"the label map has at least {components} connected pieces, a table of which takes "
            f"{needed / 1e6:.0f} MB for the minimum size, with max_memory "
            f"{labels.max_memory / 1e6:.0f} MB; raise max_memory or leave the minimum size out"
        )


def _largest_neighbours(
    labels: LabelMap, table: ComponentTable, min_pixels: int
) -> NDArray[np.int64]:
    """Return the largest neighbour of each small component, 0 where there is none."""
    largest = np.zeros(len(table.sizes), np.int64)
    above: NDArray[np.int64] | None = None
    for index, window in enumerate(labels.strips()):
        of = table.of_strip(index, label_strip(labels.read(window), labels.nodata))
        rows = of if above is None else np.concatenate([above[None], of])
        place = np.arange(2 * rows.size, dtype=np.int64).reshape(*rows.shape, 2)
        pairs = [  # (component, its neighbour, place in GDAL's order: above before left)
            (rows[1:], rows[:-1], place[1:, :, 0]),
            (rows[:-1], rows[1:], place[1:, :, 0]),
            (of[:, 1:], of[:, :-1], place[-len(of) :, 1:, 1]),
            (of[:, :-1], of[:, 1:], place[-len(of) :, 1:, 1]),
        ]
        chosen = [_of_small(*pair, table.sizes, min_pixels) for pair in pairs]
        small, beside, order = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
        _keep_largest(largest, small, beside, order, table.sizes)
        above = of[-1]
    return largest


def _of_small(
    component: NDArray[np.int64],
    beside: NDArray[np.int64],
    place: NDArray[np.int64],
    sizes: NDArray[np.int64],
    min_pixels: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    wanted = (component != beside) & (component > 0) & (beside > 0)
    wanted[wanted] = sizes[component[wanted]] < min_pixels
    return component[wanted], beside[wanted], place[wanted]


def _keep_largest(
    largest: NDArray[np.int64],
    small: NDArray[np.int64],
    beside: NDArray[np.int64],
    order: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    """Take over neighbours of a strip that are larger than those of the strips before."""
    if not len(small):
        return
    found, place = np.unique(small, return_inverse=True)
    before = sizes[largest[found]]  # 0 for none
    best = np.zeros(len(found), np.int64)
    np.maximum.at(best, place, sizes[beside])
    among = sizes[beside] == best[place]
    first = np.full(len(found), np.iinfo(np.int64).max)
    np.minimum.at(first, place[among], order[among])
    winner = among & (order == first[place]) & (best > before)[place]
    largest[small[winner]] = beside[winner]


def _follow(largest: NDArray[np.int64], large: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the large component that the chain from each component ends in, else itself."""
    itself = np.arange(len(largest))
    target = np.where(large | (largest == 0), itself, largest)
    for _ in range(len(largest).bit_length() + 1):  # each turn doubles the length of the chain
        further = target[target]
        if np.array_equal(further, target):
            break
        target = further
    return np.where(large[target], target, itself)
