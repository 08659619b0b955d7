from __future__ import annotations

import itertools

import numpy as np
import pytest

from segfocal.errors import GeometryError
from segfocal.tiling import AxisGrid, TileGrid, mirror

PRIMES = (2, 3, 5, 7, 11, 13, 17, 31, 37, 61, 67, 97, 101)


def sizes(tile: int) -> list[int]:
    return sorted({1, tile - 1, tile, tile + 1, 2 * tile, 2 * tile + 1, *PRIMES})


@pytest.mark.parametrize(
    ("tile", "halo", "overlap"),
    [(8, 0, 0), (8, 0, 3), (8, 2, 0), (16, 3, 4), (16, 2, 9), (5, 1, 1), (7, 0, 6)],
)
def test_final_parts_partition_the_axis_for_a_sweep_of_sizes(tile, halo, overlap):
    for size in sizes(tile):
        axis = AxisGrid(size, tile, halo, overlap)
        pixels = [p for k in range(axis.count) for p in range(size)[axis.final_slice(k)]]
        assert pixels == list(range(size)), size


@pytest.mark.parametrize(
    ("tile", "halo", "overlap"), [(8, 0, 3), (16, 3, 4), (5, 1, 1), (16, 2, 9)]
)
def test_no_tile_could_be_left_out(tile, halo, overlap):
    for size in sizes(tile):
        axis = AxisGrid(size, tile, halo, overlap)
        assert axis.kept_slice(axis.count - 1).stop == size
        if axis.count > 1:
            assert axis.kept_slice(axis.count - 2).stop < size, size


@pytest.mark.parametrize(("tile", "halo", "overlap"), [(8, 0, 3), (16, 3, 4), (5, 1, 1), (9, 4, 0)])
def test_a_kept_pixel_is_the_scans_pixel_of_its_place(tile, halo, overlap):
    for size in sizes(tile):
        axis = AxisGrid(size, tile, halo, overlap)
        for k in range(axis.count):
            kept = axis.kept_slice(k)
            shown = axis.source(k)[axis.inner_slice(k)]
            assert shown.tolist() == list(range(kept.start, kept.stop))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_mirroring_is_numpys_reflection(size):
    positions = np.arange(-20, size + 20)
    expected = np.pad(np.arange(size), (20, 20), mode="reflect" if size > 1 else "edge")
    assert mirror(positions, size).tolist() == expected.tolist()


def test_tiles_start_at_multiples_of_the_stride_whatever_the_size():
    starts = [AxisGrid(size, 16, 2, 4).source(3)[10] for size in (100, 101, 163)]
    assert starts == [3 * 8 - 2 + 10] * 3


@pytest.mark.parametrize("shape", [(1,), (37,), (9, 20), (17, 5), (7, 11, 6), (8, 8, 9)])
def test_final_windows_partition_a_scan_in_every_dimension(shape):
    grid = TileGrid.cover(shape, (8,) * len(shape), halo=1, overlap=2)
    hits = np.zeros(shape, int)
    for index in grid.tiles():
        window = tuple(a.final_slice(k) for a, k in zip(grid.axes, index, strict=True))
        hits[window] += 1
    assert (hits == 1).all()
    assert len(grid) == len(list(grid.tiles())) == len(set(grid.tiles()))


@pytest.mark.parametrize("sweep_axis", [0, 1, 2])
def test_the_sweep_axis_is_outermost_and_the_rest_row_major(sweep_axis):
    grid = TileGrid.cover((20, 30, 10), (8, 8, 8))
    order = list(grid.tiles(sweep_axis))
    others = [i for i in range(3) if i != sweep_axis]
    keys = [(index[sweep_axis], *(index[i] for i in others)) for index in order]
    assert keys == sorted(keys)
    assert set(order) == set(itertools.product(*(range(n) for n in grid.counts)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"size": 0, "tile": 8}, "size and tile >= 1"),
        ({"size": 8, "tile": 8, "halo": -1}, "halo and overlap >= 0"),
        ({"size": 8, "tile": 8, "halo": 4}, "leaves a stride of 0"),
        ({"size": 8, "tile": 8, "overlap": 8}, "larger tile or less overlap"),
    ],
)
def test_impossible_numbers_are_refused(arguments, expected):
    with pytest.raises(GeometryError, match=expected):
        AxisGrid(**arguments)


@pytest.mark.parametrize(
    ("tile", "halo", "overlap", "named"),
    [(100, 0, 4, "tile 100"), (128, 8, 16, "halo 8"), (128, 0, 16, "stride 112")],
)
def test_phases_that_the_network_would_not_share_are_refused(tile, halo, overlap, named):
    with pytest.raises(GeometryError, match=f"{named} is no multiple .* output_stride 32"):
        TileGrid.cover((500,), (tile,), halo=halo, overlap=overlap, output_stride=32)


def test_one_number_per_axis_is_expected():
    with pytest.raises(GeometryError, match="expected 2 numbers each"):
        TileGrid.cover((10, 10), (8, 8), overlap=(1, 2, 3))
