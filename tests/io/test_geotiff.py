"""RasterScan: validity, units, orientation, names, and files that are no scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.io import open_scan
from segfocal.io.geotiff import GDAL_CACHE_BYTES, RasterScan
from segfocal.types import Patch, full_window

Write = Callable[..., Path]


def read_all(path: Path | str) -> Patch:
    with open_scan(path) as scan:
        return scan.read(full_window(scan.shape))


def noise(count: int = 2, dtype: str = "uint8", shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (count, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_nodata_of_each_type_and_native_values(write_tif: Write, dtype: str) -> None:
    array = noise(dtype=dtype)
    path = write_tif(array, nodata=3)
    patch = read_all(path)
    assert patch.values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.moveaxis(patch.values, -1, 0), array)
    np.testing.assert_array_equal(np.moveaxis(patch.valid, -1, 0), array != 3)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(np.moveaxis(patch.valid, -1, 0), source.read_masks() != 0)


@pytest.mark.parametrize("nodata", [float("nan"), -3.4028234663852886e38, 0.1, -1e30])
def test_float_nodata_agrees_with_gdal(write_tif: Write, nodata: float) -> None:
    array = noise(1, "float32")
    array[array == 2] = nodata
    path = write_tif(array, nodata=nodata)
    with rasterio.open(path) as source:
        expected = source.read_masks(1) != 0
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(read_all(path).valid[..., 0], expected)


@pytest.mark.parametrize("nodata", [-9999.0, 0.1, -1e30, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_decimal_text_cannot_tell_from_nodata_are_nodata(
    write_tif: Write, nodata: float, dtype: str
) -> None:
    near = np.full((1, 1, 5), nodata, dtype)
    for place, steps in enumerate((-2, -1, 0, 1, 2)):
        for _ in range(abs(steps)):
            near[..., place] = np.nextafter(near[..., place], np.array(np.inf * steps, dtype))
    assert len(np.unique(near)) == 5
    far = near[..., [0, 4]] * np.array([1 - 1e-5, 1 + 1e-5], dtype)
    path = write_tif(np.concatenate([near, far], -1), nodata=nodata)
    with rasterio.open(path) as source:
        expected = source.read_masks(1) != 0
    assert expected.tolist() == [[False] * 5 + [True] * 2]
    np.testing.assert_array_equal(read_all(path).valid[..., 0], expected)


def test_infinity_is_invalid(write_tif: Write) -> None:
    array = noise(1, "float32")
    array[0, 3, 4] = np.inf
    valid = read_all(write_tif(array)).valid[..., 0]
    assert not valid[3, 4]
    assert valid.sum() == valid.size - 1


@pytest.mark.parametrize("internal", [True, False])
def test_mask_files_and_internal_masks(write_tif: Write, internal: bool) -> None:
    path = write_tif(noise())
    mask = np.random.default_rng(1).random((40, 50)) < 0.5
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    assert path.with_name(path.name + ".msk").exists() is not internal
    np.testing.assert_array_equal(read_all(path).valid, np.stack([mask, mask], axis=-1))


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_a_mask_does_not_hide_the_nodata_value(
    write_tif: Write, internal: bool, alpha: bool
) -> None:
    array = noise(4 if alpha else 3)
    options = {"photometric": "RGB", "alpha": "YES"} if alpha else {}
    path = write_tif(array, nodata=0, **options)
    mask = np.zeros((40, 50), np.bool_)
    mask[17:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    expected = (array[:3] != 0) & mask
    if alpha:
        expected &= array[3] != 0
    assert 0 < expected.sum() < (array[:3] != 0).sum()
    np.testing.assert_array_equal(np.moveaxis(read_all(path).valid, -1, 0), expected)


def test_bands_with_nodata_values_of_their_own_under_a_mask(
    write_tif: Write, tmp_path: Path
) -> None:
    first, second = noise(1), noise(1) + 1
    write_tif(first, "a.tif")
    write_tif(second, "b.tif")
    mask = np.zeros((1, 40, 50), np.uint8)
    mask[:, :, 9:] = 255
    write_tif(mask, "mask.tif")

    def source(name: str) -> str:
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource>"
        )

    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}">{nodata}{source(name)}</VRTRasterBand>'
        for i, (name, nodata) in enumerate(
            [("a.tif", "<NoDataValue>3</NoDataValue>"), ("b.tif", "")], 1
        )
    )
    path = tmp_path / "masked.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}<MaskBand><VRTRasterBand '
        f'dataType="Byte">{source("mask.tif")}</VRTRasterBand></MaskBand></VRTDataset>'
    )
    expected = np.stack([(first[0] != 3) & (mask[0] != 0), mask[0] != 0], axis=-1)
    np.testing.assert_array_equal(read_all(path).valid, expected)


@pytest.mark.parametrize("nodata", [None, 0])
def test_alpha_bands_are_masks_and_no_channels(write_tif: Write, nodata: int | None) -> None:
    array = noise(4)
    path = write_tif(array, nodata=nodata, photometric="RGB", alpha="YES")
    with rasterio.open(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    with open_scan(path) as scan:
        assert scan.channels == ("band_1", "band_2", "band_3")
        patch = scan.read((slice(3, 30), slice(7, 41)), [2, 0])
    part = array[:, 3:30, 7:41]
    expected = np.broadcast_to(part[3] != 0, (2, 27, 34))
    if nodata is not None:
        expected = expected & (part[[2, 0]] != nodata)
    np.testing.assert_array_equal(np.moveaxis(patch.values, -1, 0), part[[2, 0]])
    np.testing.assert_array_equal(np.moveaxis(patch.valid, -1, 0), expected)


def test_scale_and_offset_are_applied_after_nodata(write_tif: Write) -> None:
    array = noise(2, "int16")
    path = write_tif(array, nodata=0)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (0.5, 1.0), (-10.0, 0.0)
    patch = read_all(path)
    assert patch.values.dtype == np.float32
    np.testing.assert_array_equal(patch.values[..., 0], array[0] * np.float32(0.5) - 10)
    np.testing.assert_array_equal(patch.values[..., 1], array[1])
    np.testing.assert_array_equal(np.moveaxis(patch.valid, -1, 0), array != 0)


def test_bands_of_different_types_share_one(write_tif: Write, tmp_path: Path) -> None:
    first, second = noise(1, "uint8"), noise(1, "int16") - 3
    write_tif(first, "a.tif")
    write_tif(second, "b.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, (kind, name) in enumerate([("Byte", "a.tif"), ("Int16", "b.tif")], 1)
    )
    path = tmp_path / "stack.vrt"
    path.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    patch = read_all(path)
    assert patch.values.dtype == np.int16
    np.testing.assert_array_equal(patch.values, np.stack([first[0], second[0]], axis=-1))


def test_names_come_from_descriptions_when_all_differ(write_tif: Write) -> None:
    path = write_tif(noise(3))
    for names, expected, named in (
        (("red", "nir", "swir"), ("red", "nir", "swir"), True),
        (("red", "red", "swir"), ("band_1", "band_2", "band_3"), False),
        (("red", "", "swir"), ("band_1", "band_2", "band_3"), False),
    ):
        with rasterio.open(path, "r+") as target:
            target.descriptions = names
        with open_scan(path) as scan:
            assert (scan.channels, scan.channels_are_named) == (expected, named)


@pytest.mark.parametrize(
    ("grid", "flips", "resolution"),
    [
        ("north_up", False, (10.0, 10.0)),
        ("south_up", True, (10.0, 10.0)),
        ("rotated", False, (73**0.5, 73**0.5)),
        ("none", False, None),
    ],
)
def test_only_south_up_files_are_flipped(
    write_tif: Write,
    grids: SimpleNamespace,
    grid: str,
    flips: bool,
    resolution: tuple[float, float] | None,
) -> None:
    array = noise(1)
    crs = None if grid == "none" else "EPSG:32633"
    path = write_tif(array, transform=getattr(grids, grid), crs=crs, blockxsize=16)
    with RasterScan(path) as scan:
        assert scan.flip_rows is flips
        assert scan.resolution == pytest.approx(resolution)
        assert scan.transform == (getattr(grids, grid) or rasterio.Affine.identity())
        patch = scan.read((slice(0, 7), slice(0, 50)))
    np.testing.assert_array_equal(
        patch.values[..., 0], array[0, ::-1][:7] if flips else array[0, :7]
    )


def test_png_without_georeference(tmp_path: Path) -> None:
    from PIL import Image

    array = np.moveaxis(noise(3), 0, -1)
    Image.fromarray(array).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(read_all(tmp_path / "photo.png").values, array)
    with open_scan(tmp_path / "photo.png") as scan:
        assert scan.resolution is None


def test_vsi_paths_are_left_to_gdal(write_tif: Write, tmp_path: Path) -> None:
    import zipfile

    array = noise()
    path = write_tif(array)
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        archive.write(path, "inside.tif")
    patch = read_all(f"/vsizip/{(tmp_path / 'scenes.zip').as_posix()}/inside.tif")
    np.testing.assert_array_equal(np.moveaxis(patch.values, -1, 0), array)
    with pytest.raises(ScanError):
        open_scan(f"/vsizip/{(tmp_path / 'scenes.zip').as_posix()}/other.tif")


def test_the_block_cache_is_bounded(write_tif: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    read_all(write_tif(noise()))
    assert get_gdal_config("GDAL_CACHEMAX") == GDAL_CACHE_BYTES


def test_files_that_are_no_scene(tmp_path: Path, write_tif: Write) -> None:
    with pytest.raises(ScanNotFoundError, match=r"none\.tif: no such file"):
        open_scan(tmp_path / "none.tif")
    with pytest.raises(ScanError, match="is a folder; expected"):
        open_scan(tmp_path)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ScanError, match="the file is empty"):
        open_scan(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("no raster at all\n" * 50)
    with pytest.raises(ScanError, match=r"text\.tif: not a raster that GDAL can open"):
        open_scan(tmp_path / "text.tif")
    path = write_tif(noise(1, "complex64"))
    with pytest.raises(ScanError, match="complex values"):
        open_scan(path)
    path = write_tif(noise(2), "alpha.tif", photometric="MINISBLACK")
    with rasterio.open(path, "r+") as target:
        target.colorinterp = (ColorInterp.alpha, ColorInterp.alpha)
    with pytest.raises(ScanError, match="no bands besides masks"):
        open_scan(path)


def test_a_truncated_file_is_an_error_that_names_file_and_window(write_tif: Write) -> None:
    array = np.random.default_rng(0).integers(0, 255, (1, 200, 300), dtype=np.uint8)
    path = write_tif(array)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_scan(path) as scan:
        top = scan.read((slice(0, 16), slice(0, 32)))
        np.testing.assert_array_equal(top.values[..., 0], array[0, :16, :32])
        with pytest.raises(ScanError, match=r"scene\.tif: cannot read rows 150:200, cols 0:300"):
            scan.read((slice(150, 200), slice(0, 300)))
    path.write_bytes(content[:100])
    with pytest.raises(ScanError, match=r"scene\.tif: not a raster"):
        open_scan(path)


@pytest.mark.parametrize("what", ["gone.tif", "empty.tif", "text.tif"])
def test_messages_are_one_line(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("text")
    with pytest.raises(ScanError) as caught:
        open_scan(tmp_path / what)
    assert "\n" not in str(caught.value)
