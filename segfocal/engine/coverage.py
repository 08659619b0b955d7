"""Which part of a window is not covered by others."""

from __future__ import annotations

from collections.abc import Iterable

from segfocal.types import Window

__all__ = ["uncovered"]


def uncovered(window: Window, others: Iterable[Window]) -> list[Window]:
    """Return disjoint windows that make up ``window`` without what ``others`` cover."""
    left = [window]
    for other in others:
        left = [piece for part in left for piece in _without(part, other)]
    return left


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
