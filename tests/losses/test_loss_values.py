"""Values of losses against oracles written the slow way, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit, softmax

from segfocal.annotated import possible_classes
from segfocal.losses import Boundary, DiceCrossEntropy, Focal, GeneralisedDice, Lovasz, Tversky

CLASSES = 4


def sample(space, absent=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES - absent, space).astype("int32")
    labels[rng.random(space) < 0.3] = -1
    return labels, rng.normal(0, 2, (*space, CLASSES)).astype("float32")


def region_sample(space):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (*space, CLASSES)).astype("int32")
    labels[..., 3] = 0
    labels[rng.random(labels.shape) < 0.3] = -1
    return labels, rng.normal(0, 2, labels.shape).astype("float32")


def columns(labels, logits):
    """Yield per class the truth and the probability of each known pixel."""
    if labels.shape == logits.shape:
        for k in range(CLASSES):
            known = labels[..., k] >= 0
            yield labels[..., k][known] == 1, expit(np.float64(logits[..., k][known]))
    else:
        known = labels >= 0
        for k in range(CLASSES):
            yield labels[known] == k, softmax(np.float64(logits[known]), -1)[:, k]


SPACES = [(2, 5, 6), (2, 3, 4, 5)]
CASES = [sample(space) for space in SPACES] + [region_sample(SPACES[0])]
cases = pytest.mark.parametrize(("labels", "logits"), CASES, ids=["2-D", "3-D", "regions"])


def task_of(labels, logits):
    return "regions" if labels.shape == logits.shape else "classes"


@cases
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal(labels, logits, gamma):
    costs = []
    for place in np.ndindex(*labels.shape):
        if labels[place] < 0:
            continue
        if labels.shape == logits.shape:
            p = expit(np.float64(logits[place]))
            p = p if labels[place] else 1 - p
        else:
            p = softmax(np.float64(logits[place]))[labels[place]]
        costs.append(-((1 - p) ** gamma) * np.log(p))
    found = float(Focal(gamma, task=task_of(labels, logits))(labels, logits))
    assert found == pytest.approx(np.mean(costs), rel=1e-5)


@cases
@pytest.mark.parametrize(("a", "b", "gamma"), [(0.5, 0.5, 1), (0.3, 0.7, 1), (0.2, 0.9, 4 / 3)])
def test_tversky(labels, logits, a, b, gamma):
    costs = []
    for truth, p in columns(labels, logits):
        if truth.any():
            right = p[truth].sum()
            index = right / (right + a * p[~truth].sum() + b * (1 - p[truth]).sum())
            costs.append((1 - index) ** (1 / gamma))
    found = float(Tversky(a, b, gamma, task=task_of(labels, logits))(labels, logits))
    assert found == pytest.approx(np.mean(costs), rel=1e-5)


@cases
def test_generalised_dice(labels, logits):
    top = bottom = 0.0
    for truth, p in columns(labels, logits):
        if truth.any():
            weight = 1 / truth.sum() ** 2
            top += weight * p[truth].sum()
            bottom += weight * (p.sum() + truth.sum())
    found = float(GeneralisedDice(task=task_of(labels, logits))(labels, logits))
    assert found == pytest.approx(1 - 2 * top / bottom, rel=1e-5)


def jaccard_loss(wrong, truth):
    """Return 1 - IoU of a set of wrong pixels (Berman et al. 2018, equation 6)."""
    return wrong.sum() / (truth | wrong).sum()


@cases
def test_lovasz_is_the_sum_over_thresholds_of_the_jaccard_loss(labels, logits):
    # Another form of the same: the integral over t of the Jaccard loss of {error > t}.
    costs = []
    for truth, p in columns(labels, logits):
        if not truth.any():
            continue
        errors = np.abs(truth - p)
        cost, below = 0.0, 0.0
        for level in np.sort(errors):
            cost += (level - below) * jaccard_loss(errors >= level, truth)
            below = level
        costs.append(cost)
    found = float(Lovasz(task=task_of(labels, logits))(labels, logits))
    assert found == pytest.approx(np.mean(costs), rel=1e-5)


@pytest.mark.parametrize("spacing", [None, (1.0, 0.5), (2.0, 3.0)])
@pytest.mark.parametrize("radius", [1.0, 4.0, 30.0])
def test_boundary_weighs_errors_by_scipys_distances(spacing, radius):
    labels, logits = sample((3, 9, 11), absent=True)
    labels[0] = np.where(labels[0] == 1, 0, labels[0])  # a class missing from one image
    cost, number = 0.0, 0
    for image, scores in zip(labels, logits, strict=True):
        p = softmax(np.float64(scores), -1)
        for k in range(CLASSES):
            inside, outside = image == k, (image >= 0) & (image != k)
            far = np.full(image.shape, radius)
            to_class = ndimage.distance_transform_edt(~inside, spacing) if inside.any() else far
            to_others = ndimage.distance_transform_edt(~outside, spacing) if outside.any() else far
            cost += (p[..., k] * np.minimum(to_class, radius))[outside].sum()
            cost += ((1 - p[..., k]) * np.minimum(to_others, radius))[inside].sum()
            number += (image >= 0).sum()
    found = float(Boundary(radius, spacing)(labels, logits))
    assert found == pytest.approx(cost / number / radius, rel=1e-5)


def test_boundary_in_three_dimensions():
    labels, logits = sample((1, 4, 5, 6))
    spacing, radius = (3.0, 1.0, 0.7), 5.0
    p = softmax(np.float64(logits[0]), -1)
    cost = 0.0
    for k in range(CLASSES - 1):
        inside, outside = labels[0] == k, (labels[0] >= 0) & (labels[0] != k)
        to_class = np.minimum(ndimage.distance_transform_edt(~inside, spacing), radius)
        to_others = np.minimum(ndimage.distance_transform_edt(~outside, spacing), radius)
        cost += (p[..., k] * to_class)[outside].sum() + ((1 - p[..., k]) * to_others)[inside].sum()
    cost += radius * p[labels[0] >= 0][:, CLASSES - 1].sum()  # occurs nowhere: as far as can be
    found = float(Boundary(radius, spacing)(labels, logits))
    assert found == pytest.approx(cost / radius / (labels >= 0).sum() / CLASSES, rel=1e-5)


def test_several_possible_classes_cost_the_logarithm_of_their_sum():
    labels, logits = sample((2, 5, 6), absent=False)
    annotated = [0, 1, 3]  # nobody looked for class 2: what is labelled 0 may be it
    sets = possible_classes(labels, annotated, CLASSES)
    p = softmax(np.float64(logits), -1)
    costs, truth, weight = [], np.zeros(p.shape), np.zeros(p.shape)
    for place in np.ndindex(*labels.shape):
        label = labels[place]
        if label < 0 or label == 2:
            continue
        if label == 0:
            costs.append(-np.log(p[place][0] + p[place][2]))
            weight[place] = [0, 1, 0, 1]  # certainly not 1 or 3
        else:
            costs.append(-np.log(p[place][label]))
            weight[place], truth[place][label] = 1, 1
    dices = []
    for k in (1, 3):
        w, t = weight[..., k], truth[..., k]
        dices.append(1 - 2 * (p[..., k] * t).sum() / ((p[..., k] * w).sum() + t.sum()))
    found = float(DiceCrossEntropy()(sets, logits))
    assert found == pytest.approx(np.mean(costs) + np.mean(dices), rel=1e-5)
    assert float(Focal(0.0)(sets, logits)) == pytest.approx(np.mean(costs), rel=1e-5)


def monai_batch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, (2, 6, 7)).astype("int32")
    logits = rng.normal(0, 2, (2, 6, 7, CLASSES)).astype("float32")
    there = np.eye(CLASSES, dtype="float32")[labels]
    first = torch.from_numpy(np.moveaxis(logits, -1, 1).copy())
    return labels, logits, first, torch.from_numpy(np.moveaxis(there, -1, 1).copy())


def test_monai_has_the_same_focal_loss():
    losses = pytest.importorskip("monai.losses")
    labels, logits, theirs, there = monai_batch()
    found = float(Focal(2.0)(labels, logits))
    loss = losses.FocalLoss(gamma=2.0, use_softmax=True, reduction="mean")
    assert found == pytest.approx(CLASSES * float(loss(theirs, there)), rel=1e-5)


def test_monai_has_the_same_tversky_and_generalised_dice_loss():
    losses = pytest.importorskip("monai.losses")
    labels, logits, theirs, there = monai_batch()
    exact = {"softmax": True, "smooth_nr": 0.0, "smooth_dr": 1e-9, "batch": True}
    loss = losses.TverskyLoss(alpha=0.3, beta=0.7, **exact)
    assert float(Tversky(0.3, 0.7)(labels, logits)) == pytest.approx(
        float(loss(theirs, there)), rel=1e-5
    )
    loss = losses.GeneralizedDiceLoss(**exact)
    assert float(GeneralisedDice()(labels, logits)) == pytest.approx(
        float(loss(theirs, there)), rel=1e-5
    )
