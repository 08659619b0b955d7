"""From the grid that the model works on back to the grid of the scan, in stretches.

Probabilities are interpolated linearly (along a coarse axis: taken from the nearest plane) from
the finished rows of the model's grid, as soon as the rows that an output row needs are there.
What is kept in between is the last few rows; no stack of classes of the size of the scan exists.

*Validity*: a pixel has a label where the scan itself has data; the resampled scan does not
decide. Where some of the model's pixels around it are not valid, the others count, by their
weights. Where none is, the network's answer for them counts all the same, which it gave from their
surroundings; where the network was not run there at all, the pixel gets no label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segfocal.data.channels import usable_pixels
from segfocal.engine.sweep import FinishedRows, Stretches
from segfocal.interpolation import AxisMap, interpolate, small_windows, support
from segfocal.io.base import Scan
from segfocal.types import BoolArray, Window, overlap_of, shifted, window_shape

__all__ = ["MODEL_GRID_BYTES", "ModelGrid", "output_strips"]

PIECE_BYTES = 48 * 2**20
"""Probabilities, and what is written besides labels, that are given out at once."""

BLOCK_VALUES = 2**20
"""Pixels times classes, or channels, that are interpolated or read at once."""

MODEL_GRID_BYTES = 4 * PIECE_BYTES + 64 * BLOCK_VALUES
"""What going to the model's grid and back takes besides: pieces on their way, and blocks."""

T = TypeVar("T", bound=np.generic)

Wanted = Callable[[Window], bool]


@dataclass(frozen=True)
class ModelGrid:
    """The grid that the model works on, as seen from the scan.

    Attributes:
        scan: The scan.
        maps: From the model's pixels to the scan's, per axis; orders 0 and 1.
        axis: The swept axis.
        covered: What is segmented, in pixels of the scan.
        channels, valid_when: Which of the scan's pixels have data.
        kept_bytes: Bytes per pixel of what is written besides labels.
    """

    scan: Scan
    maps: tuple[AxisMap, ...]
    axis: int
    covered: Window
    channels: tuple[int, ...] | None
    valid_when: str
    kept_bytes: int

    @property
    def region(self) -> Window:
        """What of the model's grid is needed."""
        return support(self.maps, self.covered)

    def dependents(self, window: Window) -> Window | None:
        """Return the output pixels that need any of the model's in a window; None: there are none.

        They may be a few more, never fewer.
        """
        found = tuple(
            overlap_of(axis.dependents(side), whole)
            for axis, side, whole in zip(self.maps, window, self.covered, strict=True)
        )
        return None if any(side.start >= side.stop for side in found) else found

    def asked_of(self, ask: Wanted | None) -> Wanted:
        """Return a question about windows of this grid, from one about windows of the output.

        Without one, whether any of the output depends on them.
        """

        def asked(window: Window) -> bool:
            found = self.dependents(window)
            return found is not None and (ask is None or ask(found))

        return asked

    def bring_back(
        self,
        stretches: Stretches,
        strips: Sequence[tuple[Window, Window]],
        wanted: Wanted | None,
    ) -> Stretches:
        """Yield finished rows of the output, in pieces of a few.

        Args:
            stretches: Finished rows of this grid, in order within each strip.
            strips: Strips of this grid and what of the output each is needed for; see
                :func:`output_strips`.
            wanted: Whether a piece of the output is to be computed; all are when left out.
        """
        axis = self.axis
        outputs = {_across(strip, axis): output for strip, output in strips}
        held: list[FinishedRows] = []
        done = 0
        for rows in stretches:
            output = outputs[_across(rows.window, axis)]
            along, last = rows.window[axis], held[-1].window if held else None
            if last is None or (
                _across(last, axis) != _across(rows.window, axis) or last[axis].stop != along.start
            ):
                held = []
                done = max(output[axis].start, self.maps[axis].beginning(along.start))
            held.append(rows)
            stop = min(output[axis].stop, self.maps[axis].finished(along.stop))
            for piece in self._pieces(output, done, stop, rows.probabilities.shape[-1]):
                if wanted is None or wanted(piece):
                    yield self._piece(piece, held)
            done = max(done, stop)
            held = self._last_rows(held, done)

    def _pieces(self, output: Window, start: int, stop: int, num_classes: int) -> Iterator[Window]:
        sides = window_shape(output)
        across = math.prod(sides) // sides[self.axis]
        rows = max(1, PIECE_BYTES // (across * (4 * num_classes + self.kept_bytes)))
        for first in range(start, stop, rows):
            piece = list(output)
            piece[self.axis] = slice(first, min(first + rows, stop))
            yield tuple(piece)

    def _last_rows(self, held: list[FinishedRows], done: int) -> list[FinishedRows]:
        """Return the rows that are needed from output row ``done`` on, or at least the last."""
        last = held[-1].window[self.axis].stop
        first = last - 1
        if done < self.maps[self.axis].target:
            first = min(first, self.maps[self.axis].support(slice(done, done + 1)).start)
        window = list(held[-1].window)
        window[self.axis] = slice(max(first, held[0].window[self.axis].start), last)
        kept = _gathered(held, tuple(window), self.axis)
        # Copies: a view would keep all the rows.
        return [FinishedRows(kept.window, kept.probabilities.copy(), kept.valid.copy())]

    def _piece(self, window: Window, held: list[FinishedRows]) -> FinishedRows:
        num_classes = held[-1].probabilities.shape[-1]
        shape = window_shape(window)
        probabilities = np.empty((*shape, num_classes), np.float32)
        valid = np.empty(shape, np.bool_)
        chosen = self.scan.channels if self.channels is None else self.channels
        most = BLOCK_VALUES / max(num_classes, len(chosen))
        for block in small_windows(window, most):
            place = shifted(block, window)
            source = _gathered(held, support(self.maps, block), self.axis)
            probabilities[place], known = _interpolated(source, self.maps, block)
            patch = self.scan.read(block, self.channels)
            valid[place] = usable_pixels(patch, self.valid_when) & known
        return FinishedRows(window, probabilities, valid)


def _interpolated(
    source: FinishedRows, maps: Sequence[AxisMap], window: Window
) -> tuple[NDArray[np.float32], BoolArray]:
    """Return probabilities at a window of the output, and where anything is known of them."""
    origin = [side.start for side in source.window]
    plain = interpolate(source.probabilities, maps, window, origin)
    if source.valid.all():
        return plain.astype(np.float32), np.ones(plain.shape[:-1], np.bool_)
    there = source.valid[..., None]
    weight = interpolate(there.astype(np.float64), maps, window, origin)
    parts = interpolate(source.probabilities * there, maps, window, origin)
    some, all_of_it = weight > 1e-12, weight > 1 - 1e-9
    found = np.where(some & ~all_of_it, parts / np.where(some, weight, 1), plain)
    return found.astype(np.float32), some[..., 0] | plain.any(-1)


def _gathered(held: Sequence[FinishedRows], window: Window, axis: int) -> FinishedRows:
    """Return the rows of a window, from those that follow each other; a view where one has them."""
    parts = []
    for rows in held:
        common = list(window)
        common[axis] = overlap_of(rows.window[axis], window[axis])
        if common[axis].start < common[axis].stop:
            place = shifted(tuple(common), rows.window)
            parts.append((rows.probabilities[place], rows.valid[place]))
    if len(parts) == 1:
        return FinishedRows(window, *parts[0])
    return FinishedRows(
        window,
        np.concatenate([part[0] for part in parts], axis),
        np.concatenate([part[1] for part in parts], axis),
    )


def _across(window: Window, axis: int) -> tuple[tuple[int, int], ...]:
    """Return what tells strips apart."""
    return tuple((side.start, side.stop) for i, side in enumerate(window) if i != axis)


def output_strips(model_grid: ModelGrid, strips: Sequence[Window]) -> list[tuple[Window, Window]]:
    """Return strips of the model's grid with the strips of the output that they are needed for.

    Args:
        model_grid: The grid.
        strips: Windows that partition the model's part that is needed.

    Returns:
        Strips of the model's grid, a pixel wider than those given where neighbours share it,
        each with its part of the output; these parts partition the output.
    """
    pairs = []
    for strip in strips:
        output = []
        for axis, side, needed, whole in zip(
            model_grid.maps, strip, model_grid.region, model_grid.covered, strict=True
        ):
            start = whole.start if side.start == needed.start else axis.finished(side.start)
            stop = whole.stop if side.stop == needed.stop else axis.finished(side.stop)
            output.append(overlap_of(slice(start, stop), whole))
        if all(side.start < side.stop for side in output):
            pairs.append((support(model_grid.maps, tuple(output)), tuple(output)))
    return pairs
