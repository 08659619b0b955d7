"""Which steps of cleaning by connected pieces a user asks for, and whether they can be done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from segfocal.card import Card
from segfocal.engine.cleaning import Cleaning
from segfocal.engine.memory import resident_bytes
from segfocal.engine.pieces import FillHoles, KeepLarge, KeepLargest
from segfocal.errors import OutputError
from segfocal.io.base import Scan
from segfocal.io.measure import pixel_measure

__all__ = ["Classes", "piece_steps"]

Classes = Literal["all"] | str | Sequence[str]
"""Names of classes, or all but the background."""


def piece_steps(
    card: Card,
    scan: Scan,
    *,
    largest_component: Classes | None = None,
    fill_holes: Classes | None = None,
    min_volume: float | None = None,
    max_memory: int | None = None,
) -> tuple[Cleaning, ...]:
    """Return the steps that are asked for, in the order in which they are done.

    Args:
        card: Names of the classes.
        scan: The scan.
        largest_component: Classes of which only the largest piece stays.
        fill_holes: Classes whose holes are filled.
        min_volume: Pieces of all classes below so many mm³ become background.
        max_memory: Bytes that the process may take, or None.

    Raises:
        OutputError: There is no such class, none of value 0 that pieces could become, the scan is
            no volume, or the whole label map does not fit into ``max_memory``.
    """
    wanted: dict[str, Classes] = {}
    if largest_component:
        wanted["largest_component"] = largest_component
    if min_volume is not None:
        wanted["min_volume"] = "all"
    if fill_holes:
        wanted["fill_holes"] = fill_holes
    if not wanted:
        return ()
    background = _background(card, ", ".join(wanted))
    _check_memory(card, scan, max_memory, ", ".join(wanted))
    found = {what: _indices(card, classes, background, what) for what, classes in wanted.items()}
    steps: list[Cleaning] = []
    if "largest_component" in found:
        steps.append(KeepLargest(found["largest_component"], background))
    if min_volume is not None:
        pixels = _min_pixels(min_volume, scan)
        steps.append(KeepLarge(found["min_volume"], background, pixels))
    if "fill_holes" in found:
        steps.append(FillHoles(found["fill_holes"], background))
    return tuple(steps)


def _background(card: Card, what: str) -> int:
    """Return the label index of value 0; of regions, it stands for none and comes first."""
    values = [label.value for label in card.classes]
    if card.task == "regions":
        return 0
    if 0 not in values:
        raise OutputError(
            f"{what}: no class of the model has value 0; expected a background that pieces can "
            "become"
        )
    return values.index(0)


def _indices(card: Card, classes: Classes, background: int, what: str) -> tuple[int, ...]:
    first = 1 if card.task == "regions" else 0
    places = {label.name: first + place for place, label in enumerate(card.classes)}
    names = [classes] if isinstance(classes, str) else list(classes)
    if names == ["all"]:
        return tuple(place for place in places.values() if place != background)
    unknown = [name for name in names if places.get(name, background) == background]
    if unknown:
        known = [name for name, place in places.items() if place != background]
        raise OutputError(
            f"{what}: class {unknown[0]!r}; expected all, or names among {', '.join(known)}"
        )
    return tuple(sorted(places[name] for name in names))


def _min_pixels(min_volume: float, scan: Scan) -> int:
    measure = pixel_measure(scan)
    if measure is None or measure[0] != "millilitres":
        raise OutputError(
            f"min_volume {min_volume:g}: {scan.name} is no volume of known spacing; expected one"
        )
    if not (math.isfinite(min_volume) and min_volume > 0):
        raise OutputError(f"min_volume {min_volume:g}; expected cubic millimetres above 0")
    return math.ceil(min_volume / (1000 * measure[1]) - 1e-6)


def _check_memory(card: Card, scan: Scan, max_memory: int | None, what: str) -> None:
    if max_memory is None:
        return
    pixels = math.prod(scan.shape)
    # The map, its pieces' numbers, and what is true or false of each pixel.
    needed = pixels * (2 if card.num_classes > 254 else 1)
    needed += pixels * ((8 if pixels >= 2**31 - 2 else 4) + 3)
    resident = resident_bytes()
    if resident + needed > max_memory:
        raise OutputError(
            f"{what}: the whole label map of {scan.name} takes about {needed / 1e6:.0f} MB beside "
            f"{resident / 1e6:.0f} MB that the process holds, with max_memory "
            f"{max_memory / 1e6:.0f} MB; raise max_memory or leave {what} out"
        )
