"""The sweep: tiles of a scan through a predictor, finished rows out.

Tiles go in row-major order along the axis in which the file is laid out slowest, one column
strip after the other. While the predictor works on one batch, the next is read by another
thread; and where the predictor may run in a thread of its own, the results of the batch before
are blended and written meanwhile. Memory follows from tile, batch, strip width and number of
classes; the length of the scan does not enter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend, RowBuffer
from segfocal.engine.forward import Forward
from segfocal.engine.predictors import Predictor
from segfocal.engine.runs import Run, plan_runs
from segfocal.engine.tiles import read_tile
from segfocal.io.base import Scan
from segfocal.tiling import TileGrid, TileIndex
from segfocal.types import Window, full_window, overlap_of

__all__ = ["FinishedRows", "Progress", "Stretches", "sweep"]

Progress = Callable[[int, int], None]

PLANNED_AT_ONCE = 100_000
"""Stretches that are planned in well under a second."""


@dataclass(frozen=True)
class FinishedRows:
    """A stretch of finished rows.

    Attributes:
        window: Where it lies in the scan: as wide as the strip in all axes but the swept one.
        probabilities: ``(*sides, num_classes)``, summing to 1 where a tile contributed.
        valid: ``(*sides,)``.
    """

    window: Window
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


# What is not read to its end is to be closed: a thread reads ahead for it.
Stretches = Generator[FinishedRows, None, None]


class _Task(NamedTuple):
    """A tile of a run."""

    run: Run
    tile: TileIndex


@dataclass
class _Batch:
    """Tiles in sweep order; those without a valid pixel have no values."""

    order: list[tuple[_Task, int | None]] = field(default_factory=list)
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
    normalize: Callable[[NDArray[np.generic]], NDArray[np.float32]] | None = None,
    blend: Blend = "gaussian",
    batch_size: int = 4,
    shrink: bool = True,
    strips: Sequence[Window] | None = None,
    wanted: Callable[[Window], bool] | None = None,
    needed: Callable[[Window], bool] | None = None,
    progress: Progress | None = None,
) -> Stretches:
    """Run a predictor over a scan and yield finished rows in order.

    Args:
        scan: The scan.
        predictor: The model.
        grid: Tiles that cover the scan.
        channels: Indices of the channels that the predictor wants, in its order.
        valid_when: Whether a pixel needs ``"all"`` or ``"any"`` channels valid.
        fill: Value per channel for what is not valid; 0 when left out.
        normalize: Applied to what is read, before that.
        blend: Weights of overlapping tiles.
        batch_size: Tiles per call; the last batch is padded, so that the predictor sees one
            shape only.
        shrink: Go on with half the batch when it does not fit into memory.
        strips: Windows that partition what is swept, the scan or a region of it; along the
            swept axis each is all of it. Each is swept on its own: less memory, and tiles at
            the seams are run twice. The whole scan when left out. They make no difference to
            the result.
        wanted: Whether a stretch is to be computed; all are when left out.
        needed: Whether anything in a window is needed; a tile is not run where nothing is
            needed of what it contributes. All is when left out.
        progress: Called with tiles done and tiles in all, where tiles that need not run count
            as done. An exception it raises ends the sweep: that is how to cancel.

    Yields:
        The stretches that are wanted; without ``wanted`` they partition the strips. Tiles
        without a valid pixel are not run; their pixels have probability 0 and are not valid.

    Raises:
        ModelError, MemoryError: See :class:`~segfocal.engine.forward.Forward`.
    """
    axis = scan.slow_axis
    num_channels = len(scan.channels) if channels is None else len(channels)
    forward = Forward(predictor, grid.tile, num_channels, batch_size, shrink=shrink)
    strips = [full_window(grid.shape)] if strips is None else strips
    if grid.axes[axis].count * len(strips) > PLANNED_AT_ONCE:
        # A header may claim any size: what cannot be read is told before the plan is made.
        scan.read(tuple(slice(0, 1) for _ in grid.shape), channels)
    runs = plan_runs(grid, axis, strips, wanted)
    todo = sum(len(run) for run in runs)
    total = max(todo, sum(len(run) for run in plan_runs(grid, axis, strips)))
    done = total - todo
    if progress is not None and done:
        progress(done, total)
    tasks = (_Task(run, index) for run in runs for index in run.tiles(grid, axis))

    def read_batch() -> _Batch:
        batch = _Batch()
        # A run of empty tiles must not grow the batch without end.
        for task in islice(tasks, 64):
            if needed is not None and not needed(_contribution(grid, task)):
                batch.order.append((task, None))
                continue
            values, valid = read_tile(scan, grid, task.tile, channels, valid_when, fill, normalize)
            if not valid.any():
                batch.order.append((task, None))
                continue
            batch.order.append((task, len(batch.values)))
            batch.values.append(values)
            batch.valid.append(valid)
            if len(batch.values) >= forward.batch_size:
                break
        return batch

    num_classes: int | None = None
    current: Run | None = None
    buffer: RowBuffer | None = None
    beside = getattr(predictor, "any_thread", False)
    batches = _computed(read_batch, forward, todo, beside=beside)
    with closing(batches):
        for batch, results in batches:
            if num_classes is None:
                num_classes = results[0].shape[-1] if results else forward.num_classes()
            for (run, index), place in batch.order:
                if buffer is not None and (run is not current or index[axis] != buffer.row):
                    assert current is not None
                    yield from _finish(buffer, current, axis)
                if buffer is None or run is not current:
                    first = run.among[axis].start
                    buffer = RowBuffer(
                        grid, num_classes, blend, axis, window=run.strip, first_row=first
                    )
                    current = run
                if place is not None:
                    buffer.add(index, results[place], batch.valid[place])
            done += len(batch.order)
            if progress is not None:
                progress(done, total)
        if buffer is not None and current is not None:
            yield from _finish(buffer, current, axis)


def _computed(
    read_batch: Callable[[], _Batch], forward: Forward, todo: int, *, beside: bool
) -> Generator[tuple[_Batch, list[NDArray[np.float32]]], None, None]:
    """Yield batches until so many tiles are done, each with what the predictor returns of it.

    One batch is read ahead by another thread. With ``beside`` the predictor is already at work on
    the next batch, in a third thread, while what was yielded is dealt with.
    """
    if not todo:
        return
    with (
        ThreadPoolExecutor(1, thread_name_prefix="segfocal-read") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="segfocal-network") as network,
        ExitStack() as left,
    ):
        # One that is left early does not begin another batch.
        left.callback(network.shutdown, wait=False, cancel_futures=True)
        upcoming = reader.submit(read_batch)
        waiting: tuple[_Batch, Future[list[NDArray[np.float32]]]] | None = None
        while todo:
            batch = upcoming.result()
            upcoming = reader.submit(read_batch)
            todo -= len(batch.order)
            if not beside:
                yield batch, forward(batch.values, batch.valid)
                continue
            before, waiting = waiting, (batch, network.submit(forward, batch.values, batch.valid))
            if before is not None:
                yield before[0], before[1].result()
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _finish(buffer: RowBuffer, run: Run, axis: int) -> Iterator[FinishedRows]:
    """Yield the row that is complete, unless it only leads up to the run's first."""
    wanted = buffer.row >= run.first
    rows, probabilities, valid = buffer.finish_row()
    if wanted:
        window = list(run.strip)
        window[axis] = overlap_of(rows, run.strip[axis])
        if window[axis] != rows:  # a region begins or ends within
            begin, end = window[axis].start - rows.start, window[axis].stop - rows.start
            part = (*(slice(None),) * axis, slice(begin, end))
            probabilities, valid = probabilities[part], valid[part]
        yield FinishedRows(tuple(window), probabilities, valid)


def _contribution(grid: TileGrid, task: _Task) -> Window:
    """Return the part of a strip that a tile contributes to."""
    kept = grid.kept_window(task.tile)
    return tuple(overlap_of(side, whole) for side, whole in zip(kept, task.run.strip, strict=True))
