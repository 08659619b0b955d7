"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["significant"]


def significant(value: float, digits: int = 3) -> str:
    """Return a number with at least so many significant digits, whole ones in full.

    For lengths, whose unit may be a metre or a degree: 1234.5 is ``1234``, 0.000236 is that, and
    below 0.0001 there is an exponent.

    Args:
        value: A finite number.
        digits: Significant digits.
    """
    if value == 0:
        return "0"
    # Rounding may bring another digit: 9.999 is 10.0.
    rounded = f"{value:.{digits - 1}e}"
    exponent = int(rounded.partition("e")[2])
    return rounded if exponent < -4 else f"{value:.{max(0, digits - 1 - exponent)}f}"
