"""Several files as one scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject
from scipy import ndimage
from skimage.transform import resize

from segfocal.errors import ScanError, ScanNotFoundError, SegfocalWarning
from segfocal.io import Scan, open_scan
from segfocal.io.identity import scan_identity
from segfocal.types import full_window

COARSE = rasterio.Affine(20, 0, 500000, 0, -20, 4000000)
RNG = np.random.default_rng(3)


@pytest.fixture
def fine(write_tif: Callable[..., Path]) -> tuple[Path, np.ndarray]:
    array = RNG.integers(0, 4000, (2, 40, 60)).astype(np.uint16)
    return write_tif(array, "fine.tif"), array


def opened_with_warning(*paths: Path) -> Scan:
    with pytest.warns(SegfocalWarning, match=f"{paths[-1].name}: is resampled to the grid of"):
        return open_scan(paths)


@pytest.mark.parametrize("turned", [False, True])
def test_a_coarser_file_is_resampled_to_the_grid_of_the_first(
    turned: bool, write_tif: Callable[..., Path], grids: SimpleNamespace
) -> None:
    array = RNG.integers(0, 4000, (2, 40, 60)).astype(np.uint16)
    stored = array[:, ::-1] if turned else array
    to = rasterio.Affine(10, 0, 500000, 0, 10, 3999600) if turned else grids.north_up
    coarse = RNG.integers(1, 4000, (1, 20, 30)).astype(np.uint16)
    paths = [write_tif(stored, "fine.tif", transform=to)]
    paths.append(write_tif(coarse, "coarse.tif", transform=COARSE))
    with opened_with_warning(*paths) as scan:
        assert scan.shape == (40, 60)
        assert scan.channels == ("fine.band_1", "fine.band_2", "coarse")
        whole = scan.read(full_window(scan.shape))
        part = scan.read((slice(7, 31), slice(3, 44)), [2, 0])
    np.testing.assert_array_equal(whole.values[..., :2], np.moveaxis(array, 0, -1))
    expected = resize(coarse[0].astype(float), (40, 60), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(whole.values[..., 2], expected, rtol=1e-6)
    assert whole.valid.all()
    np.testing.assert_array_equal(part.values, whole.values[7:31, 3:44][..., [2, 0]])


def test_another_crs_is_warped_as_gdal_warps_it_whatever_the_window(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path], grids: SimpleNamespace
) -> None:
    left, bottom, right, top = rasterio.warp.transform_bounds(
        "EPSG:32633", "EPSG:4326", 499900, 3999500, 500500, 4000100
    )
    there = rasterio.Affine((right - left) / 50, 0, left, 0, (bottom - top) / 45, top)
    other = RNG.random((1, 45, 50)).astype(np.float32)
    path = write_tif(other, "degrees.tif", crs="EPSG:4326", transform=there)
    with opened_with_warning(fine[0], path) as scan:
        whole = scan.read(full_window(scan.shape), [2])
        for _ in range(10):
            (top, low), (left, right) = (sorted(RNG.integers(0, n, 2)) for n in (40, 60))
            window = (slice(int(top), int(low) + 1), slice(int(left), int(right) + 1))
            patch = scan.read(window, [2])
            np.testing.assert_allclose(patch.values, whole.values[window], atol=1e-5)
    expected = np.zeros((40, 60), np.float32)
    reproject(
        other[0],
        expected,
        src_transform=there,
        src_crs="EPSG:4326",
        dst_transform=grids.north_up,
        dst_crs="EPSG:32633",
        resampling=Resampling.bilinear,
    )
    np.testing.assert_allclose(whole.values[..., 0], expected, atol=0.02)
    assert np.abs(whole.values[..., 0] - expected).mean() < 2e-3


def test_pixels_that_a_file_does_not_reach_are_not_valid(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path]
) -> None:
    shifted = rasterio.Affine(20, 0, 500400, 0, -20, 4000000)
    path = write_tif(np.zeros((1, 20, 30), np.uint8), "shifted.tif", transform=shifted)
    with opened_with_warning(fine[0], path) as scan:
        patch = scan.read(full_window(scan.shape))
    assert patch.valid[..., :2].all()
    assert not patch.valid[:, :40, 2].any()
    assert patch.valid[:, 40:, 2].all()


def test_nodata_does_not_leak_into_what_is_resampled(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path]
) -> None:
    coarse = np.full((1, 20, 30), 7, np.float32)
    coarse[0, 5:9, 11:20] = -9999
    path = write_tif(coarse, "holes.tif", transform=COARSE, nodata=-9999)
    with opened_with_warning(fine[0], path) as scan:
        patch = scan.read(full_window(scan.shape), [2])
    assert not patch.valid[11:17, 23:39].any()
    assert patch.valid.mean() > 0.9
    np.testing.assert_allclose(patch.values[patch.valid], 7)


def test_names_come_from_bands_files_or_the_caller(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path]
) -> None:
    band = write_tif(np.zeros((1, 40, 60), np.uint8), "B11.tif")
    with rasterio.open(band, "r+") as target:
        target.descriptions = ("swir",)
    plain = write_tif(np.zeros((1, 40, 60), np.uint8), "B12.tif")
    with open_scan({"a": band, "b": plain}) as scan:
        assert scan.channels == ("a", "b")
        assert scan.channels_are_named
    with open_scan([band, plain]) as scan:
        assert scan.channels == ("B11.swir", "B12")
        assert not scan.channels_are_named
    with open_scan([band]) as scan:
        assert scan.channels == ("swir",)
        assert scan.channels_are_named
    with pytest.raises(ScanError, match="in two of the files"):
        open_scan([plain, plain])
    with pytest.raises(ScanError, match="3 channels in 2 files; expected 2"):
        open_scan({"a": fine[0], "b": plain})


def test_volumes_of_one_grid_are_stacked(write_nii: Callable[..., Path]) -> None:
    first = RNG.integers(0, 99, (5, 6, 7)).astype(np.int16)
    second = RNG.random((5, 6, 7)).astype(np.float32)
    paths = [write_nii(first, "t1.nii.gz"), write_nii(second, "pet.nii.gz")]
    with open_scan(paths, orientation="LPS") as scan, open_scan(paths[1], orientation="LPS") as one:
        window = (slice(1, 4), slice(0, 6), slice(2, 7))
        assert scan.channels == ("t1", "pet")
        np.testing.assert_array_equal(scan.read(window, [1]).values, one.read(window).values)
        names = [file.get("path") for file in scan_identity(scan)["files"]]
        assert names == [str(path) for path in paths]


def test_files_that_do_not_go_together_are_refused(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path], write_nii: Callable[..., Path]
) -> None:
    volume = write_nii(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ScanError, match="a scene and a volume"):
        open_scan([fine[0], volume])
    lost = write_tif(np.zeros((1, 20, 30), np.uint8), "lost.tif", crs=None, transform=COARSE)
    with pytest.raises(ScanError, match=r"another grid .* and .*lost\.tif has no CRS"):
        open_scan([fine[0], lost])
    far = write_tif(
        np.zeros((1, 20, 30), np.uint8),
        "far.tif",
        transform=rasterio.Affine(20, 0, 518000, 0, -20, 4000000),
    )
    with pytest.raises(ScanError, match="expected files of one place"):
        open_scan([fine[0], far])
    with pytest.raises(ScanNotFoundError, match=r"gone\.tif"):
        open_scan([fine[0], fine[0].with_name("gone.tif")])
    with pytest.raises(ScanError, match="no files"):
        open_scan([])


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("turned", [False, True])
def test_nodata_and_a_mask_both_count_in_a_file_that_is_resampled(
    turned: bool, internal: bool, fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path]
) -> None:
    coarse = RNG.integers(1, 4000, (1, 20, 30)).astype(np.uint16)
    coarse[:, 10:14] = 0
    kept = np.ones((20, 30), np.bool_)
    kept[:5] = False
    # Half a pixel off, where every value is a mix of two.
    to = rasterio.Affine(20, 0, 500010, 0, -20, 4000000) if turned else COARSE
    path = write_tif(coarse, "coarse.tif", transform=to, nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        target.write_mask(kept)
    with opened_with_warning(fine[0], path) as scan:
        valid = scan.read(full_window(scan.shape), [2]).valid[..., 0]
    usable = kept & (coarse[0] != 0)
    inside = slice(2, -2)
    expected = usable.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(valid[:, inside], expected[:, inside])


def test_each_band_that_is_resampled_has_nodata_of_its_own(
    fine: tuple[Path, np.ndarray], write_tif: Callable[..., Path], tmp_path: Path
) -> None:
    coarse = RNG.integers(1, 4000, (2, 20, 30)).astype(np.uint16)
    coarse[0, 3:6] = 7
    coarse[1, 10:14] = 9
    kept = np.ones((1, 20, 30), np.uint8)
    kept[0, 16:] = 0
    write_tif(coarse, "coarse.tif", transform=COARSE)
    write_tif(kept, "mask.tif", transform=COARSE)
    with rasterio.open(tmp_path / "coarse.tif") as file:
        wkt = file.crs.to_wkt()

    def source(name: str, band: int) -> str:
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand></SimpleSource>"
        )

    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}"><Description>{name}</Description>'
        f"<NoDataValue>{nodata}</NoDataValue><Scale>0.5</Scale>{source('coarse.tif', band)}"
        "</VRTRasterBand>"
        for band, name, nodata in ((1, "x", 7), (2, "y", 9))
    )
    path = tmp_path / "both.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>{wkt}</SRS><GeoTransform>500000, 20, '
        f"0, 4000000, 0, -20</GeoTransform>{bands}<MaskBand><VRTRasterBand "
        f'dataType="Byte">{source("mask.tif", 1)}</VRTRasterBand></MaskBand></VRTDataset>'
    )
    with opened_with_warning(fine[0], path) as scan:
        assert scan.channels[2:] == ("both.x", "both.y")
        patch = scan.read(full_window(scan.shape), [2, 3])
    usable = (coarse != np.array([7, 9])[:, None, None]) & (kept != 0)
    # Bilinear values reach half a pixel into the next one; what is mixed with nodata is not valid.
    near = ndimage.minimum_filter(usable.repeat(2, 1).repeat(2, 2), (0, 3, 3))
    found = np.moveaxis(patch.valid, -1, 0)
    assert (found <= usable.repeat(2, 1).repeat(2, 2)).all()
    assert (found >= near).all()
    assert near[0].sum() > 1000
    assert (near[0] != near[1]).any()
    expected = [
        resize(one.astype(float), (40, 60), order=1, mode="edge", anti_aliasing=False) / 2
        for one in coarse
    ]
    np.testing.assert_allclose(
        np.moveaxis(patch.values, -1, 0)[near], np.stack(expected)[near], rtol=1e-6
    )
