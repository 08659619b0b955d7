"""Confidence intervals against SciPy and against what theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from segfocal.bootstrap import confidence_interval


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).gamma(2, size=40)
    found = confidence_interval(40, lambda draw: float(values[draw].mean()), samples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    assert found == pytest.approx(tuple(theirs), abs=0.03)
    assert found[0] < values.mean() < found[1]


def test_the_same_seed_gives_the_same_interval_and_a_higher_level_a_wider_one():
    values = np.random.default_rng(0).normal(size=20)

    def interval(**more):
        return confidence_interval(20, lambda draw: float(values[draw].mean()), **more)

    assert interval() == interval() != interval(seed=1)
    assert interval(level=0.99)[0] < interval()[0] < interval()[1] < interval(level=0.99)[1]


def test_one_case_and_scores_that_never_exist_have_no_interval():
    assert confidence_interval(1, lambda draw: 1.0) is None
    assert confidence_interval(5, lambda draw: math.nan) is None
    # Draws without a score are left out.
    values = np.array([math.nan, 2.0])
    assert confidence_interval(2, lambda draw: float(np.mean(values[draw]))) == (2, 2)


def test_groups_are_drawn_with_all_their_cases():
    rng = np.random.default_rng(0)
    patients = rng.normal(size=30)
    values = np.concatenate([patients + rng.normal(0, 0.1, 30) for _ in range(4)])
    groups = [f"patient {k}" for k in range(30)] * 4

    def mean(draw):
        return float(values[draw].mean())

    found = confidence_interval(120, mean, groups=groups, samples=4000)
    theirs = stats.bootstrap(
        (values.reshape(4, 30).mean(0),), np.mean, n_resamples=4000, method="percentile",
        random_state=1,
    ).confidence_interval  # fmt: skip
    assert found == pytest.approx(tuple(theirs), abs=0.03)
    alone = confidence_interval(120, mean, samples=4000)
    assert found[1] - found[0] > 1.7 * (alone[1] - alone[0]), "four scans are not four patients"


def test_groups_of_any_size_and_order():
    groups = ["b", "a", "b", "c", "b", "a"]
    drawn = []
    confidence_interval(6, lambda draw: float(drawn.append(draw.tolist()) or 0), groups=groups)
    own = {"a": [1, 5], "b": [0, 2, 4], "c": [3]}
    for draw in drawn:
        for name, members in own.items():
            counts = [draw.count(case) for case in members]
            assert len(set(counts)) == 1, name
        assert sum(draw.count(members[0]) for members in own.values()) == 3
    assert len({tuple(sorted(draw)) for draw in drawn}) == 10  # of 3 out of 3, with repetition
    assert confidence_interval(6, lambda draw: 1.0, groups=["a"] * 6) is None
    values = np.random.default_rng(1).normal(size=9)

    def mean(draw):
        return float(values[draw].mean())

    assert confidence_interval(9, mean, groups=range(9)) == confidence_interval(9, mean)
