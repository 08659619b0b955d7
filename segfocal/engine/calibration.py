"""Calibration: the means of a scan that a network with frozen context takes as input.

In a FocalNet the last focal level of each block averages everything the network sees. Tile by
tile that is the tile, and neighbouring tiles differ. With frozen context the average is measured
once over the whole scan, by a streaming pass, and given to every tile: tiles become purely local
functions of the scan, and two tiles agree on the pixels they share.

*One pass* measures all blocks at once while each uses its tile's own means; since a block's
context depends on the blocks before it, the result is an approximation. *Exact* measures block
after block, each with the means of the blocks before it: one pass per block, and with a halo of
the receptive field the result does not depend on the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.memory import is_out_of_memory
from segfocal.engine.sweep import Progress
from segfocal.engine.tiles import read_tile
from segfocal.errors import ModelError
from segfocal.io.base import Scan
from segfocal.quiet import many_models
from segfocal.tiling import TileGrid, TileIndex

__all__ = ["measure_context"]


def measure_context(
    model: Any,
    scan: Scan,
    grid: TileGrid,
    *,
    exact: bool = False,
    channels: Sequence[int] | None = None,
    valid_when: str = "all",
    fill: NDArray[np.float32] | None = None,
    normalize: Callable[[NDArray[np.generic]], NDArray[np.float32]] | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the means of a scan for every block of a model, side by side.

    Args:
        model: A :class:`~segfocal.FocalUNet` with ``global_context="frozen"``.
        scan: The scan.
        grid: Tiles without overlap, so that every pixel is kept by one tile.
        exact: Block by block instead of all in one pass.
        channels, valid_when, fill, normalize: As for :func:`~segfocal.engine.sweep.sweep`.
        batch_size: Tiles per call.
        progress: Called with tiles done and tiles in all; raise in it to cancel.

    Returns:
        ``(context_size,)`` float32: the means of valid positions; 0 where there are none.

    Raises:
        ModelError: A mean is not finite.
        BatchTooLargeError: A batch of several tiles does not fit into memory.
        MemoryError: One tile does not.
    """
    # Keras only where a Keras model is at hand.
    from segfocal.models.context_probe import context_blocks, context_probe

    if any(axis.overlap for axis in grid.axes):
        raise ValueError("the tiles of a calibration overlap; expected an overlap of 0")
    widths = context_blocks(model)
    passes: list[int | None] = [*range(len(widths))] if exact else [None]
    context = np.zeros(0, np.float32)
    for number, known in enumerate(passes):
        probe = context_probe(model, known)
        sums, counts = np.zeros(()), np.zeros(())
        done = number * len(grid)
        for batch in _batches(scan, grid, batch_size, channels, valid_when, fill, normalize):
            if batch.used:
                inputs = {
                    "image": batch.values,
                    "valid": batch.valid,
                    "counted": batch.counted,
                }
                if known:
                    inputs["context"] = np.tile(context, (batch_size, 1))
                found = _run(probe, inputs)
                # In float64: a scan has more positions than float32 can count.
                sums = sums + np.asarray(found["sums"], np.float64)[: batch.used].sum(0)
                counts = counts + np.asarray(found["counts"], np.float64)[: batch.used].sum(0)
            done += batch.tiles
            if progress is not None:
                progress(done, len(passes) * len(grid))
        width = widths if known is None else [widths[known]]
        means = np.broadcast_to(sums, (sum(width),)) / np.maximum(
            np.repeat(np.broadcast_to(counts, (len(width),)), width), 1.0
        )
        context = np.concatenate([context, means.astype(np.float32)])
    if not np.isfinite(context).all():
        raise ModelError(
            "the means of the scan are not finite; expected numbers: the model's weights or the "
            "scan's values overflow"
        )
    return context


def _run(probe: Any, inputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    try:
        with many_models():
            return probe.predict_on_batch(inputs)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size, *tile = inputs["valid"].shape
        sides = " x ".join(str(side) for side in tile)
        if size == 1:
            raise MemoryError(f"one tile of {sides} does not fit") from error
        raise BatchTooLargeError(f"{size} tiles of {sides} do not fit") from error


@dataclass
class _Batch:
    """Tiles with something to count; what is beyond the used ones is not counted."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    used: int = 0
    tiles: int = 0


def _batches(
    scan: Scan,
    grid: TileGrid,
    batch_size: int,
    channels: Sequence[int] | None,
    valid_when: str,
    fill: NDArray[np.float32] | None,
    normalize: Callable[[NDArray[np.generic]], NDArray[np.float32]] | None,
) -> Iterator[_Batch]:
    num_channels = len(scan.channels) if channels is None else len(channels)
    shape = (batch_size, *grid.tile)

    def empty() -> _Batch:
        values = np.zeros((*shape, num_channels), np.float32)
        return _Batch(values, np.zeros(shape, np.bool_), np.zeros(shape, np.bool_))

    batch = empty()
    for index in grid.tiles(scan.slow_axis):
        values, valid = read_tile(scan, grid, index, channels, valid_when, fill, normalize)
        kept = _kept(grid, index) & valid
        batch.tiles += 1
        if kept.any():
            place = batch.used
            batch.values[place], batch.valid[place], batch.counted[place] = values, valid, kept
            batch.used += 1
        if batch.used == batch_size:
            yield batch
            batch = empty()
    yield batch


def _kept(grid: TileGrid, index: TileIndex) -> NDArray[np.bool_]:
    """Return which pixels of a tile are kept and lie in the scan, ``(*tile,)``."""
    kept = np.zeros(grid.tile, np.bool_)
    kept[tuple(axis.inner_slice(k) for axis, k in zip(grid.axes, index, strict=True))] = True
    return kept
