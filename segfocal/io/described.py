"""Scans whose files do not say what their values mean: scale, offset and nodata from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ScanError
from segfocal.io.base import Scan
from segfocal.io.channels import channel_indices, scaling_of
from segfocal.types import Patch, Window

__all__ = ["DescribedScan"]


class DescribedScan:
    """A scan with values and validity as described.

    What the file itself says is applied first; values are then
    ``values * scale + offset``.

    Args:
        source: The scan; it is closed with this one.
        scale, offset: By channel name; ``"*"`` for all others.
        nodata: Value that is not valid, as it is stored: before any scale and offset, the
            file's own too; ``"none"``: every number counts, whatever the file says.

    Raises:
        ScanError: A scale or offset is what the file itself says and would be applied twice.

    Attributes:
        grid: The scan that says where this one lies.
        twice_scaled: Channels that both the file and the description scale.
        described: What was described, as a JSON value: it decides what is read.
    """

    def __init__(
        self,
        source: Scan,
        *,
        scale: Mapping[str, float],
        offset: Mapping[str, float],
        nodata: Mapping[str, float | str],
    ) -> None:
        self._source = source
        names = source.channels

        def per_channel(values: Mapping[str, Any], other: Any) -> list[Any]:
            return [values.get(name, values.get("*", other)) for name in names]

        self._scale = np.array(per_channel(scale, 1.0), np.float64)
        self._offset = np.array(per_channel(offset, 0.0), np.float64)
        self._nodata = per_channel(nodata, None)
        self._own = scaling_of(source)
        self._refuse_twice(source.name, names)
        self.twice_scaled = tuple(
            name
            for name, own, given in zip(names, self._own, self._given(), strict=True)
            if own != (1, 0) and given != (1, 0)
        )
        self._scaled = bool((self._scale != 1).any() or (self._offset != 0).any())
        self.described: dict[str, Any] = {
            "scale": self._scale.tolist(),
            "offset": self._offset.tolist(),
            "nodata": [None if value is None else str(value) for value in self._nodata],
        }
        self.name, self.shape = source.name, source.shape
        self.channels, self.channels_are_named = names, source.channels_are_named
        self.channel_note = source.channel_note
        self.dtype: np.dtype = np.dtype(np.float32) if self._scaled else source.dtype
        self.slow_axis, self.resolution = source.slow_axis, source.resolution
        self.grid = getattr(source, "grid", source)
        self.files: tuple[str, ...] = tuple(getattr(source, "files", ()))

    def _given(self) -> list[tuple[float, float]]:
        return list(zip(self._scale.tolist(), self._offset.tolist(), strict=True))

    def _refuse_twice(self, name: str, channels: Sequence[str]) -> None:
        for channel, own, given in zip(channels, self._own, self._given(), strict=True):
            for key, here, there, none in zip(("scale", "offset"), own, given, (1, 0), strict=True):
                if here != none and np.isclose(here, there, rtol=1e-5, atol=0):
                    raise ScanError(
                        f"{name}: its header has {key} {here:g} for channel {channel!r}, which is "
                        f"applied already, and the spec has {key} {there:g} too; take scale and "
                        "offset out of the spec"
                    )

    def georeference(self) -> dict[str, Any]:
        """Return that of the source."""
        return self._source.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window; see :class:`~segfocal.io.base.Scan`."""
        chosen = channel_indices(channels, len(self.channels))
        patch = self._source.read(window, chosen)
        values: NDArray[Any] = patch.values
        valid = patch.valid.copy()
        for place, channel in enumerate(chosen):
            nodata, own = self._nodata[channel], values[..., place]
            if nodata == "none":
                valid[..., place] = np.isfinite(own) if own.dtype.kind == "f" else True
            elif nodata is not None:
                valid[..., place] &= ~_is_stored(own, nodata, *self._own[channel])
        if self._scaled:
            with np.errstate(over="ignore", invalid="ignore"):  # nodata such as -1.8e308
                scaled = values * self._scale[chosen] + self._offset[chosen]
                values = scaled.astype(np.float32)
            valid &= np.isfinite(values)
        return Patch(values, valid)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_stored(
    values: NDArray[Any], stored: float, scale: float, offset: float
) -> NDArray[np.bool_]:
    """Return where a file holds a value, given what was read with its scale and offset."""
    if (scale, offset) == (1, 0):
        return np.asarray(values == stored)
    with np.errstate(over="ignore", invalid="ignore"):
        # Read as float32; the last bits depend on who scaled.
        room = 4 * np.finfo(np.float32).eps * (abs(stored * scale) + abs(offset))
        return np.asarray(np.abs(values.astype(np.float64) - (stored * scale + offset)) <= room)
