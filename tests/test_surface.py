"""Surface distances against brute force, MONAI and SimpleITK."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import ndimage

from segfocal.surface import boundary_pixels, distances_between, surface_distances


def blobs(shape, seed, threshold=0.0):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return field > threshold * field.std()


def brute(mask):
    """Return the pixels of a mask with a face neighbour outside it, one by one."""
    points = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                there = place.copy()
                there[axis] += step
                inside = 0 <= there[axis] < mask.shape[axis]
                if not inside or not mask[tuple(there)]:
                    points.append(tuple(place))
    return np.array(sorted(set(points)))


CASES = [((17, 23), (1.0, 1.0)), ((20, 15), (0.5, 30.0)), ((9, 11, 13), (3.0, 0.7, 0.7))]
cases = pytest.mark.parametrize(("shape", "spacing"), CASES)


@cases
def test_every_measure_equals_brute_force(shape, spacing):
    reference, found = blobs(shape, 1, 0.7), blobs(shape, 2, 0.9)
    a, b = brute(reference), brute(found)
    apart = np.sqrt((((a[:, None] - b[None]) * np.array(spacing)) ** 2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    distances = surface_distances(reference, found, spacing)
    np.testing.assert_allclose(np.sort(distances.to_found), np.sort(there))
    np.testing.assert_allclose(np.sort(distances.to_reference), np.sort(back))
    for percentile in (50, 95, 100):
        expected = max(np.percentile(there, percentile), np.percentile(back, percentile))
        assert distances.hausdorff(percentile) == pytest.approx(expected)
    tolerance = float(np.median(there)) + 1e-9
    within = (there <= tolerance).sum() + (back <= tolerance).sum()
    assert distances.surface_dice(tolerance) == within / (len(a) + len(b))
    assert distances.average() == pytest.approx((there.sum() + back.sum()) / (len(a) + len(b)))


@pytest.mark.filterwarnings(
    "ignore:monai.metrics.utils:FutureWarning"
)  # of its own calls to itself
@cases
def test_monai_measures_the_same(shape, spacing):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    reference, found = blobs(shape, 3, 0.6), blobs(shape, 4, 0.8)
    distances = surface_distances(reference, found, spacing)
    pair = [torch.from_numpy(mask[None, None].astype("float32")) for mask in (found, reference)]
    hd95 = metrics.compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=list(spacing)
    )
    assert distances.hausdorff(95) == pytest.approx(float(hd95), rel=1e-5)
    average = metrics.compute_average_surface_distance(
        *pair, include_background=True, symmetric=True, spacing=list(spacing)
    )
    assert distances.average() == pytest.approx(float(average), rel=1e-5)
    for tolerance in (0.5, 2.0):
        nsd = metrics.compute_surface_dice(
            *pair, [tolerance], include_background=True, spacing=list(spacing)
        )
        assert distances.surface_dice(tolerance) == pytest.approx(float(nsd), rel=1e-5)


@cases
def test_simpleitk_finds_the_same_hausdorff_distance(shape, spacing):
    sitk = pytest.importorskip("SimpleITK")
    # ITK measures between all pixels of the masks, which is the same when neither holds the
    # other's interior: take rims, which are nothing but boundary.
    masks = []
    for seed in (5, 6):
        mask = np.zeros(shape, bool)
        mask[tuple(brute(blobs(shape, seed, 0.8)).T)] = True
        mask &= np.random.default_rng(seed).random(shape) < 0.5
        masks.append(mask)
    images = []
    for mask in masks:
        image = sitk.GetImageFromArray(mask.astype("uint8"))
        image.SetSpacing(tuple(reversed(spacing)))
        images.append(image)
    rule = sitk.HausdorffDistanceImageFilter()
    rule.Execute(*images)
    points = [np.argwhere(mask) for mask in masks]
    found = distances_between(points[0], points[1], spacing).hausdorff(100)
    assert found == pytest.approx(rule.GetHausdorffDistance(), rel=1e-5)


def test_a_moved_box_is_as_far_as_it_was_moved():
    reference, found = np.zeros((2, 40, 40), bool)
    reference[10:20, 10:20] = True
    found[10:20, 13:23] = True
    distances = surface_distances(reference, found, (1.0, 0.5))
    assert distances.hausdorff(100) == 1.5
    assert distances.surface_dice(1.5) == 1
    assert surface_distances(reference, reference).hausdorff(100) == 0


def test_an_absent_class_has_no_distances_or_infinite_ones():
    some, none = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    neither = surface_distances(none, none)
    assert all(map(math.isnan, (neither.hausdorff(), neither.surface_dice(9), neither.average())))
    for pair in ((some, none), (none, some)):
        distances = surface_distances(*pair)
        assert distances.hausdorff() == distances.average() == math.inf
        assert distances.surface_dice(1e9) == 0


def test_unknown_pixels_make_no_boundary_and_the_edge_of_the_scan_does():
    labels = np.array([
        [1, 1, 1, 1, 1],
        [1, 1, 1, -1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
    ])  # fmt: skip
    assert boundary_pixels(labels).astype(int).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1],
        [1, 0, 0, 1, 1],
        [1, 1, 1, 1, 1],
    ]


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected equal ones"):
        surface_distances(np.ones((2, 3), bool), np.ones((3, 2), bool))


SPACINGS = ("0.977", "0.1", "3.27", "28.5", "9.998", "0.3", "0.0485", "0.00008983152841195215")


def exact_shares(reference, found, spacing, tolerances):
    """Return the share of boundary pixels within each tolerance, in fractions.

    Args:
        reference, found: Masks.
        spacing: Pixel size along each axis, as text.
        tolerances: Fractions.
    """
    sides = [Fraction(side) for side in spacing]
    scale = math.lcm(*(side.denominator for side in sides))
    whole = [int(side * scale) for side in sides]
    a, b = brute(reference), brute(found)
    squares = sum(
        (a[:, None, axis] - b[None, :, axis]).astype(object) ** 2 * side**2
        for axis, side in enumerate(whole)
    )
    nearest = [*squares.min(1), *squares.min(0)]
    return [
        sum(square <= (tolerance * scale) ** 2 for square in nearest) / len(nearest)
        for tolerance in tolerances
    ]


@pytest.mark.parametrize("side", SPACINGS)
def test_a_distance_equal_to_the_tolerance_is_within_it_wherever_it_lies(side):
    mask = np.zeros((90, 90), bool)
    mask[10:30, 12:32] = True
    for steps, moved in ((1, (1, 0)), (3, (0, 3)), (5, (3, 4))):
        spacing = (float(side),) * 2
        tolerance = float(side) * steps
        found = []
        for place in (0, 1, 7, 30, 49):
            there = np.roll(mask, (place, place), (0, 1))
            distances = surface_distances(there, np.roll(there, moved, (0, 1)), spacing)
            assert distances.surface_dice(tolerance) == 1
            assert distances.hausdorff(100) == pytest.approx(tolerance, rel=1e-15)
            found.append((distances.hausdorff(95), distances.average()))
        assert len(set(found)) == 1, "not a bit may depend on the place"
        assert distances.surface_dice(tolerance * (1 - 1e-5)) < 1


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((17, 23), ("0.977", "0.977")),
        ((20, 15), ("0.1", "3.27")),
        ((7, 9, 8), ("3.3", "0.7", "0.7")),
    ],
)
def test_nsd_is_that_of_fractions(shape, spacing):
    for seed in (1, 7):
        reference, found = blobs(shape, seed, 0.6), blobs(shape, seed + 1, 0.6)
        steps = (0, 1, 2, 3, 5)
        tolerances = [Fraction(side) * n for side in sorted(set(spacing)) for n in steps]
        exact = exact_shares(reference, found, spacing, tolerances)
        distances = surface_distances(reference, found, tuple(map(float, spacing)))
        assert [distances.surface_dice(float(one)) for one in tolerances] == exact
        assert len(set(exact)) >= 3


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")
@pytest.mark.parametrize("side", ["0.977", "3.27", "28.5"])
def test_monai_counts_the_same_pixels_at_a_tolerance_of_one_pixel(side):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    reference = blobs((40, 41), 3, 0.6)
    found = np.roll(reference, 1, 0) | blobs((40, 41), 4, 1.5)
    pair = [torch.from_numpy(mask[None, None].astype("float32")) for mask in (found, reference)]
    spacing = [float(side)] * 2
    # MONAI's distances are rounded to float32.
    nsd = metrics.compute_surface_dice(
        *pair, [float(side) * (1 + 1e-6)], include_background=True, spacing=spacing
    )
    mine = surface_distances(reference, found, tuple(spacing)).surface_dice(float(side))
    assert mine == pytest.approx(float(nsd), rel=1e-6)
    assert 0.2 < mine < 0.99


def test_of_neighbours_that_are_equally_far_the_same_is_taken_everywhere():
    # Three steps along one axis are one along the other, but not to the last bit.
    spacing = (0.1, 0.3)
    masks = blobs((40, 30), 3, 0.6), blobs((40, 30), 4, 0.8)
    found = []
    for place in ((0, 0), (1, 2), (57, 11), (830, 411)):
        wide = np.zeros((2, 900, 500), bool)
        at = tuple(
            slice(start + 2, start + 2 + side) for start, side in zip(place, (40, 30), strict=True)
        )
        wide[0][at], wide[1][at] = masks
        distances = surface_distances(*wide, spacing)
        found.append((distances.to_found.tobytes(), distances.to_reference.tobytes()))
    assert len(set(found)) == 1
