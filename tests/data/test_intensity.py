"""Changes of intensity against what they say they do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segfocal.data.augmentation import Augmentation, Change
from segfocal.data.intensity import change_intensity


def changed(values, name, low, high, seed=0, valid=None, spacing=None):
    settings = Augmentation(**{name: Change(probability=1, range=(low, high))})
    valid = np.ones(values.shape[:-1], bool) if valid is None else valid
    rng = np.random.default_rng(seed)
    return change_intensity(values, valid, settings, spacing or (1,) * valid.ndim, rng)


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(48, 40, 3)), (2, 2, 0))
    return (smooth / smooth.std((0, 1)) + [0, 0.5, -1]).astype(np.float32)


def test_nothing_is_done_with_probability_zero(image):
    everywhere = np.ones(image.shape[:2], bool)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = change_intensity(image, everywhere, Augmentation(), (1, 1), rng)
        np.testing.assert_array_equal(found, image)


def test_a_change_is_made_as_often_as_its_probability_says(image):
    settings = Augmentation(gain=Change(probability=0.3, range=(2, 2)))
    everywhere = np.ones(image.shape[:2], bool)
    changes = 0
    for seed in range(200):
        found = change_intensity(image, everywhere, settings, (1, 1), np.random.default_rng(seed))
        changes += not np.array_equal(found, image)
    assert 40 < changes < 80


def test_noise_has_the_variance(image):
    found = changed(image, "noise", 0.09, 0.09) - image
    assert found.std() == pytest.approx(0.3, rel=0.05)
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [("gain", 1.2, lambda x: x * 1.2), ("shift", -0.4, lambda x: x - 0.4)],
)
def test_gain_and_shift_are_what_they_say(image, name, number, expected):
    np.testing.assert_allclose(changed(image, name, number, number), expected(image), atol=1e-5)


def test_channels_draw_numbers_of_their_own(image):
    found = changed(image, "gain", 0.5, 1.5)
    factors = (found / image)[5, 5]
    assert len(set(np.round(factors, 4))) == 3
    assert ((factors > 0.5) & (factors < 1.5)).all()


def test_contrast_stays_within_the_range_and_keeps_the_mean_of_weak_changes(image):
    found = changed(image, "contrast", 0.8, 0.8)
    mean = image.mean((0, 1))
    np.testing.assert_allclose(found, (image - mean) * 0.8 + mean, atol=1e-5)
    found = changed(image, "contrast", 1.5, 1.5)
    np.testing.assert_array_equal(found.max((0, 1)), image.max((0, 1)))
    assert (found.std((0, 1)) > 1.2 * image.std((0, 1))).all()


def test_blur_is_a_gaussian_on_some_channels(image):
    seen = set()
    for seed in range(12):
        found = changed(image, "blur", 1, 1, seed)
        for k in range(3):
            same = np.array_equal(found[..., k], image[..., k])
            seen.add(same)
            if not same:
                expected = ndimage.gaussian_filter(image[..., k], 1, mode="nearest")
                np.testing.assert_allclose(found[..., k], expected, atol=0.02)
    assert seen == {True, False}


def test_low_resolution_takes_detail_away_and_stays_in_place():
    rows = np.linspace(-2, 2, 64, dtype=np.float32)
    ramp = np.broadcast_to(rows[:, None, None], (64, 64, 6)).copy()
    wavy = ramp + 0.3 * np.where(np.arange(64) % 2, 1, -1)[None, :, None].astype(np.float32)
    found = changed(wavy, "low_resolution", 0.5, 0.5, seed=2)
    lost = [k for k in range(6) if not np.array_equal(found[..., k], wavy[..., k])]
    assert 0 < len(lost) < 6
    for k in lost:
        assert abs(found[..., k] - ramp[..., k] - 0.3).max() < 0.1  # one of each pair is left
    np.testing.assert_array_equal(changed(wavy, "low_resolution", 1, 1), wavy)


@pytest.mark.parametrize("name", ["gamma", "gamma_inverted"])
def test_gamma_bends_values_in_order_and_keeps_mean_and_deviation(image, name):
    found = changed(image, name, 1.5, 1.5)
    for k in range(3):
        before, after = image[..., k].ravel(), found[..., k].ravel()
        assert after.mean() == pytest.approx(before.mean(), abs=1e-4)
        assert after.std() == pytest.approx(before.std(), rel=1e-3)
        assert (np.diff(after[np.argsort(before)]) >= 0).all()
        # An exponent above 1 pulls dark values together: the upper tail grows.
        skew = ((after - after.mean()) ** 3).mean() - ((before - before.mean()) ** 3).mean()
        assert (skew > 0) == (name == "gamma")


@pytest.mark.parametrize("name", ["contrast", "gamma", "gamma_inverted"])
def test_statistics_are_of_valid_pixels(image, name):
    valid = np.random.default_rng(0).random(image.shape[:2]) < 0.5
    image[~valid] = 0
    low, far = image.copy(), image.copy()
    far[~valid] = 1e6
    np.testing.assert_array_equal(
        changed(low, name, 1.3, 1.3, valid=valid)[valid],
        changed(far, name, 1.3, 1.3, valid=valid)[valid],
    )


@pytest.mark.parametrize("name", ["contrast", "gamma", "gamma_inverted", "blur", "low_resolution"])
def test_a_constant_patch_stays_as_it_is(name):
    constant = np.full((16, 16, 2), 0.7, np.float32)
    np.testing.assert_allclose(changed(constant, name, 0.8, 0.9), constant, rtol=1e-6)


@pytest.mark.parametrize("name", ["blur", "low_resolution"])
def test_nothing_is_blurred_across_planes_that_lie_far_apart(name):
    planes = np.broadcast_to(np.arange(8.0)[:, None, None, None], (8, 16, 16, 2))
    planes = planes.astype(np.float32)
    np.testing.assert_allclose(
        changed(planes, name, 0.6, 0.6, seed=1, spacing=(4, 1, 1)), planes, atol=1e-5
    )
    across = [changed(planes, name, 0.6, 0.6, seed, spacing=(2, 1, 1)) for seed in range(4)]
    assert any(abs(found - planes).max() > 0.1 for found in across)
