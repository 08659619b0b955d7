"""The whole engine against a slow and obvious one in memory, over random settings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import segfocal as sf
from segfocal.engine import job as job_module

BLENDS = ["gaussian", "hann", "linear", "constant"]


def model(batch):
    """Depends on place in the tile and on neighbours: two classes and no symmetry."""
    sums = batch.astype(np.float64)
    for axis in range(1, batch.ndim - 1):
        ramp = np.arange(batch.shape[axis]).reshape([-1 if i == axis else 1 for i in range(5)][
            : batch.ndim
        ])  # fmt: skip
        sums = sums + 0.3 * np.roll(sums, 1, axis) + 0.01 * ramp
    first = 0.5 + 0.5 * np.sin(sums[..., :1] - sums[..., -1:])
    return np.concatenate([first, 1 - first], -1).astype(np.float32)


def weight_of(blend, kept, overlap):
    position = np.arange(kept)
    if blend == "gaussian":
        return np.exp(-0.5 * ((position - (kept - 1) / 2) / (kept / 8)) ** 2)
    if blend == "hann":
        return np.sin(np.pi * (position + 1) / (kept + 1)) ** 2
    if blend == "linear":
        return np.minimum(1, (np.minimum(position, kept - 1 - position) + 1) / (overlap + 1))
    return np.ones(kept)


def oracle(array, valid, tile, halo, overlap, blend):
    """Pad the whole scan, cut tiles, sum weighted results and weights in float64, divide."""
    shape = valid.shape
    kept = [t - 2 * h for t, h in zip(tile, halo, strict=True)]
    strides = [k - o for k, o in zip(kept, overlap, strict=True)]
    starts = []
    for size, k, s in zip(shape, kept, strides, strict=True):
        along = [0]
        while along[-1] + k < size:
            along.append(along[-1] + s)
        starts.append(along)
    pads = [(h, along[-1] + t) for h, along, t in zip(halo, starts, tile, strict=True)]
    padded = np.where(valid[..., None], array, 0)
    for axis, pad in enumerate(pads):
        mode = "reflect" if shape[axis] > 1 else "edge"
        padded = np.pad(
            padded, [pad if i == axis else (0, 0) for i in range(padded.ndim)], mode=mode
        )
    total = np.zeros([p + t for p, t in zip(padded.shape[:-1], tile, strict=True)] + [2])
    weights = np.zeros(total.shape[:-1])
    weight = np.ones(())
    for k, o in zip(kept, overlap, strict=True):
        weight = weight[..., None] * weight_of(blend, k, o)
    for place in itertools.product(*starts):
        cut = tuple(slice(p, p + t) for p, t in zip(place, tile, strict=True))
        result = model(padded[cut][None].astype(np.float32))[0]
        inner = tuple(slice(h, h + k) for h, k in zip(halo, kept, strict=True))
        target = tuple(slice(p, p + k) for p, k in zip(place, kept, strict=True))
        total[target] += weight[..., None] * result[inner]
        weights[target] += weight
    whole = tuple(slice(0, size) for size in shape)
    result = total[whole] / weights[whole][..., None]
    result[~valid] = np.nan
    return result


def draw(seed):
    rng = np.random.default_rng(seed)
    ndim = 2 + int(rng.random() < 0.3)
    largest = 60 if ndim == 2 else 20
    tile = rng.integers(1, 17, ndim)
    halo = np.minimum(rng.integers(0, 4, ndim), (tile - 1) // 2)
    overlap = (rng.random(ndim) * (tile - 2 * halo)).astype(int)
    # Near multiples of the stride too, where grids miss a row.
    shape = rng.integers(1, largest, ndim)
    stride = tile - 2 * halo - overlap
    near = overlap + stride * rng.integers(1, 4, ndim) + rng.integers(-1, 2, ndim)
    shape = np.where(rng.random(ndim) < 0.5, shape, np.maximum(near, 1))
    valid = rng.random(tuple(shape)) > 0.1 * rng.integers(0, 2)
    if rng.random() < 0.3:
        valid[shape[0] // 3 :] = False
    return {
        "array": rng.random((*shape, 2)).astype(np.float32) * 4,
        "valid": valid,
        "tile": tile.tolist(),
        "halo": halo.tolist(),
        "overlap": overlap.tolist(),
        "blend": BLENDS[seed % 4],
        "slow_axis": int(rng.integers(ndim)),
    }


@pytest.mark.parametrize("seed", range(150))
def test_any_setting_equals_the_oracle_and_itself_however_it_is_cut(seed, monkeypatch):
    monkeypatch.setattr(job_module, "peak_bytes", lambda call: (call(), 0))
    case = draw(seed)
    array, valid, slow_axis = case.pop("array"), case.pop("valid"), case.pop("slow_axis")
    found = []
    rng = np.random.default_rng(seed)
    for batch_size, max_memory in [(1, None), (int(rng.integers(2, 9)), None), (3, "least")]:
        scan = sf.MemoryScan(array, valid=valid)
        scan.slow_axis = slow_axis
        if max_memory == "least":
            max_memory = least_memory(scan, case, batch_size)
        out = np.full((*valid.shape, 2), 9, np.float32)
        for window, probabilities in sf.stream(
            model, scan, batch_size=batch_size, max_memory=max_memory, **case
        ):
            assert (out[window] == 9).all(), "given out twice"
            out[window] = probabilities
        found.append(out)
    expected = oracle(array, valid, case["tile"], case["halo"], case["overlap"], case["blend"])
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def least_memory(scan, case, batch_size):
    """Return the lowest limit that is accepted: strips of one column of tiles."""
    low, high = 1, 10**9
    while low < high:
        middle = (low + high) // 2
        try:
            sf.stream(model, scan, batch_size=batch_size, max_memory=middle, **case)
        except sf.SegfocalError:
            low = middle + 1
        else:
            high = middle
    return low
