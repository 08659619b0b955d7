"""Names of classes beside and inside a label volume, read by what others would read them with."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import OutputExistsError
from segfocal.io import MemoryScan, PendingOutput, open_label_writer
from segfocal.types import full_window

SHAPE = (4, 5, 6)
SNAP_LINE = re.compile(r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"(.*)"$')


def make_card(*classes: tuple[int, str]) -> Card:
    return Card(
        ndim=3,
        channels=(Channel(name="ct"),),
        classes=tuple(
            LabelClass(value=value, name=name, color=(value % 256, 7, 255))
            for value, name in classes
        ),
    )


def save(path: Path, card: Card, *, overwrite: bool = False) -> None:
    with PendingOutput(path, overwrite=overwrite) as pending:
        writer = open_label_writer(pending, MemoryScan(np.zeros((*SHAPE, 1))), card)
        writer.write(full_window(SHAPE), np.full(SHAPE, card.class_values[-1]))
        writer.finish()
        pending.commit()


CARD = make_card((3, 'left "a" <&]]> kidney'), (0, "nothing"), (300, "Größe\n 2\x07"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_header_extension_holds_values_names_and_colours(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"labels{suffix}", CARD)
    image = nib.load(tmp_path / f"labels{suffix}")
    assert (np.asarray(image.dataobj) == 300).all()
    # The way of TotalSegmentator's load_multilabel_nifti, with another reader of XML.
    content = image.header.extensions[0].get_content()
    root = ElementTree.fromstring(content.rstrip(b"\0"))
    rows = root.findall("./VolumeInformation/LabelTable/Label")
    assert [(int(row.get("Key")), row.text) for row in rows] == [
        (0, "nothing"), (3, 'left "a" <&]]> kidney'), (300, "Größe  2 "),
    ]  # fmt: skip
    assert [float(rows[1].get(part)) for part in ("Red", "Green", "Blue", "Alpha")] == (
        pytest.approx([3 / 255, 7 / 255, 1, 1], abs=1e-6)
    )
    assert rows[0].get("Alpha") == "0"
    assert root.find("./VolumeInformation/VolumeType").text == "Label"


def test_itk_reads_a_label_map_with_an_extension(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    save(tmp_path / "labels.nii.gz", CARD)
    assert (itk.GetArrayFromImage(itk.ReadImage(str(tmp_path / "labels.nii.gz"))) == 300).all()


def test_itk_snap_and_slicer_get_a_file_each(tmp_path: Path) -> None:
    save(tmp_path / "la.bels.nii.gz", CARD)
    lines = (tmp_path / "la.bels.itksnap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "# ITK-SnAP Label Description File"
    found = [SNAP_LINE.match(line).groups() for line in lines if not line.startswith("#")]
    assert found == [
        ("0", "0", "7", "255", "0", "0", "0", "nothing"),
        ("3", "3", "7", "255", "1", "1", "1", "left 'a' <&]]> kidney"),
        ("300", "44", "7", "255", "1", "1", "1", "Größe  2 "),
    ]
    table = (tmp_path / "la.bels.ctbl").read_bytes().decode().split("\n")
    assert table[0].startswith("# Color table file")
    assert table[2:] == [
        "0 nothing 0 7 255 0",
        '3 left_"a"_<&]]>_kidney 3 7 255 255',
        "300 Größe__2_ 44 7 255 255",
        "",
    ]


def test_what_is_no_class_is_named_all_the_same(tmp_path: Path) -> None:
    save(tmp_path / "labels.nii", make_card((1, "a"), (2, "b")))
    assert "\n0 background 0 0 0 0\n" in (tmp_path / "labels.ctbl").read_text()


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "labels.ctbl").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"labels\.ctbl: exists already with other content"):
        save(tmp_path / "labels.nii", CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.ctbl"]
    save(tmp_path / "labels.nii", CARD, overwrite=True)
    save(tmp_path / "labels.nii.gz", CARD)  # the same names: the files serve both
    with pytest.raises(OutputExistsError, match=r"labels\.itksnap\.txt: exists already"):
        save(tmp_path / "labels.NII", make_card((1, "a"), (2, "b")))
