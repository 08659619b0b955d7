"""Surface distances against brute force, MONAI and SimpleITK."""

from __future__ import annotations

import math

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
