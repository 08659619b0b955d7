"""Channel selections: which channels of a scan a read returns, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segfocal.io.base import Scan

__all__ = ["channel_indices", "numbered_names", "scaling_of"]


def channel_indices(channels: Sequence[int] | None, count: int) -> list[int]:
    """Return the channels asked for as a list; all of them when ``channels`` is None.

    Raises:
        ValueError: An index is outside ``0 .. count - 1``.
    """
    if channels is None:
        return list(range(count))
    chosen = [int(channel) for channel in channels]
    wrong = [channel for channel in chosen if not 0 <= channel < count]
    if wrong:
        raise ValueError(
            f"channel {wrong[0]} of a scan with {count} channels; expected 0 to {count - 1}"
        )
    return chosen


def numbered_names(stem: str, count: int) -> tuple[str, ...]:
    """Return ``("stem_1", ..., "stem_count")``: names for channels that have none."""
    return tuple(f"{stem}_{number}" for number in range(1, count + 1))


def scaling_of(scan: Scan) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each channel that a scan's file says and ``read`` applies."""
    none = ((1.0, 0.0),) * len(scan.channels)
    return tuple(getattr(scan, "scaling", none))
