"""The same numbers as other tools give where the definitions coincide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import segfocal as sf


def wave(batch):
    """Two classes that depend on where in its tile a pixel lies."""
    place = sum(
        np.arange(side, dtype=np.float32).reshape([-1] + [1] * (batch.ndim - 2 - axis))
        for axis, side in enumerate(batch.shape[1:-1])
    )
    first = 0.5 + 0.5 * np.sin(batch[..., :1] + 0.1 * place)
    return np.concatenate([first, 1 - first], -1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ours", "theirs"), [("constant", "constant"), ("gaussian", "gaussian")])
@pytest.mark.parametrize(
    ("shape", "tile", "overlap"), [((80, 112), 32, 16), ((64, 64), 64, 16), ((28, 36, 20), 12, 4)]
)
def test_monai_blends_to_the_same(ours, theirs, shape, tile, overlap):
    """Where size - tile is a multiple of the stride: elsewhere MONAI moves its last tile."""
    torch = pytest.importorskip("torch", reason="compares with MONAI, which needs torch")
    inferers = pytest.importorskip("monai.inferers", reason="compares with MONAI")
    array = np.random.default_rng(0).random((*shape, 1)).astype(np.float32)
    ndim = len(shape)

    def network(batch):
        channels_last = np.moveaxis(batch.numpy(), 1, -1)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(wave(channels_last), -1, 1)))

    expected = inferers.sliding_window_inference(
        torch.from_numpy(np.moveaxis(array, -1, 0)[None]),
        (tile,) * ndim,
        3,
        network,
        overlap=overlap / tile,
        mode=theirs,
    )
    expected = np.moveaxis(expected.numpy()[0], 0, -1)
    found = np.empty((*shape, 2), np.float32)
    scan = sf.MemoryScan(array)
    for window, probabilities in sf.stream(wave, scan, tile=tile, overlap=overlap, blend=ours):
        found[window] = probabilities
    compared = (
        np.ones(shape, bool) if ours == "constant" else above_monais_floor(shape, tile, overlap)
    )
    assert compared.mean() > 0.2
    np.testing.assert_allclose(found[compared], expected[compared], rtol=0, atol=1e-6)


def above_monais_floor(shape, tile, overlap):
    """Return the pixels at which MONAI raises no tile's weight to its least, a thousandth."""
    centred = np.arange(tile) - (tile - 1) / 2
    along = np.exp(-0.5 * (centred / (0.125 * tile)) ** 2)
    weight = along
    for _ in shape[1:]:
        weight = weight[..., None] * along
    above = np.ones(shape, bool)
    starts = [range(0, side - tile + 1, tile - overlap) for side in shape]
    for place in itertools.product(*starts):
        above[tuple(slice(p, p + tile) for p in place)] &= weight >= 1e-3
    return above
