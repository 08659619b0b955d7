"""One thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]

Level = Literal["fault", "warning", "notice"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset.

    Attributes:
        level: ``"fault"``: it would spoil training or scores; ``"warning"``: look at it;
            ``"notice"``: good to know.
        text: What was found, and what to do.
        cases: Ids of the cases it is about; none: the dataset.
    """

    level: Level
    text: str
    cases: tuple[str, ...] = ()
