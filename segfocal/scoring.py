"""Comparing predicted label maps and probabilities with labels, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import IGNORE_INDEX, index_of_values
from segfocal.confusion import confusion_matrix, region_matrices
from segfocal.data.reading import BLOCK, RegionReader, blocks
from segfocal.io import Scan, open_scan, read_labels
from segfocal.io.measure import pixel_measure
from segfocal.reliability import Reliability
from segfocal.scores import Calibration, CaseScores
from segfocal.surface import BYTES_PER_POINT, SurfaceDistances, boundary_pixels, distances_between
from segfocal.temperature import best_temperature, scaled
from segfocal.types import Window

__all__ = ["DEFAULT_POINT_BYTES", "calibration_of", "count_probabilities", "score_case"]

DEFAULT_POINT_BYTES = 2 * 2**30

Points = list[NDArray[np.int32]]


def score_case(
    readers: Sequence[RegionReader],
    path: Path,
    *,
    tolerance: float | None,
    background: int | None,
    point_bytes: int = DEFAULT_POINT_BYTES,
) -> CaseScores:
    """Score the label map of a case over its regions.

    Args:
        readers: The regions, of one case.
        path: The label map; of regions that overlap, the file of their probabilities, as a label
            map shows one of those that hold a pixel.
        tolerance: Distance within which boundaries count as equal; None: distances are not
            measured.
        background: Class index whose distances are not measured, or None.
        point_bytes: What boundary pixels may take; with more of them distances are not measured.
    """
    spec, case = readers[0].spec, readers[0].region.case
    num_classes = spec.num_classes
    overlapping = readers[0].table.overlapping
    matrix = np.zeros((num_classes, 2, 2) if overlapping else (num_classes,) * 2, np.int64)
    surfaces = _Surfaces(num_classes, spec.ndim, background, point_bytes)
    measured = tolerance is not None
    with open_scan(path, orientation=spec.orientation or "RAS") as scan:
        measure = pixel_measure(scan)
        for reader in readers:
            for block in blocks(reader.window, BLOCK[spec.ndim]):
                wide, inner = _with_neighbours(block, reader.window)
                read = _read_regions if overlapping else _read_pair
                reference, found = read(reader, scan, wide if measured else block)
                if measured:
                    if surfaces.fit:
                        surfaces.add(reference, found, wide, inner)
                    reference, found = reference[inner], found[inner]
                if overlapping:
                    matrix += region_matrices(reference, found)
                else:
                    matrix += confusion_matrix(reference, found, num_classes)
    nothing = np.full(num_classes, np.nan)
    hd95, nsd, average = nothing.copy(), nothing.copy(), nothing.copy()
    why = "not asked for"
    if tolerance is not None:
        why = "" if surfaces.fit else surfaces.too_many()
        spacing = readers[0].resolution or (1.0,) * spec.ndim
        for k, distances in surfaces.distances(spacing):
            hd95[k], nsd[k] = distances.hausdorff(95), distances.surface_dice(tolerance)
            average[k] = distances.average()
    unit, size = measure or ("", float("nan"))
    group = None if spec.group_by is None else readers[0].case.groups.get(spec.group_by)
    return CaseScores(case, matrix, hd95, nsd, average, why, unit, size, group)


class _Surfaces:
    """Boundary pixels of each class, of reference and prediction, as long as there is room."""

    def __init__(
        self, num_classes: int, ndim: int, background: int | None, point_bytes: int
    ) -> None:
        self._classes = [k for k in range(num_classes) if k != background]
        self._ndim = ndim
        self._room = point_bytes // BYTES_PER_POINT
        self._points: list[list[Points]] = [[[] for _ in range(num_classes)] for _ in range(2)]
        self._number = 0

    @property
    def fit(self) -> bool:
        """Whether all boundary pixels so far could be kept."""
        return self._number <= self._room

    def too_many(self) -> str:
        """Return why there are no distances."""
        return (
            f"the boundaries have more than {self._room} pixels, which would take more than "
            f"{self._room * BYTES_PER_POINT / 1e9:.1f} GB; allow more with max_memory "
            "(--max-memory)"
        )

    def add(
        self,
        reference: NDArray[np.integer],
        found: NDArray[np.integer],
        window: Window,
        inner: Window,
    ) -> None:
        """Add the boundary pixels in the inner part of a window.

        Args:
            reference: Class indices, or of regions 1 inside and 0 outside on a further axis.
            found: The same of the prediction.
            window: Where they lie.
            inner: The part of the window to add.
        """
        origin = [wide.start + part.start for wide, part in zip(window, inner, strict=True)]
        for points, labels in zip(self._points, (reference, found), strict=True):
            if labels.ndim > len(window):
                for k in self._classes:
                    own = labels[..., k]
                    boundary = (boundary_pixels(own) & (own == 1))[inner]
                    points[k].append((np.argwhere(boundary) + origin).astype(np.int32))
                    self._number += len(points[k][-1])
                continue
            boundary = boundary_pixels(labels)[inner]
            where = np.argwhere(boundary).astype(np.int32)
            classes = labels[inner][boundary]
            where += np.array(origin, np.int32)
            for k in self._classes:
                points[k].append(where[classes == k])
            self._number += len(where)
        if not self.fit:
            self._points = [[[] for _ in points] for points in self._points]

    def distances(self, spacing: Sequence[float]) -> Iterator[tuple[int, SurfaceDistances]]:
        """Yield class indices and their distances."""
        if self.fit:
            for k in self._classes:
                none = [np.zeros((0, self._ndim), np.int32)]
                reference, found = (np.concatenate(none + points[k]) for points in self._points)
                yield k, distances_between(reference, found, spacing)


def _with_neighbours(block: Window, region: Window) -> tuple[Window, Window]:
    """Return a block with a border of one pixel inside the region, and where the block is in it."""
    wide = tuple(
        slice(max(side.start - 1, whole.start), min(side.stop + 1, whole.stop))
        for side, whole in zip(block, region, strict=True)
    )
    inner = tuple(
        slice(side.start - outer.start, side.stop - outer.start)
        for side, outer in zip(block, wide, strict=True)
    )
    return wide, inner


def _read_pair(
    reader: RegionReader, scan: Scan, window: Window
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return class indices of reference and prediction, both unknown where either is."""
    reference = reader.read(window)[2]
    predicted, labelled = read_labels(scan, window)
    found = index_of_values(predicted, [label.value for label in reader.spec.classes])
    # What nobody looked for cannot be called wrong.
    looked_for = np.array([*reader.annotated, False])
    unknown = ~labelled | (reference < 0) | ~looked_for[found]
    reference[unknown] = found[unknown] = IGNORE_INDEX
    return reference, found


def _read_regions(
    reader: RegionReader, scan: Scan, window: Window
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return for each region 1 inside and 0 outside, both unknown where either is."""
    reference = reader.known_classes(reader.read(window)[2])
    patch = scan.read(window)
    # As in a label map: above one half.
    found = (patch.values.astype(np.float32) > 0.5).astype(np.int8)
    unknown = ~patch.valid | (reference < 0)
    reference[unknown] = found[unknown] = IGNORE_INDEX
    return reference, found


def count_probabilities(
    reliability: Reliability,
    readers: Sequence[RegionReader],
    stretches: Iterable[tuple[Window, NDArray[np.float32]]],
) -> None:
    """Count the probabilities of a case, as they come, at the pixels that are scored.

    Where the case lists its annotated classes, pixels that are taken for another one are left
    out, as :func:`score_case` leaves them out; how the others count:
    :class:`~segfocal.reliability.Reliability`.

    Args:
        reliability: Where they are counted.
        readers: The case's regions.
        stretches: Windows and probabilities, as :func:`segfocal.stream` yields them.
    """
    for window, probabilities in stretches:
        for reader in readers:
            common = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(window, reader.window, strict=True)
            )
            if any(side.start >= side.stop for side in common):
                continue
            for block in blocks(common, BLOCK[len(common)]):
                inside = tuple(
                    slice(side.start - whole.start, side.stop - whole.start)
                    for side, whole in zip(block, window, strict=True)
                )
                part, truth = probabilities[inside], reader.read(block)[2]
                truth[np.isnan(part[..., 0])] = IGNORE_INDEX
                reliability.add(part, truth, reader.labelled_as)


def calibration_of(reliability: Reliability) -> Calibration:
    """Return the calibration of what was counted."""
    with np.errstate(invalid="ignore"):
        confidence: Any = reliability.confidence / reliability.pixels
        right: Any = reliability.right / reliability.pixels
    probabilities, truth, shown = reliability.sample
    temperature = best_temperature(probabilities, truth, shown)
    with_it = Reliability()
    with_it.add(scaled(probabilities, temperature), truth, shown)
    return Calibration(
        reliability.error, temperature, confidence, right, reliability.pixels, with_it.error
    )
