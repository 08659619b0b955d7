"""Outlines of a label map's connected pieces, from strips of it.

The outline of a piece consists of *sides*: straight stretches of the lines between pixels,
directed so that the piece is at their left, seen with row 0 at the top. A first pass over the
map finds the pieces and the strip in which each ends; a second one collects sides, and when
the last strip of a piece has passed, its sides are joined to rings. Memory holds a strip, a
table of the pieces, and the sides of the pieces that are still open.

Pieces are connected over the sides of pixels. A ring visits a corner at most once; where two
pixels of a piece touch at a corner only, an outer ring and a hole may touch there. So the
polygons are valid, and the same as those of GDAL's polygonize.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segfocal.components import ComponentTable, label_strip, survey

__all__ = ["Outlines", "trace"]

Ints = NDArray[np.int64]
Strips = Callable[[], Iterable[NDArray[np.unsignedinteger]]]

_EAST, _NORTH, _WEST, _SOUTH = range(4)  # a turn to the left adds one


@dataclass(frozen=True)
class Outlines:
    """Outlines of some pieces.

    Attributes:
        values: Value of each piece, ``(pieces,)``.
        pixels: Pixels of each piece, ``(pieces,)``.
        piece_of_ring: Ascending; the first ring of a piece is the outer one, the others are
            holes. ``(rings,)``.
        ring_of_corner: Ascending, ``(corners,)``.
        corners: Column and row of the corners of pixels that the rings pass, in order, the
            first not repeated: ``(corners, 2)``. Outer rings run counter-clockwise, holes
            clockwise, seen with row 0 at the top.
    """

    values: Ints
    pixels: Ints
    piece_of_ring: Ints
    ring_of_corner: Ints
    corners: Ints


@dataclass(frozen=True)
class _Sides:
    """Sides; arrays of equal length.

    Attributes:
        piece: Component that they belong to.
        kind: Direction.
        start, end: Corners, as ``row * (cols + 1) + col``.
        cut: Whether a side continues straight over the border of a strip: at the start of one
            to the south, at the end of one to the north.
    """

    piece: Ints
    kind: Ints
    start: Ints
    end: Ints
    cut: NDArray[np.bool_]

    def take(self, which: NDArray[np.generic]) -> _Sides:
        return _Sides(*(part[which] for part in _parts(self)))


def _parts(sides: _Sides) -> tuple[NDArray[np.generic], ...]:
    return sides.piece, sides.kind, sides.start, sides.end, sides.cut


def _together(several: list[_Sides]) -> _Sides:
    columns = zip(*(_parts(sides) for sides in several), strict=True)
    return _Sides(*(np.concatenate(parts) for parts in columns))


def trace(
    strips: Strips,
    nodata: int,
    *,
    noded: bool = False,
    check: Callable[[int], None] | None = None,
) -> Iterator[Outlines]:
    """Yield the outlines of all pieces, those that end first first.

    Args:
        strips: Called twice; yields the rows of the map from first to last, the same strips
            ``(rows, cols)`` each time.
        nodata: Value of pixels that belong to no piece.
        noded: Keep corners on straight stretches where what lies on the other side changes:
            neighbours then have the same corners along what they share.
        check: Called after each strip of the first pass with the pieces so far; it may raise.
    """
    table = survey(strips(), nodata, check)
    open_sides: dict[int, list[_Sides]] = {}
    above: Ints | None = None
    top = 0
    final = len(table.offsets) - 1
    for index, strip in enumerate(strips()):
        pieces = table.of_strip(index, label_strip(strip, nodata))
        sides = _sides(pieces, above, top, last=index == final, noded=noded)
        _sort_away(open_sides, sides, table, index)
        above, top = pieces[-1], top + len(strip)
        ready = open_sides.pop(index, [])
        if ready:
            yield _outlines(_together(ready), table, strip.shape[1] + 1, noded=noded)


def _sort_away(
    open_sides: dict[int, list[_Sides]], sides: _Sides, table: ComponentTable, index: int
) -> None:
    """Put sides where the strip is that their piece ends in.

    The lower border of a piece is met in the strip after the one with its last pixels where
    that strip ends there.
    """
    ends = np.minimum(table.last[sides.piece] + 1, len(table.offsets) - 1)
    for end in np.unique(ends):
        open_sides.setdefault(int(end), []).append(sides.take(ends == end))


def _sides(pieces: Ints, above: Ints | None, top: int, *, last: bool, noded: bool) -> _Sides:
    """Return the sides in a strip: on the lines above its rows, and between its columns."""
    rows, cols = pieces.shape
    width = cols + 1
    outside = np.zeros((1, cols), pieces.dtype)
    before = outside if above is None else above[None]
    lines = np.concatenate([before, pieces, *([outside] if last else [])])
    north, south = lines[:-1], lines[1:]
    padded = np.zeros((rows, cols + 2), pieces.dtype)
    padded[:, 1:-1] = pieces
    west, east = padded[:, :-1].T, padded[:, 1:].T
    found = []
    for kind, inner, outer in ((_EAST, north, south), (_WEST, south, north)):
        line, first, end = _runs(inner, outer, noded)
        piece = inner[line, first]
        base = (top + line) * width
        ends = (base + first, base + end) if kind == _EAST else (base + end, base + first)
        found.append(_Sides(piece, np.full(len(line), kind), *ends, np.zeros(len(line), np.bool_)))
    for kind, inner, outer in ((_SOUTH, east, west), (_NORTH, west, east)):
        line, first, end = _runs(inner, outer, noded)
        piece = inner[line, first]
        upper, lower = (top + first) * width + line, (top + end) * width + line
        ends = (upper, lower) if kind == _SOUTH else (lower, upper)
        cut = first == 0
        if above is not None:
            edge = np.concatenate([[0], above, [0]])
            on_east, on_west = edge[1:][line], edge[:-1][line]
            around = (on_east, on_west) if kind == _SOUTH else (on_west, on_east)
            cut &= (around[0] == piece) & (around[1] == outer[line, first])
        else:
            cut &= False
        found.append(_Sides(piece, np.full(len(line), kind), *ends, cut))
    return _together(found)


def _runs(inner: Ints, outer: Ints, noded: bool) -> tuple[Ints, Ints, Ints]:
    """Return line, begin and end of the runs along the last axis in which a piece has a side."""
    side = (inner != outer) & (inner > 0)
    goes_on = np.zeros((side.shape[0], side.shape[1] + 1), np.bool_)
    goes_on[:, 1:-1] = side[:, 1:] & side[:, :-1] & (inner[:, 1:] == inner[:, :-1])
    if noded:
        goes_on[:, 1:-1] &= outer[:, 1:] == outer[:, :-1]
    line, first = np.nonzero(side & ~goes_on[:, :-1])
    _, last = np.nonzero(side & ~goes_on[:, 1:])
    return line, first, last + 1


def _outlines(sides: _Sides, table: ComponentTable, width: int, *, noded: bool) -> Outlines:
    """Join all sides of some pieces to rings."""
    following = _following(sides)
    count = len(following)
    ones = np.ones(count, np.bool_)
    graph = coo_array((ones, (np.arange(count), following)), shape=(count, count))
    rings, ring = connected_components(graph, directed=False)
    order = np.lexsort((_places(following, ring, rings), ring))
    kept = _is_corner(sides, following, noded)[order]
    ring, order = ring[order][kept].astype(np.int64), order[kept]
    corners = np.stack([sides.start[order] % width, sides.start[order] // width], -1)
    first = np.searchsorted(ring, np.arange(rings))
    piece = sides.piece[order][first]
    is_hole = _turns_right(corners, ring, first)
    by_piece = np.lexsort((sides.start[order][first], is_hole, piece))
    rank = np.empty(rings, np.int64)
    rank[by_piece] = np.arange(rings)
    again = np.argsort(rank[ring], kind="stable")
    found, piece_of_ring = np.unique(piece[by_piece], return_inverse=True)
    return Outlines(
        values=table.values[found].astype(np.int64),
        pixels=table.sizes[found],
        piece_of_ring=piece_of_ring,
        ring_of_corner=rank[ring][again],
        corners=corners[again],
    )


def _following(sides: _Sides) -> Ints:
    """Return the side that follows each: to the right where there is one, else ahead or left.

    To the right: so that a ring does not pass a corner twice at which two pixels of its piece
    touch.
    """
    keys = sides.start * 4 + sides.kind  # unique: a line has one piece at each side
    order = np.argsort(keys)
    ordered = keys[order]
    following = np.full(len(keys), -1)
    for turn in (3, 0, 1):
        wanted = sides.end * 4 + (sides.kind + turn) % 4
        place = np.minimum(np.searchsorted(ordered, wanted), len(keys) - 1)
        there = (following < 0) & (ordered[place] == wanted)
        there &= sides.piece[order[place]] == sides.piece
        following[there] = order[place[there]]
    return following


def _places(following: Ints, ring: Ints, rings: int) -> Ints:
    """Return the place of each side in its ring, by pointer jumping."""
    head = np.full(rings, len(ring))
    np.minimum.at(head, ring, np.arange(len(ring)))
    jump = following.copy()
    left = np.ones(len(ring), np.int64)  # sides until the head is met again
    jump[head], left[head] = head, 0
    while True:
        further = jump[jump]
        if np.array_equal(further, jump):
            break
        left += left[jump]
        jump = further
    return np.bincount(ring, minlength=rings)[ring] - left


def _is_corner(sides: _Sides, following: Ints, noded: bool) -> NDArray[np.bool_]:
    """Return which sides begin at a corner that is to be kept."""
    preceding = np.empty(len(following), np.int64)
    preceding[following] = np.arange(len(following))
    turns = sides.kind[preceding] != sides.kind
    if not noded:
        return turns
    cut_here = (sides.kind == _SOUTH) & sides.cut
    cut_before = (sides.kind[preceding] == _NORTH) & sides.cut[preceding]
    return turns | ~(cut_here | cut_before)


def _turns_right(corners: Ints, ring: Ints, first: Ints) -> NDArray[np.bool_]:
    """Return which rings run clockwise, seen with row 0 at the top."""
    ends = np.append(first[1:], len(ring))
    after = np.arange(1, len(ring) + 1)
    after[ends - 1] = first
    x, y = corners.T
    # Only for its sign; in units of pixels the sum of any scene's ring is exact.
    return np.add.reduceat(x * y[after] - x[after] * y, first) > 0
