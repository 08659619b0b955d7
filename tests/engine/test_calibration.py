"""Frozen contexts: measured by tiles or at once they are the same, and tiles become local."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from segfocal.engine.calibration import measure_context
from segfocal.engine.sweep import sweep
from segfocal.errors import ModelError
from segfocal.io import MemoryScan
from segfocal.models import FocalUNet
from segfocal.models.context_probe import context_probe
from segfocal.models.receptive_field import receptive_field
from segfocal.tiling import TileGrid

STRIDE = 32


# A smaller reach for the everyday run: tiles with a halo of it have a fifth of the pixels.
SHALLOW = {"depths": [1, 1, 1, 1], "focal_levels": 1}


@pytest.fixture(
    scope="module",
    params=[SHALLOW, pytest.param({}, marks=pytest.mark.slow)],
    ids=["shallow", "nano"],
)
def model(request) -> FocalUNet:
    keras.utils.set_random_seed(0)
    model = FocalUNet(num_classes=3, in_channels=2, preset="nano", encoder=request.param)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith(("kernel", "bias")):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    return model.with_global_context("frozen")


@pytest.fixture(scope="module")
def scan() -> MemoryScan:
    rng = np.random.default_rng(0)
    image = np.cumsum(np.cumsum(rng.normal(size=(150, 211, 2)), 0), 1) / 20
    valid = np.ones((150, 211), bool)
    valid[40:90, :30] = False
    return MemoryScan(image.astype("float32"), valid=valid)


def grid(scan, kept, halo):
    return TileGrid.cover(
        scan.shape,
        [side + 2 * halo for side in kept],
        halo=(halo, halo),
        overlap=(0, 0),
        output_stride=STRIDE,
    )


def halo_of(model):
    return -(-receptive_field(model)[0] // STRIDE) * STRIDE


def test_exact_means_do_not_depend_on_the_tiles(model, scan):
    halo = halo_of(model)
    whole = measure_context(model, scan, grid(scan, (160, 224), halo), exact=True, batch_size=1)
    tiles = measure_context(model, scan, grid(scan, (64, 96), halo), exact=True, batch_size=3)
    np.testing.assert_allclose(tiles, whole, atol=1e-5 * np.abs(whole).max())
    # Without the halo they do.
    near = measure_context(model, scan, grid(scan, (64, 96), 0), exact=True)
    assert np.abs(near - whole).max() > 1e-3 * np.abs(whole).max()


def test_in_a_scan_of_one_tile_frozen_is_tile(model):
    """One pass measures the means that the tile itself uses, nodata left out."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(64, 96, 2)).astype("float32")
    valid = rng.random((64, 96)) > 0.3
    small = MemoryScan(image, valid=valid)
    context = measure_context(model, small, grid(small, (64, 96), 0), batch_size=2)
    inputs = {"image": image[None], "valid": valid[None]}
    expected = np.asarray(model.with_global_context("tile")(inputs))
    found = np.asarray(model({**inputs, "context": context[None]}))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_one_pass_is_close_to_exact_and_not_the_same(model, scan):
    tiles = grid(scan, (64, 96), 64)
    exact = measure_context(model, scan, tiles, exact=True)
    once = measure_context(model, scan, tiles)
    first = slice(0, 24)  # nothing comes before the first block
    np.testing.assert_allclose(once[first], exact[first], rtol=1e-5, atol=1e-5)
    difference = np.abs(once - exact)[24:].max()
    assert 1e-4 < difference < 0.5 * np.abs(exact).max()


class Network:
    """A model as the sweep wants it, giving logits; with the means of a scan if it is frozen."""

    card = None
    ndim = 2
    output_stride = STRIDE

    def __init__(self, model, context=None):
        self.model, self.context = model, context

    def __call__(self, values, valid):
        inputs = {"image": values, "valid": valid}
        if self.context is not None:
            inputs["context"] = np.tile(self.context, (len(values), 1))
        return np.asarray(self.model.predict_on_batch(inputs))


def swept(network, scan, tiles):
    logits = np.zeros((*scan.shape, 3), "float32")
    for rows in sweep(scan, network, tiles, batch_size=1):
        logits[rows.window] = rows.probabilities
        logits[rows.window][~rows.valid] = 0
    return logits


def test_with_the_receptive_field_as_halo_tiled_equals_whole(model, scan):
    halo = halo_of(model)
    context = measure_context(model, scan, grid(scan, (64, 96), 0))
    frozen, own = Network(model, context), Network(model.with_global_context("tile"))
    large, small = grid(scan, (160, 224), halo), grid(scan, (64, 96), halo)
    whole = swept(frozen, scan, large)
    np.testing.assert_allclose(swept(frozen, scan, small), whole, atol=1e-4)
    # Without the halo they differ, and so do tiles that use their own means.
    assert np.abs(swept(frozen, scan, grid(scan, (64, 96), 0)) - whole).max() > 1e-2
    assert np.abs(swept(own, scan, small) - swept(own, scan, large)).max() > 1e-2


def test_a_position_counts_when_it_holds_one_counted_pixel(model):
    probe = context_probe(model)
    image = np.zeros((1, 64, 64, 2), "float32")
    valid, counted = np.ones((1, 64, 64), bool), np.zeros((1, 64, 64), bool)
    counted[0, 5, 6] = counted[0, 63, 0] = True
    found = probe.predict_on_batch({"image": image, "valid": valid, "counted": counted})
    assert (np.asarray(found["counts"]) == 2).all()


def test_a_scan_without_valid_pixels_has_means_of_zero(model):
    empty = MemoryScan(np.full((40, 40, 2), np.nan, "float32"))
    context = measure_context(model, empty, grid(empty, (64, 64), 0))
    np.testing.assert_array_equal(context, np.zeros(model.encoder.context_size, "float32"))


def test_progress_counts_every_pass(model, scan):
    seen = []
    tiles = grid(scan, (160, 224), 0)
    measure_context(model, scan, tiles, exact=True, progress=lambda *now: seen.append(now))
    blocks = sum(model.encoder.get_config()["depths"])
    assert seen == [(i, blocks) for i in range(1, blocks + 1)]


def test_overlapping_tiles_and_unfrozen_models_are_refused(model, scan):
    overlapping = TileGrid.cover(
        scan.shape, (64, 64), halo=(0, 0), overlap=(32, 32), output_stride=STRIDE
    )
    with pytest.raises(ValueError, match="expected an overlap of 0"):
        measure_context(model, scan, overlapping)
    with pytest.raises(ValueError, match="expected 'frozen'"):
        measure_context(model.with_global_context("tile"), scan, grid(scan, (64, 64), 0))


def test_means_that_overflow_are_refused(scan):
    model = FocalUNet(num_classes=2, in_channels=2, preset="nano").with_global_context("frozen")
    weight = model.encoder.get_layer("stage1_block1").modulation.context_projection.kernel
    weight.assign(np.full(weight.shape, np.inf))
    with pytest.raises(ModelError, match="means of the scan are not finite"):
        measure_context(model, scan, grid(scan, (64, 64), 0))
