"""A region of a volume, with its affine and header."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from segfocal.io.base import Scan, grid_of
from segfocal.io.cropping import CroppedScan
from segfocal.io.nifti import VolumeScan
from segfocal.types import Window

__all__ = ["CroppedVolume"]

_ALIGNED = 2


class CroppedVolume(CroppedScan, VolumeScan):
    """A region of a volume; see :func:`~segfocal.io.cropping.crop`.

    It has the attributes of a :class:`~segfocal.io.nifti.VolumeScan`, in voxels of the region.
    """

    def __init__(self, whole: Scan, region: Window) -> None:
        super().__init__(whole, region)
        scan: Any = grid_of(whole)
        in_file = [side.start for side in scan.order.file_window(region)]
        self.affine: NDArray[np.float64] = _moved(scan.affine, in_file)
        self.canonical_affine: NDArray[np.float64] = _moved(
            scan.canonical_affine, [side.start for side in region]
        )
        self.order = replace(scan.order, shape=self.shape)
        self.orientation: str = scan.orientation
        self.files: tuple[str, ...] = scan.files
        self.header, self.stored_spacing = scan.header.copy(), scan.stored_spacing
        if isinstance(self.header, nib.Nifti1Header):
            _move_header(self.header, in_file, self.affine)

    def georeference(self) -> dict[str, Any]:
        """Return what is known of the volume, with the region's affine."""
        return {**self._whole.georeference(), "affine": self.affine.tolist()}


def _moved(affine: NDArray[np.float64], start: list[int]) -> NDArray[np.float64]:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ start
    return moved


def _move_header(header: nib.Nifti1Header, start: list[int], affine: NDArray[np.float64]) -> None:
    """Change the origins alone: to set a form anew would round its axes."""
    origin = _moved(header.get_qform(), start)[:3, 3]
    for axis, place in zip("xyz", origin, strict=True):
        header[f"qoffset_{axis}"] = place
    origin = _moved(header.get_sform(), start)[:3, 3]
    for axis, place in zip("xyz", origin, strict=True):
        header[f"srow_{axis}"][3] = place
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        # Such a volume is centred on the origin; a part of it would be, too, by its header.
        header.set_sform(affine, _ALIGNED)
