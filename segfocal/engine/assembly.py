"""From finished rows to units of label indices, and from units to the label file.

A unit holds *label indices*: positions in the table of class values that a label map can
show, and the table's length where the scan has no data.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.job import Job
from segfocal.engine.layers import Layers
from segfocal.engine.scratch import ScratchStore, Unit
from segfocal.engine.sweep import FinishedRows, Progress
from segfocal.errors import OutputError
from segfocal.io import LabelWriter
from segfocal.types import full_window, window_shape

if TYPE_CHECKING:
    from segfocal.io.layers_writer import LayersWriter

__all__ = ["assemble_labels", "assemble_layer", "compute_units", "label_indices", "space_needed"]

_LABELS = "labels"
_CHUNK_PIXELS = 2**18


def space_needed(shape: tuple[int, ...], num_classes: int) -> int:
    """Return an estimate of the bytes of disk that a label map takes until it is complete.

    Half a byte per pixel (one above 254 classes) each for units, for the writer's scratch file
    and for the output. Label maps of real scans compress to a tenth of that.
    """
    return math.prod(shape) * _index_type(num_classes + 1).itemsize * 3 // 2


def compute_units(
    job: Job, card: Card, layers: Layers, store: ScratchStore, progress: Progress | None
) -> None:
    """Put label indices and layers of all stretches that the store lacks into it.

    Another thread writes while the next stretch is computed; it is at most one behind.
    """
    if not store.missing(full_window(job.grid.shape)):
        return
    stretches = job.sweep(progress, wanted=lambda window: bool(store.missing(window)))
    with ThreadPoolExecutor(1, thread_name_prefix="segfocal-write") as writer:
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


def assemble_layer(store: ScratchStore, writer: LayersWriter, name: str) -> None:
    """Write the units of a layer to its file; see :func:`assemble_labels`."""
    for unit in _in_order(store):
        writer.write(unit.window, store.load(unit, name))
    writer.finish()


def _in_order(store: ScratchStore) -> list[Unit]:
    return sorted(store.units, key=lambda unit: [side.start for side in unit.window])


def assemble_labels(
    store: ScratchStore, writer: LabelWriter, card: Card, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Write all units to a label file, in an order that does not depend on the run.

    Args:
        store: Units that cover the scan.
        writer: Where they go; it is finished.
        card: Class values and names.
        shape: Spatial shape of the scan.

    Returns:
        A JSON value: pixels that show each class, and ``invalid_pixels`` without a label.

    Raises:
        OutputError: Units are missing or damaged, or the file cannot be written.
    """
    covered = sum(math.prod(window_shape(unit.window)) for unit in store.units)
    if covered != math.prod(shape):
        raise OutputError(
            f"{store.folder}: units hold {covered} of {math.prod(shape)} pixels; expected all: "
            "remove the folder and run again"
        )
    table = np.append(_label_table(card), writer.nodata).astype(writer.dtype)
    counts = np.zeros(len(table), np.int64)
    for unit in _in_order(store):
        index = store.load(unit, _LABELS)
        counts += np.bincount(index.ravel(), minlength=len(table))
        writer.write(unit.window, table[index])
    writer.finish()
    pixels = counts[-1 - card.num_classes : -1].tolist()
    return {
        "classes": [
            {"value": label.value, "name": label.name, "pixels": count}
            for label, count in zip(card.classes, pixels, strict=True)
        ],
        "invalid_pixels": int(counts[-1]),
    }
