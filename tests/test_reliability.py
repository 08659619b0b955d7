"""Calibration error and temperature where the right answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from segfocal import reliability
from segfocal.annotated import labelled_as
from segfocal.reliability import Reliability
from segfocal.temperature import best_temperature


def drawn(pixels=40_000, classes=4, seed=0):
    """Return logits and labels that are drawn with exactly their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (pixels, classes))
    edges = softmax(logits, -1).cumsum(-1)
    return logits, (rng.random((pixels, 1)) > edges[:, :-1]).sum(-1)


def slow_error(probabilities, truth, bins=15):
    error = 0.0
    for low in range(bins):
        chosen = [
            (p.max(), p.argmax() == t)
            for p, t in zip(probabilities, truth, strict=True)
            if low / bins < p.max() <= (low + 1) / bins
        ]
        if chosen:
            confidence, right = np.mean(chosen, axis=0)
            error += len(chosen) / len(truth) * abs(confidence - right)
    return error


def test_the_error_is_that_of_the_slow_way_and_parts_add_up():
    logits, truth = drawn(3000)
    probabilities = softmax(2 * logits, -1)
    counted = Reliability()
    for part in np.array_split(np.arange(3000), 7):
        counted.add(probabilities[part], truth[part])
    assert counted.error == pytest.approx(slow_error(probabilities, truth), rel=1e-9)
    assert counted.error > 0.05


def test_true_probabilities_have_no_error_and_a_temperature_of_one():
    logits, truth = drawn()
    counted = Reliability()
    counted.add(softmax(logits, -1), truth)
    assert counted.error < 0.01
    assert best_temperature(*counted.sample) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_that_spoilt_logits_is_found_and_mends_them(temperature):
    logits, truth = drawn()
    spoilt = softmax(logits / temperature, -1)
    found = best_temperature(spoilt, truth)
    assert found == pytest.approx(1 / temperature, rel=0.03)
    mended = spoilt ** (1 / found)
    before, after = Reliability(), Reliability()
    before.add(spoilt, truth)
    after.add(mended / mended.sum(-1, keepdims=True), truth)
    assert after.error < 0.2 * before.error


def test_pixels_that_are_not_known_do_not_count():
    logits, truth = drawn(600)
    probabilities = softmax(logits, -1).reshape(20, 30, 4)
    hidden = np.random.default_rng(1).random((20, 30)) < 0.4
    truth = truth.reshape(20, 30)
    counted, expected = Reliability(), Reliability()
    counted.add(np.where(hidden[..., None], np.nan, probabilities), np.where(hidden, -1, truth))
    expected.add(probabilities[~hidden], truth[~hidden])
    assert counted.error == expected.error
    assert counted.pixels.sum() == (~hidden).sum()
    assert math.isnan(Reliability().error)
    assert best_temperature(*Reliability().sample) is None


def test_the_sample_is_bounded_and_even(monkeypatch):
    monkeypatch.setattr(reliability, "SAMPLE", 1000)
    counted = Reliability()
    for number in range(10):  # of very different sizes
        size = 100 if number % 2 else 3000
        counted.add(np.tile([0.5, 0.5], (size, 1)), np.full(size, number % 2))
    probabilities, truth, shown = counted.sample
    assert (shown == [0, 1]).all()
    assert probabilities.shape == (1000, 2)
    assert truth.mean() == pytest.approx(500 / 15_500, abs=0.02)


HIDDEN = {
    "shown as the rest": ([0, 2, 3], 0),
    "not labelled": ([1, 2, 3], None),
    "neither it nor the rest labelled": ([2, 3], 0),
}


@pytest.mark.parametrize(("annotated", "rest"), HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_classes_that_nobody_looked_for_change_neither_error_nor_temperature(
    annotated, rest, temperature
):
    logits, truth = drawn(60_000)
    shown = labelled_as(annotated, 4, rest=rest)
    truth = np.append(shown, -1)[truth]
    counted = Reliability()
    true = softmax(logits, -1)
    counted.add(true, truth, shown)
    assert counted.error < 0.01
    # Pixels and right ones are those of the scores.
    scored = (truth >= 0) & np.isin(true.argmax(-1), annotated)
    assert counted.pixels.sum() == scored.sum() < len(truth)
    assert counted.right.sum() == (scored & (true.argmax(-1) == truth)).sum()

    spoilt = Reliability()
    spoilt.add(softmax(logits / temperature, -1), truth, shown)
    assert best_temperature(*spoilt.sample) == pytest.approx(1 / temperature, rel=0.04)
    if temperature != 1:
        assert spoilt.error > 5 * counted.error


def test_confidences_are_those_of_what_labels_show():
    probabilities = np.array([
        [0.5, 0.2, 0.3, 0.0],  # the rest: with class 1, which labels do not show
        [0.3, 0.2, 0.5, 0.0],  # class 2
        [0.2, 0.6, 0.2, 0.0],  # class 1: nobody looked for it
        [0.3, 0.2, 0.1, 0.4],  # class 3, although the rest and class 1 have more together
    ])  # fmt: skip
    truth = np.array([0, 0, 0, 3])
    counted = Reliability(bins=10)
    counted.add(probabilities, truth, labelled_as([0, 2, 3], 4))
    assert counted.pixels.tolist() == [0, 0, 0, 1, 1, 0, 1, 0, 0, 0]
    assert counted.right.tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert counted.confidence.sum() == pytest.approx(0.7 + 0.5 + 0.4)
    without = Reliability(bins=10)
    without.add(probabilities, truth, labelled_as([0, 2, 3], 4, rest=None))
    assert without.confidence.sum() == pytest.approx(0.5 / 0.8 + 0.5 / 0.8 + 0.4 / 0.8)
    mixed = Reliability(bins=10)  # pixel by pixel
    mixed.add(probabilities, truth, np.tile(labelled_as([0, 2, 3], 4), (4, 1)))
    assert mixed.confidence.tolist() == pytest.approx(counted.confidence.tolist())
