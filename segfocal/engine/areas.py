"""Areas as users write them: ``12`` pixels, ``500m2``, ``0.5ha``, ``2km2``."""

from __future__ import annotations

import math
import re

from segfocal.errors import OutputError
from segfocal.io.base import Scan
from segfocal.io.measure import pixel_measure

__all__ = ["parse_area", "pixels_of_area"]

_SQUARE_METRES = {"m2": 1.0, "m²": 1.0, "ha": 1e4, "km2": 1e6, "km²": 1e6}
_FORM = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(m2|m²|ha|km2|km²)?\s*")


def parse_area(value: float | str, what: str) -> tuple[float, bool]:
    """Return an area and whether it is in square metres; else it has no unit.

    Args:
        value: A number, or text that may end in ``m2``, ``ha`` or ``km2``.
        what: What to call it in messages.

    Raises:
        OutputError: It is no area, or not above 0.
    """
    match = _FORM.fullmatch(str(value))
    if match is None or not 0 < float(match[1]) < math.inf:
        raise OutputError(
            f"{what} {value!r}; expected a number above 0, alone or with m2, ha or km2: 12, 0.5ha"
        )
    return float(match[1]) * _SQUARE_METRES.get(match[2] or "", 1.0), match[2] is not None


def pixels_of_area(value: float | str, scan: Scan, what: str) -> int:
    """Return how many pixels have at least an area; a number alone is one of pixels.

    Raises:
        OutputError: It is no area, or the scan's pixels have no size on the ground.
    """
    area, in_metres = parse_area(value, what)
    if not in_metres:
        if area != int(area):
            raise OutputError(f"{what} {value!r}; expected a whole number of pixels, or an area")
        return int(area)
    measure = pixel_measure(scan)
    if measure is None or measure[0] != "hectares":
        raise OutputError(
            f"{what} {value!r}: pixels of {scan.name} have no fixed size in metres; expected a "
            "scene with a projected CRS, or give a number of pixels"
        )
    # Rounded first: 900 m² are one pixel of 30 m, whatever 0.09 is in binary.
    return max(1, math.ceil(round(area / (measure[1] * 1e4), 6)))
