"""Batches of tiles: what the predictor sees of them."""

import numpy as np
import pytest

from segfocal.engine.forward import Forward


class Seen:
    card, ndim, output_stride, hash, engine = None, None, 1, None, "seen"

    def __init__(self, tile_by_tile):
        self.tile_by_tile, self.shapes = tile_by_tile, []

    def __call__(self, values, valid):
        self.shapes.append(values.shape)
        return np.full((*values.shape[:-1], 3), 1 / 3, np.float32)


@pytest.mark.parametrize("tile_by_tile", [True, False])
def test_an_empty_call_takes_the_memory_of_a_full_batch(tile_by_tile):
    """Its peak decides how wide strips may be: calls that run side by side must all be in it."""
    predictor = Seen(tile_by_tile)
    assert Forward(predictor, (8, 4), 2, 4).num_classes() == 3
    assert predictor.shapes == [(4, 8, 4, 2)]


def test_an_empty_call_is_no_larger_than_what_runs_side_by_side():
    predictor = Seen(True)
    predictor.lanes = 2
    Forward(predictor, (8, 4), 2, 64).num_classes()
    assert predictor.shapes == [(2, 8, 4, 2)]


@pytest.mark.parametrize(("tile_by_tile", "size"), [(True, 1), (False, 4)])
def test_the_last_batch_is_padded_unless_tiles_run_one_by_one(tile_by_tile, size):
    predictor = Seen(tile_by_tile)
    values, valid = [np.ones((8, 4, 2), np.float32)] * 5, [np.ones((8, 4), bool)] * 5
    assert len(Forward(predictor, (8, 4), 2, 4)(values, valid)) == 5
    assert [shape[0] for shape in predictor.shapes] == [4, size]
