"""An even choice of bounded size from rows that come one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reservoir"]


class Reservoir:
    """Keeps at most so many of all rows that are offered, each with the same chance.

    Every row draws a lot, and the lowest lots are kept.

    Args:
        most: How many rows to keep.
        width: Numbers in a row.
        dtype: Their type.
        rng: Source of chance.

    Attributes:
        rows: What is kept, ``(rows, width)``, in the order in which it came.
    """

    def __init__(
        self, most: int, width: int, dtype: type[np.generic], rng: np.random.Generator
    ) -> None:
        self._most, self._rng = most, rng
        self.rows: NDArray[np.generic] = np.empty((0, width), dtype)
        self._lots = np.empty(0)

    def offer(self, count: int, rows: Callable[[NDArray[np.intp]], NDArray[np.generic]]) -> None:
        """Offer rows.

        Args:
            count: How many there are.
            rows: Returns some of them, by number: most are not wanted once much was offered.
        """
        drawn = self._rng.random(count)
        full = len(self._lots) == self._most
        wanted = np.flatnonzero(drawn < (self._lots.max() if full else 2))
        if not len(wanted):
            return
        self.rows = np.concatenate([self.rows, rows(wanted).astype(self.rows.dtype)])
        self._lots = np.concatenate([self._lots, drawn[wanted]])
        if len(self._lots) > self._most:
            lowest = np.sort(np.argpartition(self._lots, self._most)[: self._most])
            self.rows, self._lots = self.rows[lowest], self._lots[lowest]
