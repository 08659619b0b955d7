"""Which of a scan's channels go to the network, and which of its pixels count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ChannelError
from segfocal.io.base import Scan
from segfocal.types import Patch

__all__ = ["match_channels", "usable_pixels"]


def match_channels(scan: Scan, wanted: Sequence[str], *, by_name: bool) -> tuple[int, ...]:
    """Return the indices of a scan's channels in the network's order.

    Args:
        scan: The scan.
        wanted: Channel names in the network's order.
        by_name: Whether the names mean something. They are then looked up in a scan that
            names its channels; a scan without names is matched by position.

    Raises:
        ChannelError: A name is missing, or there are more or fewer channels than wanted.
    """
    if by_name and scan.channels_are_named:
        missing = [name for name in wanted if name not in scan.channels]
        if missing:
            raise ChannelError(
                f"{scan.name}: has channels {', '.join(scan.channels)}; the model expects "
                f"{', '.join(wanted)}, and {', '.join(missing)} is missing: rename the bands or "
                "choose another scan"
            )
        return tuple(scan.channels.index(name) for name in wanted)
    if len(scan.channels) != len(wanted):
        raise ChannelError(
            f"{scan.name}: has {_count(len(scan.channels))}; the model expects "
            f"{_count(len(wanted))} ({', '.join(wanted)})"
            + (f"; {scan.channel_note}" if scan.channel_note else "")
        )
    return tuple(range(len(wanted)))


def _count(channels: int) -> str:
    return f"{channels} channel" if channels == 1 else f"{channels} channels"


def usable_pixels(patch: Patch, valid_when: str) -> NDArray[np.bool_]:
    """Return which pixels count, shape ``(*space)``, by the card's ``valid_when``."""
    if patch.valid.all():  # most often; a short last axis is reduced pixel by pixel
        return np.ones(patch.valid.shape[:-1], np.bool_)
    return np.all(patch.valid, -1) if valid_when == "all" else np.any(patch.valid, -1)
