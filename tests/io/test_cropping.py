"""Regions of scans as scans: pixels and georeference against what GDAL and nibabel cut out."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine, rowcol

import segfocal as sf
from segfocal.io import crop, open_label_writer, open_scan
from segfocal.io.pending import PendingOutput
from segfocal.types import full_window, window_shape

REGION = (slice(5, 19), slice(7, 40))
BOX = (slice(2, 9), slice(1, 12), slice(4, 6))


@pytest.fixture
def write(tmp_path, make_card):
    """Return a function that writes a label map of numbers on the grid of a scan."""

    def write(scan, name):
        values = np.random.default_rng(3).integers(0, 2, scan.shape).astype(np.uint8)
        with PendingOutput(tmp_path / name) as pending:
            writer = open_label_writer(pending, scan, make_card(*range(3)), layout="gtiff")
            writer.write(full_window(scan.shape), values)
            writer.finish()
            pending.commit()
        return tmp_path / name, values

    return write


@pytest.mark.parametrize("kind", ["north_up", "south_up", "rotated", "none"])
def test_a_region_of_a_scene_lies_where_its_pixels_are(kind, grids, write_tif, write):
    transform = getattr(grids, kind)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 37, 53)).astype(np.uint8)
    extra = {"crs": None} if transform is None else {}
    path = write_tif(pixels, transform=transform, **extra)
    with open_scan(path) as scan:
        part = crop(scan, REGION)
        assert isinstance(part, sf.io.Scan)
        np.testing.assert_array_equal(
            part.read(full_window(part.shape)).values, scan.read(REGION).values
        )
        inner = (slice(2, 6), slice(0, 9))
        np.testing.assert_array_equal(
            part.read(inner, [1]).values[..., 0],
            scan.read((slice(7, 11), slice(7, 16))).values[..., 1],
        )
        with pytest.raises(ValueError, match="not inside a scan"):
            part.read((slice(0, 15), slice(0, 3)))
        output, values = write(part, "labels.tif")
        upright = values[::-1] if scan.flip_rows else values
        if transform is None:
            assert part.transform.is_identity
            return
        # Where the corners of the output are in the file, by rasterio's own arithmetic.
        with rasterio.open(path) as source, rasterio.open(output) as found:
            assert found.crs == source.crs
            first_row = 37 - 19 if scan.flip_rows else 5
            for row, col in ((0, 0), (13, 0), (0, 32), (13, 32)):
                x, y = found.xy(row, col)
                assert rowcol(source.transform, x, y) == (first_row + row, 7 + col)
            np.testing.assert_array_equal(found.read(1), upright)
    assert part.georeference()["transform"] == list(part.transform)[:6]
    with open_scan(output) as labels:
        np.testing.assert_array_equal(labels.read(full_window(labels.shape)).values[..., 0], values)


def test_control_points_and_rational_polynomials_count_from_the_region(tmp_path, write):
    def polynomial(seed):
        return np.random.default_rng(seed).random(20).tolist()

    rpcs = RPC(
        height_off=10.0, height_scale=100.0, lat_off=50.0, lat_scale=1.0,
        line_den_coeff=polynomial(0),
        line_num_coeff=polynomial(1), line_off=20.0, line_scale=20.0, long_off=8.0, long_scale=1.0,
        samp_den_coeff=polynomial(2), samp_num_coeff=polynomial(3), samp_off=26.0, samp_scale=27.0,
    )  # fmt: skip
    points = [
        GroundControlPoint(row=r, col=c, x=10 + c / 9, y=50 - r / 9, z=0.0)
        for r, c in ((0, 0), (37, 0), (0, 53), (37, 53))
    ]
    path = tmp_path / "gcps.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=37, width=53, dtype="uint8", gcps=points,
        crs="EPSG:4326", rpcs=rpcs,
    ) as out:  # fmt: skip
        out.write(np.ones((1, 37, 53), np.uint8))
    with open_scan(path) as scan:
        output, _ = write(crop(scan, REGION), "labels.tif")
        assert scan.rpcs.line_off == 20
    with rasterio.open(output) as found:
        moved, crs = found.gcps
        assert crs == rasterio.CRS.from_epsg(4326)
        expected = [(p.row - 5, p.col - 7, p.x, p.y) for p in points]
        np.testing.assert_allclose([(p.row, p.col, p.x, p.y) for p in moved], expected)
        assert (found.rpcs.line_off, found.rpcs.samp_off) == (15, 19)
        assert found.rpcs.line_num_coeff == pytest.approx(rpcs.line_num_coeff)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL"])
@pytest.mark.parametrize("codes", [(1, 2), (0, 1), (3, 0), (0, 0)])
def test_a_region_of_a_volume_lies_where_its_voxels_are(
    orientation, codes, grids, write_nii, write, tmp_path
):
    voxels = np.random.default_rng(0).integers(0, 99, (14, 13, 12)).astype(np.int16)
    path = write_nii(voxels, affine=grids.oblique)
    image = nib.load(path)
    qform_code, sform_code = codes
    affine = grids.oblique
    if sform_code == 0:  # a quaternion cannot be skew
        affine, _ = np.linalg.qr(grids.oblique[:3, :3])
        affine = np.block([[affine * [1.9, 1.2, 2.9], grids.oblique[:3, 3:]], [np.eye(4)[3:]]])
        image.header.set_zooms((1.9, 1.2, 2.9))
    image.header.set_qform(affine if sform_code == 0 else None, 0)
    image.header.set_sform(affine, sform_code)
    image.header["qform_code"] = qform_code
    nib.save(nib.Nifti1Image(voxels, None, image.header), path)
    whole = nib.load(path)
    with open_scan(path, orientation=orientation) as scan:
        region = tuple(slice(1, side - 2 - axis) for axis, side in enumerate(scan.shape))
        part = crop(scan, region)
        np.testing.assert_array_equal(
            part.read(full_window(part.shape)).values, scan.read(region).values
        )
        box = scan.order.file_window(region)
        output, values = write(part, "labels.nii.gz")
        np.testing.assert_array_equal(
            np.asarray(nib.load(output).dataobj), part.order.to_file(values)
        )
        np.testing.assert_allclose(
            part.canonical_affine @ [0, 0, 0, 1],
            scan.canonical_affine @ [*(side.start for side in region), 1],
        )
    found = nib.load(output)
    expected = whole.slicer[box]  # nibabel's own cropping
    np.testing.assert_allclose(found.affine, expected.affine, atol=2e-5)
    assert found.shape == window_shape(box)
    for form in ("qform", "sform"):
        code = int(whole.header[f"{form}_code"])
        if codes != (0, 0):
            assert int(found.header[f"{form}_code"]) == code
        if code:
            before = getattr(whole.header, f"get_{form}")()
            after = getattr(found.header, f"get_{form}")()
            np.testing.assert_array_equal(after[:3, :3], before[:3, :3])
            start = [side.start for side in box]
            np.testing.assert_allclose(after @ [0, 0, 0, 1], before @ [*start, 1], atol=2e-5)


def test_a_region_of_an_array(write):
    scan = sf.MemoryScan(np.random.default_rng(0).random((14, 13, 12, 2)), resolution=(1, 2, 3))
    part = crop(scan, BOX)
    np.testing.assert_array_equal(part.read(full_window(part.shape)).values, scan.read(BOX).values)
    assert (part.shape, part.resolution, part.georeference()) == ((7, 11, 2), (1, 2, 3), {})
    part.close()
    with pytest.raises(ValueError, match="closed"):
        scan.read(BOX)
    with pytest.raises(ValueError, match="not inside a scan"):
        crop(scan, (slice(2, 15), slice(0, 1), slice(0, 1)))


def test_a_transform_that_is_moved_keeps_its_numbers(write_tif, grids):
    """Steps and rotation stay bit by bit."""
    path = write_tif(np.zeros((1, 37, 53), np.uint8), transform=Affine(0.1, 0.3, 7, 0.2, -0.7, 3))
    with open_scan(path) as scan:
        moved, before = crop(scan, REGION).transform, scan.transform
    assert (moved.a, moved.b, moved.d, moved.e) == (before.a, before.b, before.d, before.e)


def test_a_region_of_stacked_files_lies_where_the_first_does(write_tif, grids, write):
    bands = np.random.default_rng(0).integers(0, 255, (2, 37, 53)).astype(np.uint8)
    paths = [write_tif(band[None], f"b{i}.tif", transform=grids.south_up)
             for i, band in enumerate(bands)]  # fmt: skip
    with open_scan(paths) as scan, open_scan(paths[0]) as first:
        part = crop(scan, REGION)
        np.testing.assert_array_equal(
            part.read(full_window(part.shape)).values, scan.read(REGION).values
        )
        assert part.transform == crop(first, REGION).transform
        output, values = write(part, "labels.tif")
    with rasterio.open(output) as found:
        np.testing.assert_array_equal(found.read(1), values[::-1])
