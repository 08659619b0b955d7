"""Augmentation keeps image, validity and labels together and invents nothing."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from segfocal.card import IGNORE_INDEX
from segfocal.data.augment import augment_patch
from segfocal.data.augmentation import (
    Augmentation,
    Change,
    default_augmentation,
    light_augmentation,
)
from segfocal.data.volume_geometry import bend_volume

ALWAYS = {
    "rotation": Change(probability=1, range=(-60, 60)),
    "scaling": Change(probability=1, range=(0.7, 1.4)),
    "elastic": Change(probability=1, range=(1, 1.5)),
}
BENT = Augmentation(**ALWAYS)


def augmented(values, valid, labels, seed, settings=BENT, mean=0.0, std=1.0, **options):
    channels = values.shape[-1]
    return augment_patch(
        values,
        valid,
        labels,
        mean=np.full(channels, mean, np.float32),
        std=np.full(channels, std, np.float32),
        settings=settings,
        rng=np.random.default_rng(seed),
        **{"mirror_axes": range(labels.ndim), **options},
    )


def stripes(ndim: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes 0 to 2 ** ndim - 1 in boxes, and an image whose channels say which box."""
    stripe = (np.arange(side) >= 0.4 * side).astype(np.int32)
    places = np.meshgrid(*(stripe,) * ndim, indexing="ij")
    labels = sum(place * 2**axis for axis, place in enumerate(places)).astype(np.int32)
    return np.stack([100.0 * place for place in places], -1).astype(np.float32), labels


def inside(labels: np.ndarray) -> np.ndarray:
    """Where a label and its neighbours are the same: nothing is interpolated there."""
    return ndimage.maximum_filter(labels, 7) == ndimage.minimum_filter(labels, 7)


@pytest.mark.parametrize("alone", ["rotation", "scaling", "elastic", None])
@pytest.mark.parametrize(("ndim", "side"), [(2, 64), (3, 48)])
def test_image_and_labels_are_bent_alike(ndim, side, alone):
    image, labels = stripes(ndim, side)
    settings = BENT if alone is None else Augmentation(**{alone: ALWAYS[alone]})
    bent = 0
    for seed in range(6):
        values, valid, found = augmented(
            image, np.ones(labels.shape, bool), labels, seed, settings, mean=40, std=9
        )
        known = found >= 0
        np.testing.assert_array_equal(valid, known)  # what lies beyond is neither
        clear = inside(found) & known
        assert clear.sum() > 0.1 * clear.size
        for axis in range(ndim):
            np.testing.assert_allclose(
                values[..., axis][clear], 100 * (found[clear] >> axis & 1), atol=1e-3
            )
        bent += not any(np.array_equal(found, np.flip(labels, axes)) for axes in _subsets(ndim))
    assert bent >= 4  # a zoom by little moves no label of a small patch


def _subsets(ndim: int) -> list[tuple[int, ...]]:
    return [
        axes for count in range(ndim + 1) for axes in itertools.combinations(range(ndim), count)
    ]


@pytest.mark.parametrize("shape", [(48, 48), (24, 24, 24)])
def test_class_values_are_never_invented(shape):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 7, 40_000], shape).astype(np.int32)
    labels[::5] = IGNORE_INDEX
    values, valid = np.zeros((*shape, 1), np.float32), np.ones(shape, bool)
    seen = set()
    for seed in range(4):
        _, _, found = augmented(values, valid, labels, seed)
        assert found.dtype == np.int32
        seen |= set(np.unique(found))
    assert seen == {IGNORE_INDEX, 0, 7, 40_000}


@pytest.mark.parametrize("shape", [(40, 40), (30, 44), (20, 24, 22)])
def test_borders_are_ignored_and_not_the_background(shape):
    labels = np.full(shape, 3, np.int32)
    image = np.full((*shape, 2), 50.0, np.float32)
    share = []
    for seed in range(8):
        values, valid, found = augmented(image, labels > 0, labels, seed, mean=20, std=5)
        assert set(np.unique(found)) <= {IGNORE_INDEX, 3}
        np.testing.assert_array_equal(valid, found == 3)
        np.testing.assert_array_equal(values[~valid], 20)  # the mean
        share.append(1 - valid.mean())
    assert max(share) > 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -3.4e38, 1e30])
@pytest.mark.parametrize("shape", [(32, 32), (16, 18, 16)])
def test_what_stands_at_invalid_pixels_does_not_leak(bad, shape):
    rng = np.random.default_rng(0)
    values = rng.uniform(10, 20, (*shape, 3)).astype(np.float32)
    valid = rng.random(shape) < 0.7
    values[~valid] = bad
    labels = np.where(valid, 1, IGNORE_INDEX).astype(np.int32)
    for seed in range(4):
        found, found_valid, found_labels = augmented(values, valid, labels, seed, mean=15, std=2)
        assert 0 < found_valid.sum() < found_valid.size
        assert found.min() >= 10 - 1e-3
        assert found.max() <= 20 + 1e-3
        np.testing.assert_array_equal(found_valid, found_labels == 1)


@pytest.mark.parametrize("shape", [(32, 32), (16, 18, 16)])
def test_values_are_not_mixed_with_what_invalid_pixels_get(shape):
    valid = np.random.default_rng(0).random(shape) < 0.7
    labels = np.where(valid, 1, IGNORE_INDEX).astype(np.int32)
    values = np.full((*shape, 2), 20, np.float32)
    for seed in range(4):
        found, found_valid, _ = augmented(values, valid, labels, seed, mean=5, std=2)
        np.testing.assert_allclose(found[found_valid], 20, rtol=1e-5)
        np.testing.assert_array_equal(found[~found_valid], 5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 40), (6, 6), (2, 3, 4)])
def test_small_patches_can_be_bent(shape):
    labels = np.ones(shape, np.int32)
    found, valid, found_labels = augmented(
        labels[..., None].astype(np.float32), labels > 0, labels, 0
    )
    assert found.shape == (*shape, 1)
    np.testing.assert_allclose(found[..., 0], valid, atol=1e-5)
    np.testing.assert_array_equal(found_labels, np.where(valid, 1, IGNORE_INDEX))


def test_elastic_displacements_are_in_units_of_the_finest_axis():
    shape = (40, 40, 40)
    grid = np.stack(np.indices(shape), -1).astype(np.float32)
    settings = Augmentation(elastic=Change(probability=1, range=(2, 2)))
    moved = []
    for seed in range(4):
        values, valid, _ = augmented(
            grid, np.ones(shape, bool), np.zeros(shape, np.int32), seed, settings,
            mirror_axes=(), spacing=(1, 1, 2.5),
        )  # fmt: skip
        moved.append((values - grid)[valid].std(0))
    along = np.mean(moved, 0)
    assert along[2] * 2.5 == pytest.approx(along[:2].mean(), rel=0.3)


def test_anisotropic_volumes_are_bent_within_their_planes_only():
    labels = np.broadcast_to(np.arange(9, dtype=np.int32)[:, None, None], (9, 24, 24)).copy()
    image = labels[..., None].astype(np.float32)
    for seed in range(4):
        values, valid, found = augmented(
            image, labels >= 0, labels, seed, spacing=(5, 1, 1.2), mirror_axes=()
        )
        # Each plane stays where it is: nothing is mixed across.
        planes = np.broadcast_to(np.arange(9)[:, None, None], found.shape)
        np.testing.assert_array_equal(found[valid], planes[valid])
        np.testing.assert_allclose(values[valid][:, 0], planes[valid], atol=1e-4)
        assert (found[:, 12, 12] >= 0).all()
    _, _, found = augmented(image, labels >= 0, labels, 0, spacing=(2, 1, 1), mirror_axes=())
    assert not np.array_equal(found[found >= 0], planes[found >= 0])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (1, 1.5, 2.5)])
def test_a_ball_stays_a_ball_when_voxels_are_not_cubes(spacing):
    shape = tuple(int(40 / side) for side in spacing)
    grid = np.indices(shape).T * spacing - (np.array(shape) - 1) / 2 * spacing
    ball = (np.linalg.norm(grid.T, axis=0) < 12).astype(np.int32)
    rotation = Augmentation(rotation=Change(probability=1, range=(-90, 90)))
    for seed in range(4):
        _, _, found = augmented(
            ball[..., None].astype(np.float32), ball >= 0, ball, seed, rotation, spacing=spacing
        )
        both = ((found == 1) & (ball == 1)).sum() * 2 / ((found == 1).sum() + ball.sum())
        assert both > 0.93


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 32)])
@pytest.mark.parametrize("zoom", [0.8, 1.25])
def test_zoom_scales_areas(shape, zoom):
    centre = tuple(slice(int(0.35 * side), int(0.65 * side)) for side in shape)
    labels = np.zeros(shape, np.int32)
    labels[centre] = 1
    settings = Augmentation(scaling=Change(probability=1, range=(zoom, zoom)))
    _, _, found = augmented(labels[..., None].astype(np.float32), labels >= 0, labels, 0, settings)
    assert (found == 1).sum() == pytest.approx(labels.sum() * zoom ** len(shape), rel=0.2)


@pytest.mark.parametrize("zoom", [0.71, 0.93, 1.0, 1.39])
def test_zoomed_volumes_are_those_of_scipy(zoom):
    rng = np.random.default_rng(0)
    shape = (13, 20, 17)
    values = rng.normal(size=(*shape, 2)).astype(np.float32)
    code = rng.integers(1, 9, shape).astype(np.int32)
    found, found_code = bend_volume(
        values, code, angles=(0, 0, 0), zoom=zoom, elastic=0, spacing=(1, 1, 4), rng=rng
    )
    steps = np.array([1 / zoom, 1 / zoom, 1])  # not across planes that lie far apart
    offset = (np.array(shape) - 1) / 2 * (1 - steps)
    for k in range(2):
        expected = ndimage.affine_transform(values[..., k], steps, offset, order=1, mode="constant")
        np.testing.assert_allclose(found[..., k], expected, atol=2e-6)
    expected = ndimage.affine_transform(code, steps, offset, order=0, mode="constant")
    np.testing.assert_array_equal(found_code, expected)


@pytest.mark.parametrize("shape", [(96, 96), (40, 40, 40)])
def test_elastic_displacements_are_as_large_as_asked_for(shape):
    grid = np.stack(np.indices(shape), -1).astype(np.float32)
    settings = Augmentation(elastic=Change(probability=1, range=(2, 2)))
    moved = []
    for seed in range(4):
        values, valid, _ = augmented(
            grid, np.ones(shape, bool), np.zeros(shape, np.int32), seed, settings, mirror_axes=()
        )
        moved.append((values - grid)[valid].std())
        assert not np.allclose(values[valid][:, 0] - grid[valid][:, 0], 0)
    assert 1.2 < np.mean(moved) < 2.8


@pytest.mark.parametrize(
    ("shape", "mirror_axes"),
    [
        ((4, 5, 6), (0, 1, 2)),
        ((4, 5, 6), (1,)),
        ((6, 6, 6), (0, 2)),
        ((6, 6, 6), ()),
        ((5, 7), (0, 1)),
        ((6, 6), (1,)),
    ],
)
def test_patches_are_flipped_along_the_mirror_axes_only(shape, mirror_axes):
    labels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    values = labels[..., None].astype(np.float32)
    expected = {
        np.flip(labels, axes).tobytes(): axes
        for count in range(len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    }
    seen = set()
    for seed in range(60):
        found_values, valid, found = augmented(
            values, labels % 3 > 0, labels, seed, Augmentation(), mirror_axes=mirror_axes
        )
        axes = expected[found.tobytes()]
        seen.add(axes)
        np.testing.assert_array_equal(valid, np.flip(labels % 3 > 0, axes))
        np.testing.assert_array_equal(found_values[..., 0], np.where(valid, found, 0))
    assert seen == set(expected.values())


def test_square_patches_are_turned_in_all_eight_ways():
    labels = np.arange(36, dtype=np.int32).reshape(6, 6)
    ways = {np.rot90(a, k).tobytes() for a in (labels, labels.T) for k in range(4)}
    turned = Augmentation(quarter_turns=True)
    seen = {
        augmented(labels[..., None].astype(np.float32), labels >= 0, labels, seed, turned)[
            2
        ].tobytes()
        for seed in range(80)
    }
    assert seen == ways


def test_volumes_are_turned_only_in_planes_of_equal_sides_and_spacing():
    labels = np.arange(5 * 6 * 6, dtype=np.int32).reshape(5, 6, 6)
    image, everywhere = labels[..., None].astype(np.float32), labels >= 0
    turned = Augmentation(quarter_turns=True)
    for spacing, swaps in (((1, 1, 1), True), ((1, 1, 2), False)):
        seen = [
            augmented(image, everywhere, labels, seed, turned, spacing=spacing)[2]
            for seed in range(30)
        ]
        flips = {np.flip(labels, axes).tobytes() for axes in _subsets(3)}
        swapped = {np.flip(labels.swapaxes(1, 2), axes).tobytes() for axes in _subsets(3)}
        found = {one.tobytes() for one in seen}
        assert found <= flips | swapped
        assert bool(found & swapped) == swaps


EVERYTHING = Augmentation(
    **{
        name: value.model_copy(update={"probability": 0.7})
        for name, value in Augmentation()
        if isinstance(value, Change)
    },
    quarter_turns=True,
)


@pytest.mark.parametrize("shape", [(32, 32), (12, 13, 14)])
def test_the_same_state_gives_the_same_sample_in_any_thread(shape):
    rng = np.random.default_rng(0)
    values = rng.random((*shape, 4)).astype(np.float32)
    valid, labels = rng.random(shape) < 0.8, rng.integers(0, 3, shape).astype(np.int32)
    before = (values.copy(), valid.copy(), labels.copy())

    def make(seed):
        return augmented(values, valid, labels, seed, EVERYTHING)

    first = [make(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        second = list(pool.map(make, [*reversed(range(8))]))
    for one, other in zip(first, reversed(second), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({one[0].tobytes() for one in first}) == 8
    for given, kept in zip((values, valid, labels), before, strict=True):
        np.testing.assert_array_equal(given, kept, err_msg="the input was changed")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13, 130])
@pytest.mark.parametrize(("ndim", "side"), [(2, 40), (3, 16)])
def test_every_channel_is_bent_alike(ndim, side, channels):
    encoded, labels = stripes(ndim, side)
    values = np.repeat(encoded[..., :1], channels, -1)
    # A factor of its own tells channels apart: none may take another's place.
    factors = np.arange(1, channels + 1, dtype=np.float32)
    for seed in range(4):
        found, _, _ = augmented(values * factors, labels >= 0, labels, seed)
        assert found.shape == (*labels.shape, channels)
        assert found.dtype == np.float32
        assert found.any()
        np.testing.assert_allclose(found, found[..., :1] * factors, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (20, 22, 20)])
def test_values_far_from_zero_and_one_are_not_clipped(shape):
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 400, (*shape, 2)).astype(np.float32)
    labels = np.zeros(shape, np.int32)
    found, valid, _ = augmented(values, labels == 0, labels, 1, mean=1000, std=400)
    assert found[valid].std() > 150
    assert found[valid].max() > 1500
    assert found[valid].min() < 500


@pytest.mark.parametrize("shape", [(32, 32), (20, 22, 20)])
@pytest.mark.parametrize("scale", [(0, 1), (-120, 300), (2e4, 9e3)])
def test_z_scored_intensities_keep_both_tails_through_all_changes(shape, scale):
    """Such values lie on both sides of 0 and beyond 1: nothing may cut them there."""
    mean, std = scale
    labels = np.zeros(shape, np.int32)
    ramp = np.linspace(-3, 3, shape[0], dtype=np.float32).reshape(-1, *(1,) * len(shape))
    values = np.broadcast_to(ramp, (*shape, 2)) * std + mean
    # Of noise and gain alone the range is known: that of the ramp, times the factor, plus noise.
    settings = EVERYTHING.model_copy(
        update={
            name: value.model_copy(update={"probability": float(name in ("gain", "noise"))})
            for name, value in EVERYTHING
            if isinstance(value, Change)
        }
    )
    for seed in range(6):
        found, valid, _ = augmented(
            values.astype(np.float32), labels == 0, labels, seed, settings, mean=mean, std=std
        )
        scores = (found[valid] - mean) / std
        assert scores.min() < -2.2
        assert scores.max() > 2.2
        found, valid, _ = augmented(
            values.astype(np.float32), labels == 0, labels, seed, EVERYTHING, mean=mean, std=std
        )
        scores = (found[valid] - mean) / std
        assert np.isfinite(scores).all()
        assert scores.min() < -1
        assert scores.max() > 1
        # Cut off, many would share the lowest or highest value.
        for end in (scores.min(), scores.max()):
            assert (np.abs(scores - end) < 1e-6).mean() < 0.2


@pytest.mark.parametrize(
    ("settings", "shape"),
    [(light_augmentation(2), (24, 24)), (default_augmentation((24, 24)), (24, 24)),
     (light_augmentation(3), (8, 8, 8)), (default_augmentation((8, 8, 8)), (8, 8, 8))],
)  # fmt: skip
def test_a_patch_without_a_valid_pixel_stays_one(settings, shape):
    nothing = np.zeros(shape, bool)
    labels = np.full(shape, IGNORE_INDEX, np.int32)
    for seed in range(12):
        values, valid, found = augmented(
            np.full((*shape, 2), np.nan, np.float32), nothing, labels, seed, settings, mean=3
        )
        assert not valid.any()
        assert (found == IGNORE_INDEX).all()
        np.testing.assert_array_equal(values, 3)


def test_defaults_follow_the_shape_of_the_patch_and_the_spacing():
    def degrees(*arguments):
        return default_augmentation(*arguments).rotation.range[1]

    assert degrees((256, 256)) == 180
    assert degrees((256, 128)) == 15
    assert degrees((64, 64, 64)) == 30
    assert degrees((64, 64, 64), (3, 1, 1)) == 30
    assert degrees((16, 64, 64), (3.1, 1, 1)) == 180  # within planes


def test_albumentations_does_not_ask_the_network_for_updates():
    program = """
import socket
import numpy as np
asked = []
def refuse(*arguments, **more):
    asked.append(arguments)
    raise OSError("no network")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from segfocal.data.scene_geometry import bend_scene
values = np.ones((8, 8, 1), np.float32)
bend_scene(values, values[..., 0].astype(int), angles=(30,), zoom=1, elastic=1, spacing=(1, 1),
           rng=np.random.default_rng(0))
import albumentations
print("asked", len(asked))
"""
    environment = {key: v for key, v in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("asked 0\n", "")
