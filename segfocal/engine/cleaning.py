"""Cleaning: steps between the finished units and the label file that need the whole label map.

A step is any object with the members of :class:`Cleaning`. It changes a
:class:`~segfocal.engine.label_map.LabelMap`, in two or three dimensions, and says by its
``parameters`` what it does; they are part of the fingerprint, so that an output made with
other steps is another output. A step must give the same result whatever ``max_memory`` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from segfocal.engine.label_map import LabelMap

__all__ = ["Cleaning", "clean", "cleaning_parameters"]


class Cleaning(Protocol):
    """A step that changes a whole label map.

    A step is made once the scan is open; it refuses there what it cannot do, before the
    first tile.
    """

    @property
    def name(self) -> str:
        """What to call the step, unique among steps."""

    @property
    def parameters(self) -> Any:
        """What its result follows from besides the label map, as a JSON value."""

    def __call__(self, labels: LabelMap) -> None:
        """Change the label map in place.

        Pixels of index ``labels.nodata`` have no data: they stay so, and none are added.

        Raises:
            OutputError: It takes more memory than ``labels.max_memory``.
            OSError: The map cannot be read or written.
        """


def clean(labels: LabelMap, steps: Sequence[Cleaning]) -> None:
    """Apply steps to a label map, one after the other."""
    for step in steps:
        step(labels)


def cleaning_parameters(steps: Sequence[Cleaning]) -> dict[str, Any]:
    """Return what steps follow from, in their order, as a part of a job's parameters."""
    return {"cleaning": [{step.name: step.parameters} for step in steps]} if steps else {}
