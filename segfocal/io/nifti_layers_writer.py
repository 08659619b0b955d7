"""Several layers of a volume in one NIfTI: probabilities per class, uncertainty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Extension
from numpy.typing import NDArray

from segfocal.errors import OutputError
from segfocal.io.base import Scan, check_window
from segfocal.io.nifti_file import (
    NIFTI_ERRORS,
    axis_order,
    faults_on_disk,
    output_header,
    write_nifti,
)
from segfocal.io.pending import PendingOutput, writing
from segfocal.io.raw_volume import RawVolume
from segfocal.types import Window

__all__ = ["VolumeLayersWriter"]

_COMMENT = 6
"""Code of a header extension that holds text."""


class VolumeLayersWriter:
    """Writes layers of numbers on the grid of a volume; see
    :class:`~segfocal.io.layers_writer.LayersWriter`.

    One layer is a volume of three axes; more are the fourth axis, whose names, in order, are
    a JSON list in a header extension (a comment).

    Args:
        pending: The entered pending output.
        name: File name, ``.nii`` or ``.nii.gz``; it is moved out beside the main file, before it.
        scan: Where grid and header come from.
        layers: Names of the layers.
        dtype: ``float32``, or ``uint8``.
        scale: Factor from the numbers in the file to what they mean; 1 for floats.

    Raises:
        OutputError: The scratch file cannot be made.
    """

    def __init__(
        self,
        pending: PendingOutput,
        name: str,
        scan: Scan,
        layers: Sequence[str],
        *,
        dtype: str,
        scale: float = 1.0,
    ) -> None:
        self._pending, self._main = pending, pending.path(name)
        self._scan, self._layers, self._scale = scan, tuple(layers), scale
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._scratch = RawVolume(
            pending, f"layers-{name}.raw", axis_order(scan), self._dtype, len(layers)
        )

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write numbers ``(*sides, layers)`` of the file's type, nodata filled in.

        Raises:
            ValueError: The window is outside the grid.
            OutputError: The scratch file cannot be written.
        """
        check_window(window, self._scan.shape)
        values = values.astype(self._dtype, copy=False)
        with writing(self._pending.destination):
            for layer in range(len(self._layers)):
                self._scratch.write(window, values[..., layer], layer)

    def finish(self) -> None:
        """Write the file from the scratch file and verify it.

        Raises:
            OutputError: It cannot be written, or differs from what was written.
        """
        several = len(self._layers) > 1
        header = output_header(self._scan, self._dtype, len(self._layers) if several else None)
        header["scl_slope"] = self._scale
        header["cal_max"] = 1
        names = json.dumps(self._layers, ensure_ascii=False).encode()
        destination = self._pending.destination
        with writing(destination, *NIFTI_ERRORS):
            self._scratch.close()
            checksum = write_nifti(
                self._main, header, self._scratch.path, [Nifti1Extension(_COMMENT, names)]
            )
            faults = faults_on_disk(self._main, header, checksum)
            if faults:
                raise OutputError(
                    f"{destination}: verification failed: {', '.join(faults)} of "
                    f"{self._main.name} on disk not as written; check the disk and run again"
                )
        Path(self._scratch.path).unlink()
