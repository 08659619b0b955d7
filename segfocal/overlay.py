"""Overlay sheets of a case: what was scanned, what it is labelled as, what was found."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX, index_of_values
from segfocal.data.reading import RegionReader, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.io import Scan, open_scan, read_labels
from segfocal.report import (
    Panel,
    Picture,
    blend_labels,
    colorize,
    draw_sheet,
    mark_errors,
    stretch,
)
from segfocal.types import Window, full_window

__all__ = ["write_overlay"]

VIEWS = {"RL": "sagittal", "PA": "coronal", "IS": "axial"}


@dataclass(frozen=True)
class _View:
    """A plane through a case, as arrays that are ready to be drawn."""

    caption: str
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    reference: NDArray[np.int32]
    found: NDArray[np.int32]
    scored: NDArray[np.bool_]


def write_overlay(
    spec: DatasetSpec,
    labels: Path,
    path: Path,
    title: str,
    *,
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Draw the first case of a split with its predicted labels.

    Scenes are drawn whole, so they have to fit in memory; of volumes, the two planes of the
    split's region that show most of its labels are drawn. The region is framed in magenta;
    errors are marked inside it only.

    Args:
        spec: The dataset.
        labels: Predicted label file of the case.
        path: PNG to write.
        title: Line above the pictures.
        split: Split whose region is framed.
        overwrite: Replace an existing PNG.
    """
    with ExitStack() as stack:
        reader = open_regions(spec, split, stack)[0]
        orientation = spec.orientation or "RAS"
        found = stack.enter_context(open_scan(labels, orientation=orientation))
        views = (
            [_plane(reader, found, full_window(reader.shape), "")]
            if spec.ndim == 2
            else _volume_views(reader, found, orientation)
        )
    rows = [_panels(spec, view) for view in views]
    draw_sheet(path, title, rows, spec.classes, overwrite=overwrite)


def _panels(spec: DatasetSpec, view: _View) -> list[Panel]:
    names = list(spec.channels)
    values = np.nan_to_num(view.values)
    natural = [names.index(name) for name in ("red", "green", "blue") if name in names]
    chosen = natural if len(natural) == 3 else [0]
    picture = stretch(values[..., chosen], view.valid)
    where = f" ({view.caption})" if view.caption else ""
    reference = np.where(view.scored, view.reference, IGNORE_INDEX)
    frame = _frame(view.scored)

    def drawn(index: NDArray[np.int32]) -> Picture:
        # Class 0 of volumes is background: what lies there should be seen.
        if spec.ndim == 3:
            return blend_labels(picture, index, spec.classes)
        return colorize(index, spec.classes)

    errors = mark_errors(reference, view.found)
    return [
        Panel(f"{names[0] if len(chosen) == 1 else 'red, green, blue'}{where}", picture),
        Panel("reference", drawn(view.reference), frame),
        Panel("prediction", drawn(view.found), frame),
        Panel("right and wrong, held-out part only", errors, frame),
    ]


def _frame(region: NDArray[np.bool_]) -> Window:
    """Return the box that a box-shaped region fills."""
    rows, cols = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def _volume_views(reader: RegionReader, found: Scan, orientation: str) -> list[_View]:
    """Return the sagittal and axial planes of the region that show most labelled voxels."""
    labels = reader.read(reader.window)[2]
    views = []
    for axis in range(3):
        letter = orientation[axis]
        name = next(name for letters, name in VIEWS.items() if letter in letters)
        if name == "coronal":
            continue
        others = tuple(i for i in range(3) if i != axis)
        # Geometric mean over classes: a plane that shows all of them goes first.
        counts = [(labels == k).sum(others) for k in range(1, reader.spec.num_classes)]
        best = int(np.argmax(np.log1p(counts).sum(0))) + reader.window[axis].start
        window = list(full_window(reader.shape))
        window[axis] = slice(best, best + 1)
        views.append(_plane(reader, found, tuple(window), f"{name}, slice {best}"))
    return views


def _plane(reader: RegionReader, found: Scan, window: Window, caption: str) -> _View:
    spec = reader.spec
    values, valid, reference = reader.read(window)
    predicted, labelled = read_labels(found, window)
    index = index_of_values(predicted, [label.value for label in spec.classes])
    index[~(labelled & valid)] = IGNORE_INDEX
    scored = np.zeros(reader.shape, np.bool_)
    scored[reader.window] = True
    arrays: list[Any] = [values, valid, reference, index, scored[window]]
    if spec.ndim == 3:
        arrays = [_upright(array, window) for array in arrays]
    return _View(caption, *arrays)


def _upright(array: NDArray[np.generic], window: Sequence[slice]) -> NDArray[np.generic]:
    """Drop the axis of length 1 and turn the plane so that the second axis points up."""
    (axis,) = [i for i, side in enumerate(window) if side.stop - side.start == 1]
    return np.rot90(array.squeeze(axis), axes=(0, 1))
