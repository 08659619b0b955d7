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
