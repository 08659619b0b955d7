"""Significant digits against Decimal."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import pytest

from segfocal.rounding import significant


@pytest.mark.parametrize("digits", [1, 3, 4])
def test_numbers_have_the_digits_of_decimal_and_whole_ones_all(digits):
    rng = np.random.default_rng(0)
    rounded = Context(prec=digits, rounding=ROUND_HALF_EVEN)
    for value in (*(10 ** rng.uniform(-9, 7, 500)), 9.999, 0.09996, 99.95, 999.6, 1e-4, 9.999e-5):
        exact = Decimal(float(value))
        text = significant(float(value), digits)
        if value >= 10**digits:
            assert text == str(int(exact.to_integral_value(ROUND_HALF_EVEN)))
        else:
            assert Decimal(text) == rounded.create_decimal(exact)
        assert len(text) <= 9 or value >= 1e8
    assert [significant(value) for value in (0.0, -0.0, -0.12345, 1.5)] == [
        "0",
        "0",
        "-0.123",
        "1.50",
    ]
