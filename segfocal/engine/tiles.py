"""Reading the tiles of a grid from a scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.data.channels import usable_pixels
from segfocal.io.base import Scan
from segfocal.tiling import TileGrid, TileIndex

__all__ = ["read_tile"]


def read_tile(
    scan: Scan,
    grid: TileGrid,
    index: TileIndex,
    channels: Sequence[int] | None = None,
    valid_when: str = "all",
    fill: NDArray[np.float32] | None = None,
    normalize: Callable[[NDArray[np.generic]], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read one tile, mirrored where it reaches over the border of the scan.

    Args:
        scan: The scan.
        grid: The tile grid.
        index: Which tile.
        channels: Indices of the channels to read, in order.
        valid_when: Whether a pixel needs ``"all"`` or ``"any"`` channels valid.
        fill: Value per channel for what is not valid; 0 when left out.
        normalize: Applied to what is read, before that.

    Returns:
        Values ``(*tile, channels)`` and valid ``(*tile,)``. What is valid at a mirrored pixel
        is what is valid at the pixel it shows.
    """
    sources = grid.sources(index)
    first = [int(source.min()) for source in sources]
    window = tuple(
        slice(start, int(source.max()) + 1) for start, source in zip(first, sources, strict=True)
    )
    patch = scan.read(window, channels)
    values = patch.values if normalize is None else normalize(patch.values)
    values = np.where(patch.valid, values, np.float32(0) if fill is None else fill)
    with np.errstate(over="ignore"):  # found as not finite in what the model returns
        values = values.astype(np.float32, copy=False)
    valid = usable_pixels(patch, valid_when)
    places = [source - start for source, start in zip(sources, first, strict=True)]
    # Not by the shape: a tile of two rows of which one is mirrored is as high as its window.
    if not all(np.array_equal(place, np.arange(len(place))) for place in places):
        pick = np.ix_(*places)
        values, valid = values[pick], valid[pick]
    return values, valid
