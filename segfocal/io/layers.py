"""Layers beside a label map: the protocol of their writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from segfocal.io.base import Scan, grid_of
from segfocal.io.labels import Layout
from segfocal.io.pending import PendingOutput
from segfocal.types import Window

__all__ = ["LayersWriter", "open_layers_writer"]


class LayersWriter(Protocol):
    """Writes layers by windows, which arrive in any order, then makes and verifies the file."""

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write numbers ``(*sides, layers)`` of the file's type, nodata filled in."""

    def finish(self) -> None:
        """Make the file complete in the pending output and verify it."""


def open_layers_writer(
    pending: PendingOutput,
    name: str,
    scan: Scan,
    layers: Sequence[str],
    *,
    dtype: str,
    scale: float = 1.0,
    layout: Layout = "cog",
    tags: Mapping[str, str] | None = None,
) -> LayersWriter:
    """Return the writer for layers on the grid of ``scan``.

    Args:
        pending: The entered pending output.
        name: File name.
        scan: Where the grid and its georeference or header come from.
        layers: Names of the layers: bands of a GeoTIFF, fourth axis of a NIfTI.
        dtype: ``float32`` or ``uint8``.
        scale: Factor from the numbers in the file to what they mean.
        layout: Layout of a GeoTIFF.
        tags: More metadata for a GeoTIFF, by name.
    """
    scan = grid_of(scan)
    if len(scan.shape) == 2:
        from segfocal.io.layers_writer import LayersWriter as RasterLayersWriter

        return RasterLayersWriter(
            pending, name, scan, layers, dtype=dtype, scale=scale, layout=layout, tags=tags
        )
    from segfocal.io.nifti_layers_writer import VolumeLayersWriter

    return VolumeLayersWriter(pending, name, scan, layers, dtype=dtype, scale=scale)
