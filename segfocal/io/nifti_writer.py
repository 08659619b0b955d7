"""Label maps of volumes: NIfTI on the grid, and with the header, of the input.

Labels go to a raw scratch file in the order of the final file, which is then streamed behind
a header.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from segfocal.errors import OutputError, OutputExistsError
from segfocal.io.base import Scan
from segfocal.io.label_names import label_extension, name_files
from segfocal.io.labels import checked_labels
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

if TYPE_CHECKING:
    from segfocal.card import Card

__all__ = ["VolumeLabelWriter"]

_LABEL_INTENT = 1002


class VolumeLabelWriter:
    """Writes labels of a volume; see :class:`~segfocal.io.labels.LabelWriter`.

    Names and colours of the classes go into a header extension and into text files beside
    the label map; see :mod:`segfocal.io.label_names`.

    Attributes:
        dtype: uint8, or uint16 when a class value is 255 or more.
        nodata: 0, as NIfTI knows no nodata value.
    """

    nodata = 0

    def __init__(self, pending: PendingOutput, scan: Scan, card: Card) -> None:
        self.dtype: np.dtype = np.dtype("<u1" if card.class_values.max() < 255 else "<u2")
        self._pending, self._scan, self._card = pending, scan, card
        self._missing = int(np.prod(scan.shape))
        size = self._missing * self.dtype.itemsize
        packed = pending.destination.name.lower().endswith(".gz")
        # Labels in .nii.gz take a few percent of their raw size; a quarter is generous.
        pending.require_space(size + (size // 4 if packed else size))
        self._refuse_to_replace_strangers()
        self._scratch = RawVolume(pending, "labels.raw", axis_order(scan), self.dtype)

    def write(self, window: Window, values: NDArray[np.integer]) -> None:
        """Write class values; see :class:`~segfocal.io.labels.LabelWriter`."""
        labels = checked_labels(window, values, self._scan.shape, self.dtype)
        if labels.size == 0:
            return
        self._missing -= labels.size
        if self._missing < 0:
            raise ValueError(f"{self._pending.destination}: voxels of {window} stand twice")
        with writing(self._pending.destination):
            self._scratch.write(window, labels)

    def finish(self) -> None:
        """Assemble and verify the file; see :class:`~segfocal.io.labels.LabelWriter`."""
        destination = self._pending.destination
        if self._missing:
            raise OutputError(
                f"{destination}: {self._missing} voxels were never written; expected windows "
                "that cover the whole scan"
            )
        header = output_header(self._scan, self.dtype)
        header.set_intent(_LABEL_INTENT, allow_unknown=True)
        with writing(destination, *NIFTI_ERRORS):
            self._scratch.close()
            checksum = write_nifti(
                self._pending.main, header, self._scratch.path, [label_extension(self._card)]
            )
            self._verify(header, checksum)
            for name, text in name_files(destination, self._card).items():
                self._pending.path(name).write_text(text, encoding="utf-8", newline="\n")

    def _refuse_to_replace_strangers(self) -> None:
        for name, text in name_files(self._pending.destination, self._card).items():
            place = self._pending.destination.with_name(name)
            if place.exists() and not self._pending.overwrite and not _holds(place, text):
                raise OutputExistsError(
                    f"{place}: exists already with other content; it is where the class names of "
                    f"{self._pending.destination.name} go: move it, choose another output, or pass "
                    "--overwrite"
                )

    def _verify(self, header: nib.Nifti1Header, checksum: int) -> None:
        """Read back what is on disk and compare it with what was written."""
        faults = faults_on_disk(self._pending.main, header, checksum)
        if faults:
            raise OutputError(
                f"{self._pending.destination}: verification failed: {', '.join(faults)} on disk "
                "not as written; check the disk and run again"
            )


def _holds(place: Path, text: str) -> bool:
    try:
        return place.read_bytes() == text.encode()
    except OSError:
        return False
