"""Whether a scan is resampled to the resolution that a model was trained at."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

from segfocal.card import Card
from segfocal.errors import GeometryError, SegfocalWarning
from segfocal.io.base import Scan, grid_of
from segfocal.io.resampling import Interpolation, ResampledScan

__all__ = ["DEFAULT_INTERPOLATION", "Resample", "at_model_resolution"]

Resample = Literal["auto", "never", "always"]

DEFAULT_INTERPOLATION: Interpolation = 1

SAME = 1.01
"""Ratio of resolutions up to which a volume is taken as it is."""

NOTICEABLE = 2
"""Ratio beyond which a scan that is not resampled is warned of."""

ABSURD = 100
"""Ratio beyond which units must differ: degrees and metres, metres and millimetres."""


def at_model_resolution(
    card: Card | None,
    scan: Scan,
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
) -> ResampledScan | None:
    """Return a scan at the resolution of the model's training data; None: it is taken as it is.

    Warns where a scan is taken as it is though its pixels are more than twice as large or small.

    Args:
        card: The model's card; None for a plain function.
        scan: An open scan.
        resample: ``"auto"``: volumes whose spacing differs by more than 1 %; ``"always"``: any
            scan; ``"never"``.
        interpolation: 1 for linear, 3 for cubic.

    Raises:
        GeometryError: ``"always"`` is asked for and the model or the scan has no resolution; the
            resolutions differ so much that their units must; or an argument is unknown.
    """
    if resample not in get_args(Resample) or interpolation not in get_args(Interpolation):
        raise GeometryError(
            f"resample {resample!r}, interpolation {interpolation!r}; expected auto, never or "
            "always, and 1 or 3"
        )
    wanted = None if card is None else card.resolution
    known = scan.resolution
    if wanted is None or known is None or len(wanted) != len(known):
        if resample == "always":
            raise GeometryError(_cannot(scan, wanted, known))
        return None
    ratio = max(max(a / b, b / a) for a, b in zip(known, wanted, strict=True))
    volume = len(known) == 3
    if resample == "never" or (resample == "auto" and not volume):
        if ratio > NOTICEABLE:
            warnings.warn(
                f"{scan.name}: pixels of {_sides(known)}; the model was trained on pixels of "
                f"{_sides(wanted)}: what it finds may be far off; let the scan be resampled "
                '(resample="always", --resample always) if both are in the same unit',
                SegfocalWarning,
                stacklevel=2,
            )
        return None
    if resample == "auto" and ratio <= SAME:
        return None
    if ratio > ABSURD:
        unit = "" if volume else f" {_unit(scan)}"
        raise GeometryError(
            f"{scan.name}: pixels of {_sides(known)}{unit}; the model was trained on pixels of "
            f"{_sides(wanted)}: these cannot be the same unit; expected a scan in the unit of the "
            'training data: reproject it, or do not resample (resample="never", --resample never)'
        )
    resampled = ResampledScan(scan, wanted, interpolation)
    return None if resampled.shape == scan.shape else resampled


def _cannot(scan: Scan, wanted: Sequence[float] | None, known: Sequence[float] | None) -> str:
    lacking = "the model" if wanted is None else scan.name
    if wanted is not None and known is not None:
        return (
            f"{scan.name}: has {len(known)} spatial axes; the model's resolution has "
            f"{len(wanted)}: resampling needs the same"
        )
    return (
        f"{lacking}: has no resolution; expected one in the model's card and one of the scan to "
        'resample one to the other: leave it out, or say never (resample="never", '
        "--resample never)"
    )


def _sides(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:.4g}" for side in sides)


def _unit(scan: Scan) -> str:
    crs = getattr(grid_of(scan), "crs", None)
    if crs is None:
        return "of an unknown unit"
    return "in degrees" if crs.is_geographic else f"in {crs.linear_units}"
