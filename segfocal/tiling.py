"""The tile grid: which pixels each tile reads and which of its pixels are kept.

One axis first, then the product of axes. Along an axis of ``size`` pixels::

    tile 0   |halo|<------- kept ------->|halo|
    tile 1                |halo|<------- kept ------->|halo|
                               |overlap |
             |    |<- stride ->|

* *tile*: pixels that the network sees, halo included.
* *halo*: border that is computed and dropped.
* *kept* = tile - 2·halo: the part of a tile that reaches the output.
* *overlap*: pixels in which the kept parts of neighbouring tiles are blended.
* *stride* = kept - overlap.

The grid is anchored at pixel 0: kept part k starts at k·stride. Where a tile reaches over
the border of the scan, pixels are mirrored at the border (``d c b | a b c d | c b a``), over
and over when the scan is smaller than the halo.

Stride, halo and tile are multiples of the network's output_stride, so that every tile meets
the network's downsampling in the same phase as the whole scan would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import GeometryError
from segfocal.types import Window

__all__ = ["AxisGrid", "TileGrid", "TileIndex", "mirror"]

TileIndex = tuple[int, ...]


@dataclass(frozen=True)
class AxisGrid:
    """Tiles along one axis.

    Attributes:
        size: Pixels of the scan along this axis.
        tile: Pixels that the network sees.
        halo: Pixels dropped at each side of a tile.
        overlap: Pixels shared by the kept parts of neighbouring tiles.

    Raises:
        GeometryError: A number is out of range, or nothing of a tile is kept.
    """

    size: int
    tile: int
    halo: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.tile < 1 or self.halo < 0 or self.overlap < 0:
            raise GeometryError(
                f"size {self.size}, tile {self.tile}, halo {self.halo}, overlap {self.overlap}: "
                "expected size and tile >= 1, halo and overlap >= 0"
            )
        if self.stride < 1:
            raise GeometryError(
                f"tile {self.tile} minus 2 x halo {self.halo} minus overlap {self.overlap} leaves "
                f"a stride of {self.stride}; expected at least 1: use a larger tile or less overlap"
            )

    @property
    def kept(self) -> int:
        """Pixels of a tile that reach the output."""
        return self.tile - 2 * self.halo

    @property
    def stride(self) -> int:
        """Distance between the starts of neighbouring tiles."""
        return self.kept - self.overlap

    @property
    def count(self) -> int:
        """Number of tiles: the fewest whose kept parts cover the axis."""
        return max(1, math.ceil((self.size - self.overlap) / self.stride))

    def kept_slice(self, k: int) -> slice:
        """Return the scan's pixels that tile ``k`` contributes to, clipped to the scan."""
        start = k * self.stride
        return slice(start, min(start + self.kept, self.size))

    def final_slice(self, k: int) -> slice:
        """Return the pixels that are complete once tiles 0..k are added and k-1's were not."""
        stop = self.size if k == self.count - 1 else (k + 1) * self.stride
        return slice(k * self.stride, stop)

    def inner_slice(self, k: int) -> slice:
        """Return where the pixels of ``kept_slice(k)`` lie inside tile ``k``."""
        kept = self.kept_slice(k)
        return slice(self.halo, self.halo + kept.stop - kept.start)

    def touching(self, pixels: slice) -> range:
        """Return the tiles that contribute to a non-empty stretch of pixels."""
        first = max(0, (pixels.start - self.kept) // self.stride + 1)
        return range(first, min(self.count - 1, (pixels.stop - 1) // self.stride) + 1)

    def source(self, k: int) -> NDArray[np.intp]:
        """Return, for each of the tile's pixels, the scan's pixel it shows (mirrored)."""
        start = k * self.stride - self.halo
        return mirror(np.arange(start, start + self.tile), self.size)


def mirror(positions: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Fold positions outside ``0 .. size - 1`` back by reflection without repeating the edge.

    The same as ``numpy.pad(mode="reflect")``, for any distance.
    """
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = np.mod(positions, period)
    return np.where(folded < size, folded, period - folded)


@dataclass(frozen=True)
class TileGrid:
    """Product of one :class:`AxisGrid` per spatial axis."""

    axes: tuple[AxisGrid, ...]

    @classmethod
    def cover(
        cls,
        shape: Sequence[int],
        tile: Sequence[int],
        *,
        halo: int | Sequence[int] = 0,
        overlap: int | Sequence[int] = 0,
        output_stride: int | Sequence[int] = 1,
    ) -> TileGrid:
        """Return the grid that covers a scan.

        Args:
            shape: Spatial shape of the scan in pixels.
            tile: Side lengths of a tile in pixels.
            halo: Pixels dropped at each side, for all axes or one number per axis.
            overlap: Pixels blended between neighbours, for all axes or one number per axis.
            output_stride: Total downsampling of the network, for all axes or per axis.

        Raises:
            GeometryError: Lengths differ, or tile, halo or stride are no multiples of
                ``output_stride``.
        """
        ndim = len(shape)
        halos = (halo,) * ndim if isinstance(halo, int) else tuple(halo)
        overlaps = (overlap,) * ndim if isinstance(overlap, int) else tuple(overlap)
        if not len(tile) == len(halos) == len(overlaps) == ndim:
            raise GeometryError(
                f"tile {tuple(tile)}, halo {halos}, overlap {overlaps}: expected {ndim} numbers "
                f"each, one per axis of shape {tuple(shape)}"
            )
        axes = tuple(itertools.starmap(AxisGrid, zip(shape, tile, halos, overlaps, strict=True)))
        strides = (output_stride,) * ndim if isinstance(output_stride, int) else output_stride
        for axis, stride in zip(axes, strides, strict=True):
            for what in ("tile", "halo", "stride"):
                if getattr(axis, what) % stride:
                    raise GeometryError(
                        f"{what} {getattr(axis, what)} is no multiple of the network's "
                        f"output_stride {stride} (tile {axis.tile}, halo {axis.halo}, "
                        f"overlap {axis.overlap}): choose multiples of {stride}"
                    )
        return cls(axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the scan."""
        return tuple(axis.size for axis in self.axes)

    @property
    def tile(self) -> tuple[int, ...]:
        """Side lengths of a tile."""
        return tuple(axis.tile for axis in self.axes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(axis.count for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def touching(self, window: Window) -> tuple[range, ...]:
        """Return per axis the tiles that contribute to a window."""
        return tuple(axis.touching(side) for axis, side in zip(self.axes, window, strict=True))

    def tiles(
        self, sweep_axis: int = 0, among: Sequence[range] | None = None
    ) -> Iterator[TileIndex]:
        """Yield tile indices, ``sweep_axis`` outermost and the others in row-major order.

        Args:
            sweep_axis: The axis that changes last.
            among: Per axis the tiles wanted; all when left out.
        """
        ranges = [range(count) for count in self.counts] if among is None else list(among)
        rows = ranges.pop(sweep_axis)
        for k in rows:
            for rest in itertools.product(*ranges):
                yield (*rest[:sweep_axis], k, *rest[sweep_axis:])

    def kept_window(self, index: TileIndex) -> Window:
        """Return the scan's window that a tile contributes to."""
        return tuple(axis.kept_slice(k) for axis, k in zip(self.axes, index, strict=True))

    def inner_window(self, index: TileIndex) -> Window:
        """Return where the kept window lies inside the tile."""
        return tuple(axis.inner_slice(k) for axis, k in zip(self.axes, index, strict=True))

    def sources(self, index: TileIndex) -> tuple[NDArray[np.intp], ...]:
        """Return per axis the scan's pixels that the tile shows, mirrored at borders."""
        return tuple(axis.source(k) for axis, k in zip(self.axes, index, strict=True))
