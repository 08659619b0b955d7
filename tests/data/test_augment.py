"""Augmentation keeps image, validity and labels together and invents nothing."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from segfocal.card import IGNORE_INDEX
from segfocal.data.augment import MAX_GAIN, MAX_SHIFT, augment_patch

BOTH = (0, 1)


def augmented(values, valid, labels, seed, mean=0.0, std=0.0, mirror_axes=BOTH):
    channels = values.shape[-1]
    return augment_patch(
        values,
        valid,
        labels,
        mean=np.full(channels, mean, np.float32),
        std=np.full(channels, std, np.float32),
        mirror_axes=mirror_axes,
        rng=np.random.default_rng(seed),
    )


def stripes(side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Nine classes, 3 * (stripe of the row) + (stripe of the column), of unequal widths."""
    stripe = np.digitize(np.arange(side), [side // 5, side // 2])
    labels = (3 * stripe[:, None] + stripe[None]).astype(np.int32)
    encoded = np.stack([100.0 * (labels // 3), 100.0 * (labels % 3)], -1).astype(np.float32)
    return encoded, labels


def turned(array: np.ndarray) -> list[np.ndarray]:
    """The eight symmetries of the square."""
    return [np.rot90(a, k) for a in (array, array.T) for k in range(4)]


def test_labels_stay_with_their_pixels():
    encoded, labels = stripes()
    everywhere = np.ones(labels.shape, bool)
    warped = 0
    symmetries = set()
    for seed in range(60):
        values, valid, found = augmented(encoded, everywhere, labels, seed, mean=100, std=1)
        assert valid.all()
        assert set(np.unique(found)) <= {IGNORE_INDEX, *range(9)}
        # Inside a stripe nothing is interpolated. Gain acts around the mean, 100.
        inside = ndimage.maximum_filter(found, 5) == ndimage.minimum_filter(found, 5)
        assert inside.sum() > 400
        for channel, stripe in enumerate((found // 3, found % 3)):
            off = np.abs(values[..., channel] - 100.0 * stripe)[inside & (found >= 0)]
            assert off.max() <= 100 * MAX_GAIN + MAX_SHIFT + 1e-3
        same = [k for k, image in enumerate(turned(labels)) if np.array_equal(image, found)]
        warped += not same
        symmetries.update(same)
    assert symmetries == set(range(8))
    assert 5 < warped < 35  # three in ten are rotated and zoomed


def test_labels_are_never_averaged():
    labels = np.where(np.random.default_rng(0).random((32, 32)) < 0.5, 0, 7).astype(np.int32)
    labels[::5] = IGNORE_INDEX
    values = np.zeros((32, 32, 1), np.float32)
    seen = set()
    for seed in range(40):
        _, _, found = augmented(values, np.ones((32, 32), bool), labels, seed)
        assert found.dtype == np.int32
        seen |= set(np.unique(found))
    assert seen == {IGNORE_INDEX, 0, 7}


def test_borders_are_mirrored_and_not_filled_with_the_background():
    labels = np.full((32, 32), 3, np.int32)
    values = np.full((32, 32, 1), 50.0, np.float32)
    for seed in range(40):
        found_values, valid, found = augmented(values, labels > 0, labels, seed, mean=50, std=0)
        assert (found == 3).all()
        assert valid.all()
        np.testing.assert_allclose(found_values, 50, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -3.4e38, 1e30])
@pytest.mark.parametrize("space", [(32, 32), (24, 32), (8, 8, 8)])
def test_what_stands_at_invalid_pixels_does_not_leak(bad, space):
    rng = np.random.default_rng(0)
    values = rng.uniform(10, 20, (*space, 3)).astype(np.float32)
    valid = rng.random(space) < 0.7
    values[~valid] = bad
    labels = np.where(valid, 1, IGNORE_INDEX).astype(np.int32)
    for seed in range(20):
        found, found_valid, found_labels = augmented(
            values, valid, labels, seed, mean=15, std=2, mirror_axes=range(len(space))
        )
        assert 0 < found_valid.sum() < found_valid.size
        assert (found >= 15 - 5 * (1 + MAX_GAIN) - 2 * MAX_SHIFT - 1e-3).all()
        assert (found <= 15 + 5 * (1 + MAX_GAIN) + 2 * MAX_SHIFT + 1e-3).all()
        # Validity is warped as labels are, so both agree on every pixel.
        np.testing.assert_array_equal(found_valid, found_labels == 1)


def test_intensity_is_a_gain_around_the_mean_and_a_shift_per_channel():
    values = np.broadcast_to(np.linspace(0, 10, 24 * 30, dtype=np.float32), (2, 24 * 30)).T
    values = values.reshape(24, 30, 2)
    labels = np.zeros((24, 30), np.int32)
    gains, shifts = [], []
    for seed in range(40):
        found, _, _ = augmented(values, labels == 0, labels, seed, mean=4, std=3, mirror_axes=())
        for channel in range(2):
            gain, offset = np.polyfit(values[..., channel].ravel(), found[..., channel].ravel(), 1)
            np.testing.assert_allclose(
                found[..., channel], values[..., channel] * gain + offset, atol=1e-4
            )
            gains.append(gain)
            shifts.append((offset + 4 * gain - 4) / 3)
    for drawn, centre, reach in ((gains, 1, MAX_GAIN), (shifts, 0, MAX_SHIFT)):
        assert centre - reach - 1e-4 < min(drawn) < centre - 0.8 * reach
        assert centre + 0.8 * reach < max(drawn) < centre + reach + 1e-4
    assert len(set(np.round(gains, 6))) == len(gains), "channels share their gain"


@pytest.mark.parametrize(
    ("space", "mirror_axes"),
    [
        ((4, 5, 6), (0, 1, 2)),
        ((4, 5, 6), (1,)),
        ((6, 6, 6), (0, 2)),
        ((6, 6, 6), ()),
        ((5, 7), (0, 1)),
        ((6, 6), (1,)),
    ],
)
def test_other_samples_are_flipped_along_the_mirror_axes_only(space, mirror_axes):
    labels = np.arange(np.prod(space), dtype=np.int32).reshape(space)
    values = labels[..., None].astype(np.float32)
    valid = labels % 3 > 0
    expected = {
        np.flip(labels, axes).tobytes(): axes
        for count in range(len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    }
    seen = set()
    for seed in range(60):
        found_values, found_valid, found = augmented(
            values, valid, labels, seed, mirror_axes=mirror_axes
        )
        axes = expected[found.tobytes()]
        seen.add(axes)
        np.testing.assert_array_equal(found_valid, np.flip(valid, axes))
        clean = np.where(found_valid, found, 0)
        (gain,) = {round(float(g), 4) for g in (found_values[..., 0] / clean.clip(1))[clean > 9]}
        np.testing.assert_allclose(found_values[..., 0], clean * gain, rtol=1e-3)
    assert seen == set(expected.values())


@pytest.mark.parametrize("space", [(32, 32), (6, 7, 8)])
def test_the_same_state_gives_the_same_sample(space):
    rng = np.random.default_rng(0)
    values = rng.random((*space, 4)).astype(np.float32)
    valid, labels = rng.random(space) < 0.8, rng.integers(0, 3, space).astype(np.int32)
    sample = (values.copy(), valid.copy(), labels.copy())
    results = []
    for seed in (*range(12), *range(12)):
        results.append(augmented(*sample, seed, std=1, mirror_axes=range(len(space))))
    for first, second in zip(results[:12], results[12:], strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({values.tobytes() for values, _, _ in results}) == 12
    for given, before in zip(sample, (values, valid, labels), strict=True):
        np.testing.assert_array_equal(given, before, err_msg="the input was changed")


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 12])
def test_every_channel_is_turned_alike(channels):
    encoded, labels = stripes(40)
    values = np.repeat(encoded[..., :1], channels, -1)
    for seed in range(12):
        found, _, _ = augmented(values, labels >= 0, labels, seed)
        assert found.shape == (40, 40, channels)
        assert found.dtype == np.float32
        # Each channel has its own gain around 0; divided by its maximum, all are the same.
        relative = found / found.max((0, 1))
        np.testing.assert_allclose(relative, relative[..., :1].repeat(channels, -1), atol=1e-5)


def test_albumentations_does_not_ask_the_network_for_updates():
    program = """
import socket
import numpy as np
asked = []
def refuse(*arguments, **more):
    asked.append(arguments)
    raise OSError("no network")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from segfocal.data.augment import augment_patch
labels = np.zeros((8, 8), np.int32)
one = np.ones(1, np.float32)
augment_patch(labels[..., None] * one, labels == 0, labels,
              mean=one, std=one, mirror_axes=(0, 1), rng=np.random.default_rng(0))
import albumentations
print("asked", len(asked))
"""
    environment = {key: v for key, v in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("asked 0\n", "")
