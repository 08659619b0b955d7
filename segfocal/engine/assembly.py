"""From finished rows to units of label indices, and from units to the label file.

A unit holds *label indices*: positions in the table of class values that a label map can
show, and the table's length where the scan has no data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.cleaning import clean
from segfocal.engine.job import Job
from segfocal.engine.label_map import LabelMap
from segfocal.engine.layers import Layers
from segfocal.engine.scratch import ScratchStore, Unit
from segfocal.engine.sweep import FinishedRows, Progress
from segfocal.errors import OutputError
from segfocal.io import LabelWriter, PendingOutput
from segfocal.io.measure import row_hectares
from segfocal.io.pending import writing
from segfocal.types import Window, shifted, window_shape

if TYPE_CHECKING:
    from segfocal.io.layers import LayersWriter

__all__ = ["assemble_labels", "assemble_layer", "compute_units", "label_indices", "space_needed"]

_LABELS = "labels"
_CHUNK_PIXELS = 2**18


def space_needed(shape: tuple[int, ...], num_classes: int, *, cleaned: bool = False) -> int:
    """Return an estimate of the bytes of disk that a label map takes until it is complete.

    Half a byte per pixel (one above 254 classes) each for units, for the writer's scratch file
    and for the output. Label maps of real scans compress to a tenth of that. A map that is
    cleaned lies there uncompressed too.
    """
    size = math.prod(shape) * _index_type(num_classes + 1).itemsize
    return size * 3 // 2 + cleaned * size


def compute_units(
    job: Job,
    card: Card,
    layers: Layers,
    store: ScratchStore,
    progress: Progress | None,
    only: Callable[[Window], bool] | None = None,
    within: Window | None = None,
) -> None:
    """Put label indices and layers of all stretches that the store lacks into it.

    Another thread writes while the next stretch is computed; it is at most one behind.

    Args:
        job: What to compute.
        card: Class values, names and colours.
        layers: What is kept besides labels.
        store: Where it goes.
        progress: Called with tiles done and tiles in all.
        only: Which stretches are this process's; all when left out.
        within: The column of the scan that it keeps to, see :meth:`Job.sweep`.
    """
    if only is None and store.covers(job.covered):  # a part asks for its own stretches alone
        return

    def wanted(window: Window) -> bool:
        return (only is None or only(window)) and not store.covers(window)

    # Closed here, so that a failed write leaves no thread to the garbage collection, which may run
    # in that very thread.
    with (
        closing(job.sweep(progress, wanted=wanted, within=within)) as stretches,
        ThreadPoolExecutor(1, thread_name_prefix="segfocal-write") as writer,
    ):
        writing: Future[None] | None = None
        for rows in stretches:
            arrays = {_LABELS: label_indices(rows, card), **layers.arrays(rows, card)}
            if writing is not None:
                writing.result()
            writing = writer.submit(store.add, rows.window, arrays)
        if writing is not None:
            writing.result()


def label_indices(rows: FinishedRows, card: Card) -> NDArray[np.unsignedinteger]:
    """Return the position in :func:`_label_table` of what a label map shows at each pixel."""
    values = _label_table(card)
    order = np.argsort(values)
    index = np.empty(rows.valid.shape, _index_type(len(values)))
    step = max(1, _CHUNK_PIXELS // max(1, math.prod(index.shape[1:])))
    for start in range(0, len(index), step):  # what is made of a pixel is larger than its index
        part = rows.probabilities[start : start + step]
        if card.task == "classes":
            index[start : start + step] = part.argmax(-1)
        else:
            shown = card.label_values(part)
            index[start : start + step] = order[np.searchsorted(values[order], shown)]
    index[~rows.valid] = len(values)
    return index


def _label_table(card: Card) -> NDArray[np.int64]:
    """Return the class values that a label map can show; of regions, none is 0 and first."""
    return card.class_values if card.task == "classes" else np.append(0, card.class_values)


def _index_type(highest: int) -> np.dtype:
    return np.dtype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)


def assemble_layer(store: ScratchStore, writer: LayersWriter, name: str, covered: Window) -> None:
    """Write the units of a layer to its file; see :func:`assemble_labels`."""
    for unit in _in_order(store):
        writer.write(shifted(unit.window, covered), store.load(unit, name))
    writer.finish()


def _in_order(store: ScratchStore) -> list[Unit]:
    return sorted(store.units, key=lambda unit: [side.start for side in unit.window])


def assemble_labels(
    store: ScratchStore, pending: PendingOutput, writer: LabelWriter, card: Card, job: Job
) -> dict[str, Any]:
    """Write all units to a label file, in an order that does not depend on the run.

    Args:
        store: Units that make up what is segmented.
        pending: The pending output, for intermediate files.
        writer: Where they go; it is finished. Its grid begins where what is segmented does.
        card: Class values and names.
        job: What is segmented, and the steps that change the label map before it is written.

    Returns:
        A JSON value: pixels that show each class in the file, and ``invalid_pixels`` without
        a label.

    Raises:
        OutputError: Units are missing or damaged, or the file cannot be written.
    """
    there = sum(math.prod(window_shape(unit.window)) for unit in store.units)
    expected = math.prod(window_shape(job.covered))
    if there != expected:
        raise OutputError(
            f"{store.folder}: units hold {there} of {expected} pixels; expected all: "
            "remove the folder and run again"
        )
    table = np.append(_label_table(card), writer.nodata).astype(writer.dtype)
    counts = np.zeros(len(table), np.int64)
    parts: Iterator[tuple[Window, NDArray[Any]]] = (
        (shifted(unit.window, job.covered), store.load(unit, _LABELS)) for unit in _in_order(store)
    )
    if job.cleaning:
        parts = _cleaned(parts, pending, job, nodata=len(table) - 1)
    sizes = row_hectares(job.target)
    hectares = np.zeros(len(table))
    for window, index in parts:
        by_row = _counts_by_row(index, len(table))
        counts += by_row.sum(0)
        if sizes is not None:
            hectares += sizes[window[0]] @ by_row
        writer.write(window, table[index])
    writer.finish()
    first = len(table) - 1 - card.num_classes
    classes = [
        {"value": label.value, "name": label.name, "pixels": int(counts[first + i])}
        | ({} if sizes is None else {"hectares": round(float(hectares[first + i]), 6)})
        for i, label in enumerate(card.classes)
    ]
    return {"classes": classes, "invalid_pixels": int(counts[-1])}


def _counts_by_row(index: NDArray[Any], length: int) -> NDArray[np.int64]:
    """Return how often each index stands in each row (or plane), ``(rows, length)``."""
    counts = np.empty((len(index), length), np.int64)
    for row, part in enumerate(index):
        counts[row] = np.bincount(part.ravel(), minlength=length)
    return counts


def _cleaned(
    parts: Iterator[tuple[Window, NDArray[Any]]], pending: PendingOutput, job: Job, nodata: int
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Put parts together on disk, apply the job's cleaning, and yield it by strips."""
    destination = pending.destination
    with writing(destination):
        labels = LabelMap(
            pending.scratch("labels.map"),
            window_shape(job.covered),
            nodata,
            slow_axis=job.scan.slow_axis,
            max_memory=job.max_memory,
        )
    pending.defer(labels.close)
    with labels:
        for window, index in parts:
            with writing(destination):
                labels.write(window, index)
        with writing(destination):
            clean(labels, job.cleaning)
        for window in labels.strips():
            with writing(destination):
                index = labels.read(window)
            yield window, index
