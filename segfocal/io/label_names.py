"""Names and colours of a label volume, as the programs that show it read them.

NIfTI has no place for names of its own. They go into a header extension, in the XML of the
Caret and Workbench programs that TotalSegmentator writes too, and into two text files beside
the label map: a label description file for ITK-SNAP and a colour table for 3D Slicer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nibabel.nifti1 import Nifti1Extension

from segfocal.card import Card, LabelClass

__all__ = ["label_extension", "name_files"]

_CODE = 0
"""As TotalSegmentator writes it: nibabel cannot read what has the XML's own code (30)."""

_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""


def name_files(output: Path, card: Card) -> dict[str, str]:
    """Return names and contents of the text files beside a label volume.

    ``labels.nii.gz`` gets ``labels.itksnap.txt`` and ``labels.ctbl``.
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", output.name, flags=re.IGNORECASE)
    return {f"{stem}.itksnap.txt": _for_snap(card), f"{stem}.ctbl": _for_slicer(card)}


def label_extension(card: Card) -> Nifti1Extension:
    """Return the header extension with the names of a label map."""
    rows = []
    for label in _shown(card):
        red, green, blue = (f"{part / 255:.6g}" for part in label.color)
        name = _line(label.name).replace("]]>", "]]]]><![CDATA[>")
        rows.append(
            f'<Label Key="{label.value}" Red="{red}" Green="{green}" Blue="{blue}" '
            f'Alpha="{int(label.value != 0)}"><![CDATA[{name}]]></Label>'
        )
    text = "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<CaretExtension><VolumeInformation Index="0"><LabelTable>',
            *rows,
            "</LabelTable><StudyMetaDataLinkSet></StudyMetaDataLinkSet>"
            "<VolumeType><![CDATA[Label]]></VolumeType></VolumeInformation></CaretExtension>",
        ]
    )
    return Nifti1Extension(_CODE, text.encode())


def _for_snap(card: Card) -> str:
    rows = []
    for label in _shown(card):
        red, green, blue = label.color
        name, seen = _line(label.name).replace('"', "'"), int(label.value != 0)
        rows.append(
            f"{label.value:5d} {red:5d} {green:4d} {blue:4d} {seen:8d} {seen:2d} {seen:2d}    "
            f'"{name}"\n'
        )
    return _SNAP_HEADER + "".join(rows)


def _for_slicer(card: Card) -> str:
    rows = list(_shown(card))
    lines = ["# Color table file", f"# {len(rows)} values"]
    for label in rows:
        color = " ".join(str(part) for part in label.color)
        name = re.sub(r"\s", "_", _line(label.name))
        lines.append(f"{label.value} {name} {color} {255 * int(label.value != 0)}")
    return "\n".join(lines) + "\n"


def _shown(card: Card) -> Iterator[LabelClass]:
    """Yield what a label map may show, by value; 0 comes always, as both programs want it."""
    classes = {label.value: label for label in card.classes}
    classes.setdefault(0, LabelClass(value=0, name="background", color=(0, 0, 0)))
    for value in sorted(classes):
        yield classes[value]


def _line(name: str) -> str:
    """Return a name without line breaks and what XML cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]", " ", name)
