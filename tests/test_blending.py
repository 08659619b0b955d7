from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from segfocal.blending import Blend, RowBuffer, axis_weights, window_function
from segfocal.tiling import AxisGrid, TileGrid

BLENDS = get_args(Blend)


def in_memory(grid: TileGrid, tiles: dict, blend: str) -> np.ndarray:
    """Blend the slow and obvious way: sum of weighted tiles over sum of weights, float64."""
    classes = next(iter(tiles.values())).shape[-1]
    total = np.zeros((*grid.shape, classes))
    weights = np.zeros(grid.shape)
    for index, probabilities in tiles.items():
        weight = np.ones(())
        for axis in grid.axes:
            weight = weight[..., None] * window_function(blend, axis.kept, axis.overlap)
        for position in np.ndindex(*(axis.kept for axis in grid.axes)):
            place = tuple(
                k * axis.stride + p for k, axis, p in zip(index, grid.axes, position, strict=True)
            )
            if all(p < size for p, size in zip(place, grid.shape, strict=True)):
                inner = tuple(p + axis.halo for p, axis in zip(position, grid.axes, strict=True))
                total[place] += weight[position] * probabilities[inner]
                weights[place] += weight[position]
    return total / weights[..., None]


def streamed(grid, tiles, blend, sweep_axis=0, valid=None):
    classes = next(iter(tiles.values())).shape[-1]
    buffer = RowBuffer(grid, classes, blend, sweep_axis)
    out = np.full((*grid.shape, classes), np.nan, np.float32)
    out_valid = np.zeros(grid.shape, bool)
    row = 0

    def flush():
        rows, probabilities, good = buffer.finish_row()
        window = [slice(None)] * len(grid.shape)
        window[sweep_axis] = rows
        assert np.isnan(out[tuple(window)]).all(), "rows given out twice"
        out[tuple(window)] = probabilities
        out_valid[tuple(window)] = good

    for index in grid.tiles(sweep_axis):
        if index[sweep_axis] != row:
            flush()
            row = index[sweep_axis]
        everywhere = np.ones(grid.tile, bool)
        buffer.add(index, tiles[index], everywhere if valid is None else valid[index])
    flush()
    return out, out_valid


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [1, 7, 8, 9, 23, 64, 97])
@pytest.mark.parametrize(("halo", "overlap"), [(0, 0), (0, 3), (1, 2), (0, 5), (2, 1)])
def test_weights_of_an_axis_are_positive_and_sum_to_one(blend, size, halo, overlap):
    axis = AxisGrid(size, 8, halo, overlap)
    total = np.zeros(size)
    for k, weights in enumerate(axis_weights(axis, blend)):
        assert (weights > 0).all()
        total[axis.kept_slice(k)] += weights
    np.testing.assert_allclose(total, 1, rtol=3e-7)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("overlap", [0, 1, 5, 10, 15, 17])
def test_weights_of_a_long_axis_are_those_of_its_tiles_one_by_one(blend, overlap):
    raw = window_function(blend, 18, overlap)
    for size in range(1, 400, 7):
        axis = AxisGrid(size, 18, overlap=overlap)
        total = np.zeros(size)
        for k in range(axis.count):
            kept = axis.kept_slice(k)
            total[kept] += raw[: kept.stop - kept.start]
        found = axis_weights(axis, blend)
        assert len(found) == axis.count
        for k, weights in enumerate(found):
            kept = axis.kept_slice(k)
            expected = (raw[: kept.stop - kept.start] / total[kept]).astype(np.float32)
            np.testing.assert_array_equal(weights, expected)


def test_weights_take_no_more_memory_for_a_longer_axis():
    weights = axis_weights(AxisGrid(2**29, 512, overlap=128), "gaussian")
    assert len({id(one) for one in weights}) < 10


def test_window_functions_have_their_published_shape():
    gaussian = window_function("gaussian", 64, 16)
    # MONAI's importance map with sigma_scale 0.125 has exp(-0.5 (31.5 / 8)^2) at its edge.
    assert gaussian[0] / gaussian[31] == pytest.approx(np.exp(-0.5 * (31.5**2 - 0.5**2) / 64))
    np.testing.assert_allclose(window_function("hann", 6, 2), np.hanning(8)[1:-1])
    assert window_function("linear", 6, 2).tolist() == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]
    )
    assert window_function("constant", 3, 1).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="gaussian, hann, linear, constant"):
        window_function("triangle", 3, 1)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("shape", "tile", "halo", "overlap"),
    [
        ((37,), 8, 1, 2),
        ((9, 23), 8, 0, 3),
        ((8, 8), 8, 0, 0),
        ((1, 17), 8, 2, 1),
        ((7, 9, 11), 6, 1, 1),
        ((20, 5), 8, 0, 6),
    ],
)
def test_streaming_equals_blending_in_memory(blend, shape, tile, halo, overlap):
    rng = np.random.default_rng(0)
    grid = TileGrid.cover(shape, (tile,) * len(shape), halo=halo, overlap=overlap)
    tiles = {i: rng.random((*grid.tile, 3), np.float32) for i in grid.tiles()}
    expected = in_memory(grid, tiles, blend)
    for sweep_axis in range(len(shape)):
        found, _ = streamed(grid, tiles, blend, sweep_axis)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 8), (9, 31), (16, 17)])
def test_a_constant_comes_out_constant_corners_included(blend, shape):
    grid = TileGrid.cover(shape, (8, 8), halo=1, overlap=2)
    constant = np.array([0.7, 0.3], np.float32)
    tiles = {i: np.broadcast_to(constant, (8, 8, 2)) for i in grid.tiles()}
    found, _ = streamed(grid, tiles, blend)
    np.testing.assert_allclose(found, np.broadcast_to(constant, found.shape), rtol=1e-6)


def test_valid_is_what_any_tile_says_of_the_pixel_itself():
    rng = np.random.default_rng(1)
    truth = rng.random((19, 13)) > 0.5
    grid = TileGrid.cover(truth.shape, (8, 8), halo=1, overlap=2)
    tiles = {i: np.ones((8, 8, 1), np.float32) for i in grid.tiles()}
    valid = {i: truth[np.ix_(*grid.sources(i))] for i in grid.tiles()}
    assert (streamed(grid, tiles, "hann", valid=valid)[1] == truth).all()


def test_the_buffer_does_not_grow_with_the_length_of_the_scan():
    def size(rows: int) -> int:
        return RowBuffer(TileGrid.cover((rows, 100), (32, 32), overlap=8), 5).nbytes

    assert size(64) == size(6400) == 32 * 100 * (5 * 4 + 1)


def test_a_tile_of_another_row_is_refused():
    grid = TileGrid.cover((20, 8), (8, 8))
    buffer = RowBuffer(grid, 1)
    with pytest.raises(ValueError, match="is not of row 0"):
        buffer.add((1, 0), np.zeros((8, 8, 1), np.float32), np.ones((8, 8), bool))
