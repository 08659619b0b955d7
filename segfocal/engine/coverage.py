"""Which part of a window is not covered by others."""

from __future__ import annotations

from collections.abc import Iterable

from segfocal.types import Window

__all__ = ["uncovered"]


def uncovered(window: Window, others: Iterable[Window]) -> list[Window]:
    """Return disjoint windows that make up ``window`` without what ``others`` cover."""
    left, passed = [window], []
    # In order, so that what lies before another is not compared with those behind it.
    for other in sorted(others, key=lambda one: [side.start for side in one]):
        passed += [part for part in left if part[0].stop <= other[0].start]
        left = [
            piece
            for part in left
            if part[0].stop > other[0].start
            for piece in _without(part, other)
        ]
    return passed + left


def _without(window: Window, other: Window) -> list[Window]:
    common = [
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(window, other, strict=True)
    ]
    if any(side.start >= side.stop for side in common):
        return [window]
    pieces = []
    rest = list(window)
    for axis, side in enumerate(common):
        for part in (slice(rest[axis].start, side.start), slice(side.stop, rest[axis].stop)):
            if part.start < part.stop:
                pieces.append((*rest[:axis], part, *rest[axis + 1 :]))
        rest[axis] = side
    return pieces
