"""The sweep: every tile of a scan through a predictor, finished rows out.

Tiles go in row-major order along the axis in which the file is laid out slowest. While the
predictor works on one batch, the next is read by another thread. Memory follows from tile,
batch, scan width and number of classes; the length of the scan does not enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend, RowBuffer
from segfocal.engine.predictors import Predictor
from segfocal.engine.tiles import read_tile
from segfocal.errors import ModelError
from segfocal.io.base import Scan
from segfocal.tiling import TileGrid, TileIndex
from segfocal.types import Window, full_window

__all__ = ["FinishedRows", "Progress", "sweep"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FinishedRows:
    """A stretch of finished rows.

    Attributes:
        window: Where it lies in the scan: full width in all axes but the swept one.
        probabilities: ``(*sides, num_classes)``, summing to 1 where a tile contributed.
        valid: ``(*sides,)``.
    """

    window: Window
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass
class _Batch:
    """Tiles in sweep order; those without a valid pixel have no values."""

    order: list[tuple[TileIndex, int | None]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)
    valid: list[NDArray[np.bool_]] = field(default_factory=list)


def sweep(
    scan: Scan,
    predictor: Predictor,
    grid: TileGrid,
    *,
    channels: Sequence[int] | None = None,
    valid_when: str = "all",
    fill: NDArray[np.float32] | None = None,
    blend: Blend = "gaussian",
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Iterator[FinishedRows]:
    """Run a predictor over a scan and yield finished rows in order.

    Args:
        scan: The scan.
        predictor: The model.
        grid: Tiles that cover the scan.
        channels: Indices of the channels that the predictor wants, in its order.
        valid_when: Whether a pixel needs ``"all"`` or ``"any"`` channels valid.
        fill: Value per channel for what is not valid; 0 when left out.
        blend: Weights of overlapping tiles.
        batch_size: Tiles per call; the last batch is padded, so that the predictor sees one
            shape only.
        progress: Called with tiles done and tiles in all. An exception it raises ends the
            sweep: that is how to cancel.

    Yields:
        Stretches that partition the scan. Tiles without a valid pixel are not run; their
        pixels have probability 0 and are not valid.
    """
    axis = scan.slow_axis
    total = len(grid)
    tiles = grid.tiles(axis)
    buffer: RowBuffer | None = None
    row, done = 0, 0

    def read_batch() -> _Batch:
        batch = _Batch()
        # A run of empty tiles must not grow the batch without end.
        for index in islice(tiles, 64):
            values, valid = read_tile(scan, grid, index, channels, valid_when, fill)
            if not valid.any():
                batch.order.append((index, None))
                continue
            batch.order.append((index, len(batch.values)))
            batch.values.append(values)
            batch.valid.append(valid)
            if len(batch.values) == batch_size:
                break
        return batch

    num_channels = len(scan.channels) if channels is None else len(channels)
    with ThreadPoolExecutor(1, thread_name_prefix="segfocal-read") as reader:
        upcoming: Future[_Batch] = reader.submit(read_batch)
        while done < total:
            batch = upcoming.result()
            upcoming = reader.submit(read_batch)
            results = _run(predictor, batch, batch_size, grid.tile, num_channels, buffer is None)
            for index, place in batch.order:
                if buffer is None:
                    assert results is not None
                    buffer = RowBuffer(grid, results.shape[-1], blend, axis)
                if index[axis] != row:
                    yield _finish(buffer, grid, axis)
                    row = index[axis]
                if place is not None:
                    assert results is not None
                    buffer.add(index, results[place], batch.valid[place])
            done += len(batch.order)
            if progress is not None:
                progress(done, total)
        if buffer is not None:
            yield _finish(buffer, grid, axis)


def _run(
    predictor: Predictor,
    batch: _Batch,
    batch_size: int,
    tile: tuple[int, ...],
    num_channels: int,
    needed: bool,
) -> NDArray[np.float32] | None:
    """Run a batch, padded to its full size; an empty one only to learn the classes."""
    if not batch.values and not needed:
        return None
    values = np.zeros((batch_size, *tile, num_channels), np.float32)
    valid = np.zeros((batch_size, *tile), np.bool_)
    for i, (tile_values, tile_valid) in enumerate(zip(batch.values, batch.valid, strict=True)):
        values[i], valid[i] = tile_values, tile_valid
    results = predictor(values, valid)
    for place in range(len(batch.values)):
        if not np.isfinite(results[place][batch.valid[place]]).all():
            raise ModelError(
                "the model returned NaN or infinite probabilities; expected numbers: its "
                "weights or the scan's values overflow"
            )
    return results


def _finish(buffer: RowBuffer, grid: TileGrid, axis: int) -> FinishedRows:
    rows, probabilities, valid = buffer.finish_row()
    window = list(full_window(grid.shape))
    window[axis] = rows
    return FinishedRows(tuple(window), probabilities, valid)
