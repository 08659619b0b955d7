"""VolumeScan: orientations, channels, types, and files that are no volumes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io import open_scan, read_labels
from segfocal.io.identity import scan_identity
from segfocal.io.nifti import VolumeScan
from segfocal.types import full_window

Write = Callable[..., Path]
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def noise(shape: tuple[int, ...] = (7, 9, 11), dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def in_orientation(path: Path, orientation: str) -> nib.Nifti1Image:
    """The slow and obvious way: nibabel turns the whole image."""
    image = nib.load(path)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(orientation))
    return image.as_reoriented(turn)


def windows(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    return [
        full_window(shape),
        tuple(slice(1, length - 2) for length in shape),
        tuple(slice(i, i + 1) for i in range(3)),
    ]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reading_in_each_orientation(write_nii: Write, orientation: str) -> None:
    path = write_nii(noise(), "volume.nii")
    expected = in_orientation(path, orientation)
    with VolumeScan(path, orientation) as scan:
        assert "".join(aff2axcodes(scan.canonical_affine)) == orientation
        assert scan.shape == expected.shape
        np.testing.assert_allclose(scan.canonical_affine, expected.affine, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scan.resolution, nib.affines.voxel_sizes(expected.affine))
        for window in windows(scan.shape):
            patch = scan.read(window)
            assert patch.valid.all()
            np.testing.assert_array_equal(
                patch.values[..., 0], np.asarray(expected.dataobj)[window]
            )
        assert scan.shape[scan.slow_axis] == 11  # the file's last axis


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_files_stored_in_each_orientation(write_nii: Write, orientation: str) -> None:
    source = write_nii(noise(), "source.nii")
    stored = in_orientation(source, orientation)
    path = source.with_name("stored.nii.gz")
    nib.save(stored, path)
    with open_scan(source) as first, open_scan(path) as second:
        np.testing.assert_allclose(first.canonical_affine, second.canonical_affine, atol=1e-5)
        for window in windows(first.shape):
            np.testing.assert_array_equal(first.read(window).values, second.read(window).values)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((7, 9, 11), 1),
        ((7, 9, 1), 1),
        ((7, 9, 11, 3), 3),
        ((7, 9, 11, 1), 1),
        ((7, 9, 11, 1, 3), 3),
        ((7, 9, 11, 3, 1), 3),
        ((7, 9, 11, 1, 1), 1),
    ],
)
def test_axes_beyond_the_third_are_channels(
    write_nii: Write, shape: tuple[int, ...], count: int
) -> None:
    array = noise(shape)
    with open_scan(write_nii(array)) as scan:
        assert scan.channels == tuple(f"channel_{i + 1}" for i in range(count))
        patch = scan.read(full_window(scan.shape))
    np.testing.assert_array_equal(patch.values, array.reshape(*shape[:3], count))


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.img", "v.hdr", "v.mgz"])
def test_formats(tmp_path: Path, name: str) -> None:
    array = noise()
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    kind = nib.Nifti1Pair if name[-3:] in ("img", "hdr") else kind
    nib.save(kind(array, np.diag([2.0, 3, 4, 1])), tmp_path / name)
    with open_scan(tmp_path / name) as scan:
        assert isinstance(scan, VolumeScan)
        assert scan.resolution == (2.0, 3.0, 4.0)
        np.testing.assert_array_equal(scan.read(full_window(scan.shape)).values[..., 0], array)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_types_are_kept_in_native_order(tmp_path: Path, dtype: str, order: str) -> None:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    array = noise(dtype=dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4), header), tmp_path / "v.nii")
    with open_scan(tmp_path / "v.nii") as scan:
        assert scan.dtype == np.dtype(dtype)
        patch = scan.read(full_window(scan.shape))
    assert patch.values.dtype == np.dtype(dtype)
    assert patch.values.dtype.isnative
    np.testing.assert_array_equal(patch.values[..., 0], array)


def test_slope_and_intercept_give_float32(tmp_path: Path) -> None:
    array = noise()
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "v.nii.gz")
    stored = nib.load(tmp_path / "v.nii.gz")
    assert (stored.dataobj.slope, stored.dataobj.inter) == (0.5, -1000)
    with open_scan(tmp_path / "v.nii.gz") as scan:
        patch = scan.read(full_window(scan.shape))
    assert patch.values.dtype == scan.dtype == np.float32
    np.testing.assert_array_equal(patch.values[..., 0], stored.get_fdata().astype(np.float32))


def test_spacing_is_in_mm_whatever_the_unit(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(), np.diag([500.0, 250, 1000, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "v.nii")
    with open_scan(tmp_path / "v.nii") as scan:
        assert scan.resolution == pytest.approx((0.5, 0.25, 1.0))


@pytest.mark.parametrize("orientation", ["RAX", "RA", "RRS", "ras", "RASS"])
def test_orientations_that_are_none(write_nii: Write, orientation: str) -> None:
    with pytest.raises(ValueError, match="one each of R/L, A/P and S/I"):
        VolumeScan(write_nii(noise()), orientation)


def test_files_that_are_no_volume(tmp_path: Path, write_nii: Write) -> None:
    with pytest.raises(ScanNotFoundError, match="no such file"):
        open_scan(tmp_path / "none.nii.gz")
    for name in ("text.nii", "text.nii.gz"):
        (tmp_path / name).write_text("no volume at all\n" * 100)
        with pytest.raises(ScanError, match=rf"{name}: (not a volume that nibabel can|is no gzip)"):
            open_scan(tmp_path / name)
    (tmp_path / "empty.nii").touch()
    with pytest.raises(ScanError, match="the file is empty"):
        open_scan(tmp_path / "empty.nii")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ScanError, match="is a folder"):
        open_scan(tmp_path / "folder.nii")
    with pytest.raises(ScanError, match=r"shape \(7, 9\); expected a volume of three axes"):
        open_scan(write_nii(noise((7, 9))))
    with pytest.raises(ScanError, match=r"shape \(7, 9, 3, 2, 4\); expected"):
        open_scan(write_nii(noise((7, 9, 3, 2, 4))))
    with pytest.raises(ScanError, match="voxels of type complex64"):
        open_scan(write_nii(noise(dtype="complex64")))
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ScanError, match="voxels of type RGB"):
        open_scan(write_nii(rgb))


@pytest.mark.parametrize(
    "affine", [np.diag([0.0, 1, 1, 1]), np.diag([np.nan, 1, 1, 1]), np.ones((4, 4))]
)
def test_unusable_affines(tmp_path: Path, affine: np.ndarray) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((7, 9, 11))
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / "v.nii"
    path.write_bytes(header.binaryblock + bytes(4) + noise().tobytes("F"))
    with pytest.raises(ScanError, match=r"unusable affine .* repair the header"):
        open_scan(path)


def test_truncated_files(write_nii: Write) -> None:
    array = np.random.default_rng(0).integers(0, 30000, (40, 50, 60)).astype(np.int16)
    plain, packed = write_nii(array, "v.nii"), write_nii(array, "v.nii.gz")
    plain.write_bytes(plain.read_bytes()[:-1000])
    with pytest.raises(ScanError, match=r"v\.nii: the file is truncated"):
        open_scan(plain)
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with open_scan(packed) as scan:
        with pytest.raises(ScanError, match=r"v\.nii\.gz: cannot read voxels") as caught:
            scan.read((slice(0, 40), slice(0, 50), slice(55, 60)))
        assert "\n" not in str(caught.value)


def test_a_damaged_stream(write_nii: Write) -> None:
    path = write_nii(np.random.default_rng(0).integers(0, 30000, (40, 50, 60)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[-5000:-1000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"volume\.nii\.gz: "), open_scan(path) as scan:
        scan.read(full_window(scan.shape))


def test_a_raster_called_img_is_not_taken_for_a_volume(tmp_path: Path) -> None:
    import rasterio

    array = noise((1, 20, 30), "uint8")
    with rasterio.open(
        tmp_path / "s.img", "w", driver="ENVI", count=1, height=20, width=30, dtype="uint8",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 9),
    ) as target:  # fmt: skip
        target.write(array)
    with open_scan(tmp_path / "s.img") as scan:
        np.testing.assert_array_equal(scan.read(full_window(scan.shape)).values[..., 0], array[0])


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64", "uint64", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_rarer_types_of_both_versions(
    tmp_path: Path, dtype: str, order: str, kind: type
) -> None:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    array = noise(dtype=dtype)
    nib.save(kind(array, np.diag([1.0, 2, 3, 1]), header, dtype=dtype), tmp_path / "v.nii.gz")
    with open_scan(tmp_path / "v.nii.gz") as scan:
        assert scan.dtype == np.dtype(dtype)
        assert scan.resolution == (1, 2, 3)
        np.testing.assert_array_equal(scan.read(full_window(scan.shape)).values[..., 0], array)


@pytest.mark.parametrize("slope", [None, 2.0])
def test_nan_is_not_valid(tmp_path: Path, slope: float | None) -> None:
    array = noise().astype(np.float32)
    array[:3], array[5, 5, 5] = np.nan, np.inf
    image = nib.Nifti1Image(array, np.eye(4))
    if slope is not None:
        image.header.set_slope_inter(slope, 1)
    nib.save(image, tmp_path / "v.nii")
    with open_scan(tmp_path / "v.nii") as scan:
        np.testing.assert_array_equal(
            scan.read(full_window(scan.shape)).valid[..., 0], np.isfinite(array)
        )


def test_skewed_axes_are_noted_and_kept(tmp_path: Path, write_nii: Write) -> None:
    affine = np.array([[1, 0.05, 0, 3], [0, 2, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    with open_scan(write_nii(noise(), "skewed.nii", affine)) as scan:
        assert isinstance(scan, VolumeScan)
        np.testing.assert_allclose(scan.affine, affine, rtol=1e-6)
        (note,) = scan.notes
    assert re.search(r"skewed\.nii: its axes are up to 1\.4 degrees from orthogonal", note)
    turned = np.eye(4)
    turned[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    with open_scan(write_nii(noise(), "turned.nii", turned)) as scan:
        assert isinstance(scan, VolumeScan)
        assert scan.notes == ()


def test_a_header_that_does_not_tell_left_from_right_is_noted(tmp_path: Path) -> None:
    array = noise().astype(np.int16)
    nib.save(nib.AnalyzeImage(array, None), tmp_path / "analyze.hdr")
    spm = nib.Spm99AnalyzeImage(array, np.diag([3.0, 2, 1, 1]))  # writes a .mat file
    nib.save(spm, tmp_path / "spm.hdr")
    nifti = nib.Nifti1Image(array, None)
    nifti.header["sform_code"] = nifti.header["qform_code"] = 0
    nib.save(nifti, tmp_path / "bare.nii")
    for name, noted in (("analyze.hdr", True), ("spm.hdr", False), ("bare.nii", True)):
        with open_scan(tmp_path / name) as scan:
            assert isinstance(scan, VolumeScan)
            assert any("does not tell left from right" in note for note in scan.notes) == noted
    assert (tmp_path / "spm.mat").exists()


@pytest.mark.parametrize("place", [12, 200])
def test_a_small_compressed_file_that_is_damaged_is_called_so(tmp_path: Path, place: int) -> None:
    nib.save(nib.Nifti1Image(noise(), np.eye(4)), tmp_path / "v.nii.gz")
    content = bytearray((tmp_path / "v.nii.gz").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(ScanError, match="damaged"), open_scan(tmp_path / "v.nii.gz") as scan:
        scan.read(full_window(scan.shape))


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "slice.dcm"])
def test_other_kinds_of_volumes_are_to_be_converted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"NRRD0004\ntype: short\n" * 40)
    with pytest.raises(ScanError, match="dcm2niix"):
        open_scan(tmp_path / name)


def test_labels_of_64_bits_are_read_where_they_fit(tmp_path: Path) -> None:
    """The standard knows them, and other programs cannot read them."""
    array = noise().astype(np.int64)
    nib.save(nib.Nifti1Image(array, np.eye(4), dtype="int64"), tmp_path / "v.nii")
    with open_scan(tmp_path / "v.nii") as scan:
        labels, _ = read_labels(scan, full_window(scan.shape))
    np.testing.assert_array_equal(labels, array)
    array[0, 0, 0] = 2**40
    nib.save(nib.Nifti1Image(array, np.eye(4), dtype="int64"), tmp_path / "v.nii")
    with open_scan(tmp_path / "v.nii") as scan, pytest.raises(ScanError, match="fit in 32 bits"):
        read_labels(scan, full_window(scan.shape))


@pytest.mark.parametrize("turned", [False, True])
def test_a_flipped_bit_in_a_large_compressed_volume_is_found(tmp_path: Path, turned: bool) -> None:
    """Larger than what is looked into on opening; nibabel itself would not notice."""
    values = np.random.default_rng(0).integers(-999, 999, (200, 200, 90)).astype(np.int16)
    affine = np.diag([1.0, 1, -1 if turned else 1, 1])
    path = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    content = bytearray(path.read_bytes())
    assert len(content) > 5 * 2**20
    content[int(len(content) * 0.9)] ^= 1
    path.write_bytes(content)

    def read() -> None:
        with VolumeScan(path) as scan:
            scan.remember_planes()
            for plane in range(0, 90, 30):
                scan.read((slice(0, 200), slice(0, 200), slice(plane, plane + 30)))

    with pytest.raises(ScanError, match=r"truncated, damaged or gone|not a volume"):
        read()


def test_mgh_shapes_are_plain_numbers(tmp_path: Path) -> None:
    path = tmp_path / "brain.mgz"
    nib.save(nib.MGHImage(np.ones((4, 5, 6), np.int32), np.eye(4)), path)
    with open_scan(path) as scan:
        json.dumps(scan_identity(scan))
        assert scan.shape == (4, 5, 6)
