"""Label volumes: the input's header and geometry, any orientation, the same bytes each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segfocal.card import Card
from segfocal.io import MemoryScan, PendingOutput, open_label_writer, open_scan, read_labels
from segfocal.io.nifti import VolumeScan
from segfocal.io.nifti_file import NIFTI1_LONGEST_SIDE
from segfocal.types import Window, full_window

Write = Callable[..., Path]
SHAPE = (7, 9, 11)
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]
KEPT = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
    *("xyzt_units", "dim_info"),
)


def draw(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4, shape).astype(np.uint8)


def boxes(shape: tuple[int, ...], side: int) -> list[Window]:
    starts = itertools.product(*(range(0, length, side) for length in shape))
    parts = [
        tuple(slice(a, min(a + side, n)) for a, n in zip(start, shape, strict=True))
        for start in starts
    ]
    return [parts[i] for i in np.random.default_rng(0).permutation(len(parts))]


def save(
    scan: VolumeScan | MemoryScan, path: Path, card: Card, labels: np.ndarray, side: int
) -> None:
    with PendingOutput(path, overwrite=True) as pending:
        writer = open_label_writer(pending, scan, card)
        assert writer.nodata == 0
        for window in boxes(scan.shape, side):
            writer.write(window, labels[window])
        writer.finish()
        pending.commit()


def unusual_image(shape: tuple[int, ...] = SHAPE, kind: type = nib.Nifti1Image) -> nib.Nifti1Image:
    """An image with a shear, other qform than sform, scaling, units, extension and intent."""
    affine = np.array(
        [[-1.9, 0.1, 0.05, 20], [0.3, 1.2, 0.3, 31], [-0.04, -0.25, 2.9, 7], [0, 0, 0, 1]]
    )
    image = kind(np.zeros(shape, np.int16), affine)
    image.set_qform(np.diag([-2.0, 1.5, 3, 1]), 1)
    image.set_sform(affine, 4)
    header = image.header
    header.set_xyzt_units("mm", "msec")
    header.set_intent("z score")
    header.set_slope_inter(2, 5)
    header.set_dim_info(0, 1, 2)
    header["descrip"], header["aux_file"], header["cal_max"] = b"of a patient", b"b.mat", 300
    if kind is nib.Nifti1Image:
        header["db_name"] = b"a patient"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient name"))
    return image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2), (*SHAPE, 1, 3)])
def test_the_header_is_the_inputs(
    tmp_path: Path, card: Card, suffix: str, shape: tuple[int, ...]
) -> None:
    nib.save(unusual_image(shape), tmp_path / "in.nii.gz")
    labels = draw(SHAPE)
    with VolumeScan(tmp_path / "in.nii.gz", "LPS") as scan:
        in_file = scan.order.to_file(labels)
        save(scan, tmp_path / f"out{suffix}", card, labels, 4)
    given, output = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / f"out{suffix}")
    assert type(output) is nib.Nifti1Image
    assert output.shape == SHAPE
    np.testing.assert_array_equal(output.affine, given.affine)
    for what in ("get_sform", "get_qform"):
        ours, code = getattr(output, what)(coded=True)
        theirs, their_code = getattr(given, what)(coded=True)
        assert code == their_code
        np.testing.assert_array_equal(ours, theirs)
    for field in KEPT:
        np.testing.assert_array_equal(output.header[field], given.header[field])
    np.testing.assert_array_equal(output.header["pixdim"][:4], given.header["pixdim"][:4])
    raw = nib.Nifti1Header(_first_bytes(tmp_path / f"out{suffix}", 348))
    assert raw["intent_code"] == 1002
    assert (raw["scl_slope"], raw["scl_inter"], raw["cal_max"]) == (1, 0, 0)
    for field in ("descrip", "aux_file", "db_name", "data_type"):
        assert raw[field] == b""
    (extension,) = output.header.extensions  # the input's comment names a patient
    assert extension.get_code() == 0
    assert (raw["vox_offset"], raw["magic"]) == (352 + extension.get_sizeondisk(), b"n+1")
    assert output.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(output.dataobj), in_file)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_negative_spacing_stays_so_that_itk_shows_both_alike(
    tmp_path: Path, card: Card, suffix: str, codes: tuple[int, int]
) -> None:
    itk = pytest.importorskip("SimpleITK")
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([2.0, 1.5, 3, 1]))
    image.header["qform_code"], image.header["sform_code"] = codes
    nib.save(image, tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[80:84] = np.float32(-2).tobytes()  # pixdim[1]
    (tmp_path / "in.nii").write_bytes(content)
    with VolumeScan(tmp_path / "in.nii") as scan:
        assert sum("negative spacing" in note for note in scan.notes) == 1
        save(scan, tmp_path / f"out{suffix}", card, draw(SHAPE), 4)
    given, output = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(output.affine, given.affine)
    assert _first_bytes(tmp_path / f"out{suffix}", 84)[76:] == content[76:84]
    given, output = (itk.ReadImage(str(tmp_path / n)) for n in ("in.nii", f"out{suffix}"))
    corner = [side - 1 for side in SHAPE]
    for point in ([0, 0, 0], corner):
        assert output.TransformIndexToPhysicalPoint(point) == given.TransformIndexToPhysicalPoint(
            point
        )


def _first_bytes(path: Path, count: int) -> bytes:
    import gzip

    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        return file.read(count)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_come_back_in_each_orientation(
    write_nii: Write, tmp_path: Path, card: Card, orientation: str
) -> None:
    """The oracle turns the image with nibabel; the writer turns windows."""
    path = write_nii(np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8), "in.nii")
    with VolumeScan(path, orientation) as scan:
        labels = scan.read(full_window(scan.shape)).values[..., 0]
        save(scan, tmp_path / "out.nii", card, labels, 4)
    np.testing.assert_array_equal(
        np.asarray(nib.load(tmp_path / "out.nii").dataobj), np.asarray(nib.load(path).dataobj)
    )
    with VolumeScan(tmp_path / "out.nii", orientation) as again:
        np.testing.assert_array_equal(read_labels(again, full_window(again.shape))[0], labels)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bytes_do_not_depend_on_windows_or_name(
    write_nii: Write, tmp_path: Path, card: Card, suffix: str
) -> None:
    labels = draw(SHAPE)
    with open_scan(write_nii(np.zeros(SHAPE, np.int16))) as scan:
        save(scan, tmp_path / f"a{suffix}", card, labels, 100)
        save(scan, tmp_path / f"b{suffix}", card, labels, 3)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".nii.gz":
        flags, time = _gzip_header(tmp_path / f"a{suffix}")
        assert (flags, time) == (0, 0)  # neither file name nor time of writing


def _gzip_header(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    return content[3], int.from_bytes(content[4:8], "little")


def test_values_from_255_take_uint16(
    write_nii: Write, tmp_path: Path, make_card: Callable[..., Card]
) -> None:
    labels = np.array([0, 255, 1000])[np.random.default_rng(0).integers(0, 3, SHAPE)]
    with open_scan(write_nii(np.zeros(SHAPE, np.int16))) as scan:
        save(scan, tmp_path / "out.nii.gz", make_card(0, 255, 1000), labels, 5)
    output = nib.load(tmp_path / "out.nii.gz")
    assert output.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(output.dataobj), labels)


def test_nifti2_stays_and_long_sides_ask_for_it(tmp_path: Path, card: Card) -> None:
    nib.save(unusual_image(kind=nib.Nifti2Image), tmp_path / "in.nii")
    labels = draw(SHAPE)
    with VolumeScan(tmp_path / "in.nii", "RAS") as scan:
        save(scan, tmp_path / "out.nii", card, labels, 5)
        in_file = scan.order.to_file(labels)
    given, output = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii")
    assert type(output) is nib.Nifti2Image
    np.testing.assert_array_equal(output.get_sform(), given.get_sform())
    np.testing.assert_array_equal(np.asarray(output.dataobj), in_file)
    long = draw((NIFTI1_LONGEST_SIDE + 1, 2, 1))
    save(MemoryScan(long[..., None]), tmp_path / "long.nii.gz", card, long, 20000)
    output = nib.load(tmp_path / "long.nii.gz")
    assert type(output) is nib.Nifti2Image
    np.testing.assert_array_equal(np.asarray(output.dataobj), long)


@pytest.mark.parametrize("name", ["in.img", "in.mgz", "big.nii", "memory"])
def test_other_inputs(tmp_path: Path, card: Card, name: str) -> None:
    affine = np.array([[0, 0, -3.0, 9], [2, 0, 0, 8], [0, 4, 0, 7], [0, 0, 0, 1]])
    array, labels = np.zeros(SHAPE, np.int16), draw(SHAPE)
    if name == "memory":
        affine = np.eye(4)
        save(MemoryScan(array[..., None]), tmp_path / "out.nii.gz", card, labels, 4)
    else:
        if name == "big.nii":
            image = nib.Nifti1Image(array, affine, nib.Nifti1Header(endianness=">"))
        else:
            image = (nib.Nifti1Pair if name == "in.img" else nib.MGHImage)(array, affine)
        nib.save(image, tmp_path / name)
        with open_scan(tmp_path / name) as scan:
            assert isinstance(scan, VolumeScan)
            labels = scan.order.to_canonical(labels)
            save(scan, tmp_path / "out.nii.gz", card, labels, 4)
            labels = scan.order.to_file(labels)
    output = nib.load(tmp_path / "out.nii.gz")
    assert type(output) is nib.Nifti1Image
    np.testing.assert_allclose(output.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(output.dataobj), labels)


@pytest.mark.parametrize("stored", ["RAS", "LPS", "PIR", "ASL"])
def test_itk_sees_the_same_geometry(
    write_nii: Write, tmp_path: Path, card: Card, stored: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    from nibabel.orientations import axcodes2ornt

    angle = 0.3
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([1.5, 2, 3]), (10, -20, 30)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine).as_reoriented(axcodes2ornt(stored))
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "in.nii.gz")
    labels = draw(open_scan(tmp_path / "in.nii.gz").shape)
    with VolumeScan(tmp_path / "in.nii.gz", "RAS") as scan:
        in_file = scan.order.to_file(labels)
        save(scan, tmp_path / "out.nii.gz", card, labels, 4)
    given, output = (sitk.ReadImage(str(tmp_path / name)) for name in ("in.nii.gz", "out.nii.gz"))
    assert output.GetSize() == given.GetSize()
    assert output.GetSpacing() == given.GetSpacing()
    assert output.GetOrigin() == given.GetOrigin()
    assert output.GetDirection() == given.GetDirection()
    assert output.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(output).T, in_file)
