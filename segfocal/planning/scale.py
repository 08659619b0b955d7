"""How far the resolution of patches may be from that of the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segfocal.data.reading import SAME_SPACING
from segfocal.interpolation import AxisMap
from segfocal.io.resampling import resampled_shape
from segfocal.types import Window, window_shape

__all__ = ["pixels_at", "resolution_doubts", "resolution_fault"]

APART = 2
"""Ratio of pixel sizes above which a network sees other things, as in prediction."""

FAR_APART = 10
"""Ratio above which that is said of a single scan, whatever the others have."""

FINEST = 1000
"""Pixels of a resolution along one pixel of a file above which a patch shows less than that one."""


def pixels_at(
    window: Window, shape: Sequence[int], sides: Sequence[float], wanted: Sequence[float]
) -> tuple[int, ...]:
    """Return the sides of a region in pixels of a resolution, as training reads it.

    Counted is what needs no pixel from outside the region; an axis may have none.

    Args:
        window: The region, in pixels of the file.
        shape: Of the whole scan.
        sides: Size of its pixels along each axis.
        wanted: The resolution, in the same unit.
    """
    if all(max(a, b) <= SAME_SPACING * min(a, b) for a, b in zip(sides, wanted, strict=True)):
        return window_shape(window)
    maps = [
        AxisMap(old, new)
        for old, new in zip(shape, resampled_shape(shape, sides, wanted), strict=True)
    ]
    return tuple(
        max(0, axis.finished(side.stop) - axis.beginning(side.start))
        for axis, side in zip(maps, window, strict=True)
    )


def resolution_fault(
    window: Window,
    shape: Sequence[int],
    sides: Sequence[float],
    wanted: Sequence[float],
    unit: str | None,
) -> str | None:
    """Return why a region cannot be trained on at a resolution that a spec asks for, or None.

    Args:
        window, shape, sides, wanted: As of :func:`pixels_at`.
        unit: Of the file's pixels, for people.
    """
    finest = max(old / new for old, new in zip(sides, wanted, strict=True))
    files = f"the file's pixels are {_text(sides)}{'' if unit is None else f' {unit}'}"
    if finest > FINEST:
        return (
            f"resolution {_text(wanted)}, and {files}: each would become {finest:.6g} pixels long; "
            f"expected at most {FINEST}: is the resolution in their unit?"
        )
    own = window_shape(window)
    extents = [side * old / new for side, old, new in zip(own, sides, wanted, strict=True)]
    # A scan has at least one pixel at any resolution, even where that is a thousand times larger.
    if min(extents) < 0.5 or not all(pixels_at(window, shape, sides, wanted)):
        return (
            f"resolution {_text(wanted)}, and {files}: a region of "
            f"{' x '.join(map(str, own))} has {' x '.join(f'{side:.2g}' for side in extents)} "
            "pixels at the resolution; expected at least one: choose a finer resolution, or a "
            "larger region"
        )
    return None


def resolution_doubts(
    sizes: Sequence[Sequence[float]], wanted: Sequence[float] | None, ndim: int
) -> Iterator[str]:
    """Yield warnings about pixel sizes, in one unit, that differ more than a network bears.

    Args:
        sizes: Of the scans that have any, along each axis.
        wanted: The resolution that the spec asks for, or None.
        ndim: Axes of the scans: volumes are resampled without being asked.
    """
    if not sizes:
        return
    low, high = np.min(sizes, 0).tolist(), np.max(sizes, 0).tolist()
    if wanted is None:
        if ndim == 2 and any(b > APART * a for a, b in zip(low, high, strict=True)):
            yield (
                f"pixel sizes differ from {_text(low)} to {_text(high)}; a network sees them as "
                "one: give a resolution, or separate specs"
            )
        return
    axes = list(zip(low, high, wanted, strict=True))
    every = max(max(a / new, new / b) for a, b, new in axes)
    most = max(max(b / new, new / a) for a, b, new in axes)
    if every > APART or most > FAR_APART:
        files = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
        yield (f"pixels of {files}, resolution {_text(wanted)}: {most:.3g} times apart")


def _text(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:.6g}" for side in sides)
