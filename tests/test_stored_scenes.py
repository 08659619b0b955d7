"""The same scene stored in many ways gives the same labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from file_server import serving

import segfocal as sf
from segfocal.demonstration import bundled_spec

SCENE = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"
BANDS = ("blue", "green", "red", "nir", "swir1")
MODEL = """
import sys
import numpy as np
import segfocal as sf
from segfocal.card import Card, Channel, LabelClass

class Model:
    '''Sees a pixel and its neighbours; nothing in it is symmetric.'''
    card = Card(
        channels=tuple(Channel(name=name, mean=70, std=20) for name in {bands!r}),
        named_channels=True,
        classes=tuple(LabelClass(value=v, name=str(v), color=(v, 0, 0)) for v in (1, 2, 7)),
        tile=(64, 64),
    )
    ndim, output_stride, hash, engine = 2, 1, "neighbours", "numpy"
    batch_matters = False

    def __call__(self, values, valid):
        usable = np.where(valid[..., None], (values - 70) / 20, 0)
        mix = np.random.default_rng(3).normal(size=(3, usable.shape[-1], 3)).astype(np.float32)
        total = usable @ mix[0]
        total = total + np.roll(usable, 1, 1) @ mix[1] + np.roll(usable, -1, 2) @ mix[2]
        expd = np.exp(total - total.max(-1, keepdims=True))
        return expd / expd.sum(-1, keepdims=True)
"""
NEIGHBOURS = MODEL.format(bands=BANDS)


def neighbours():
    scope: dict[str, object] = {}
    exec(NEIGHBOURS, scope)
    return scope["Model"]()


def stored_as_cog(folder: Path) -> Path:
    rasterio.shutil.copy(SCENE, folder / "scene.tif", driver="COG", blocksize=128)
    return folder / "scene.tif"


def stored_in_strips(folder: Path) -> Path:
    return _written(folder, tiled=False, blockysize=1, interleave="band")


def stored_by_pixel(folder: Path) -> Path:
    return _written(folder, tiled=True, blockxsize=48, blockysize=16, interleave="pixel")


def stored_big_endian(folder: Path) -> Path:
    return _written(
        folder, tiled=True, blockxsize=64, blockysize=64, ENDIANNESS="BIG", BIGTIFF="YES"
    )


def stored_as_erdas(folder: Path) -> Path:
    rasterio.shutil.copy(SCENE, folder / "scene.img", driver="HFA")
    return folder / "scene.img"


def stored_as_a_mosaic(folder: Path) -> Path:
    """Four overlapping tiles under a VRT."""
    rasterio.shutil.copy(SCENE, folder / "scene.vrt", driver="VRT")
    with rasterio.open(SCENE) as scan:
        rows, cols = scan.shape
        text = (folder / "scene.vrt").read_text()
        for band in scan.indexes:
            start = text.index("<SimpleSource", text.index(f'band="{band}"'))
            stop = text.index("</SimpleSource>", start) + len("</SimpleSource>")
            pieces = ""
            for name, top, left, height, width in (
                ("a", 0, 0, 250, 300),
                ("b", 0, 290, 250, cols - 290),
                ("c", 240, 0, rows - 240, 300),
                ("d", 240, 290, rows - 240, cols - 290),
            ):
                window = rasterio.windows.Window(left, top, width, height)
                profile = {**scan.profile, "height": height, "width": width, "driver": "GTiff"}
                if band == 1:
                    with rasterio.open(folder / f"{name}.tif", "w", **profile) as piece:
                        piece.write(scan.read(window=window))
                size = f'xSize="{width}" ySize="{height}"'
                pieces += (
                    f'<ComplexSource><SourceFilename relativeToVRT="1">{name}.tif'
                    f"</SourceFilename><SourceBand>{band}</SourceBand>"
                    f'<SrcRect xOff="0" yOff="0" {size}/>'
                    f'<DstRect xOff="{left}" yOff="{top}" {size}/>'
                    f"<NODATA>{scan.nodata}</NODATA></ComplexSource>"
                )
            text = text[:start] + pieces + text[stop:]
    (folder / "scene.vrt").write_text(text)
    return folder / "scene.vrt"


def stored_in_a_zip(folder: Path) -> str:
    with zipfile.ZipFile(folder / "scenes.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SCENE, "in/scene.tif")
    return f"/vsizip/{folder / 'scenes.zip'}/in/scene.tif"


def stored_south_up(folder: Path) -> Path:
    with rasterio.open(SCENE) as scan:
        grid = scan.transform
        turned = rasterio.Affine(grid.a, 0, grid.c, 0, -grid.e, grid.f + grid.e * scan.height)
    return _written(folder, turn=True, transform=turned)


def _written(folder: Path, turn: bool = False, **options: object) -> Path:
    with rasterio.open(SCENE) as scan:
        profile = {key: scan.profile[key] for key in ("crs", "transform", "nodata", "dtype")}
        profile.update(height=scan.height, width=scan.width, count=scan.count, driver="GTiff")
        pixels = scan.read()
        with rasterio.open(folder / "scene.tif", "w", **{**profile, **options}) as target:
            target.write(pixels[:, ::-1] if turn else pixels)
            target.descriptions = scan.descriptions
    return folder / "scene.tif"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("plain") / "labels.tif"
    sf.predict(neighbours(), SCENE, path)
    with rasterio.open(path) as labels:
        found = labels.read(1)
    assert np.bincount(found.ravel(), minlength=256)[[1, 2, 7, 255]].min() > 1000
    return found


@pytest.mark.parametrize(
    "stored",
    [
        stored_as_cog,
        stored_in_strips,
        stored_by_pixel,
        stored_big_endian,
        stored_as_erdas,
        stored_as_a_mosaic,
        stored_in_a_zip,
    ],
    ids=lambda stored: stored.__name__,
)
def test_labels_do_not_depend_on_how_a_scene_is_stored(
    stored: Callable[[Path], object], expected: np.ndarray, tmp_path: Path
) -> None:
    sf.predict(neighbours(), stored(tmp_path), tmp_path / "labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as labels, rasterio.open(SCENE) as scan:
        assert (labels.crs, labels.transform) == (scan.crs, scan.transform)
        np.testing.assert_array_equal(labels.read(1), expected)


def test_a_south_up_scene_has_the_same_labels_south_up(
    expected: np.ndarray, tmp_path: Path
) -> None:
    path = stored_south_up(tmp_path)
    sf.predict(neighbours(), path, tmp_path / "labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as labels, rasterio.open(path) as scan:
        assert labels.transform == scan.transform
        assert labels.transform.e > 0
        np.testing.assert_array_equal(labels.read(1)[::-1], expected)


PREDICT = NEIGHBOURS + "sf.predict(Model(), sys.argv[1], sys.argv[2])\n"


def in_another_process(
    code: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    # Tests may not reach the network, this machine included; another process may.
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", **environment},
    )  # fmt: skip


def test_a_cog_over_http_has_the_same_labels(expected: np.ndarray, tmp_path: Path) -> None:
    stored_as_cog(tmp_path)
    with serving(tmp_path) as (url, sent):
        done = in_another_process(PREDICT, f"{url}/scene.tif", str(tmp_path / "labels.tif"))
        assert done.returncode == 0, done.stderr
        ranges = [size for method, size in sent if method == "GET"]
    # Read by ranges, a few blocks each, and not as a whole at once.
    assert max(ranges) < (tmp_path / "scene.tif").stat().st_size / 2
    with rasterio.open(tmp_path / "labels.tif") as labels:
        np.testing.assert_array_equal(labels.read(1), expected)
    provenance = json.loads((tmp_path / "labels.tif.json").read_text())
    assert provenance["input"]["files"][0]["ETag"] == '"1"'


@pytest.mark.slow
def test_a_trained_model_gives_the_same_labels_from_every_storage(tmp_path: Path) -> None:
    spec = sf.load_spec(bundled_spec("nc_landcover.yaml"))
    plan = sf.make_plan(spec, patch=(128, 128), batch_size=8, steps=120)
    sf.train(sf.FocalUNet.from_plan(spec, plan), spec, plan, out=tmp_path / "run")
    path = tmp_path / "run" / "model.keras"
    model = sf.load_model(path)

    def labels_of(source: object, name: str) -> np.ndarray:
        sf.predict(model, source, tmp_path / name)
        with rasterio.open(tmp_path / name) as labels:
            return labels.read(1)

    found = labels_of(SCENE, "plain.tif")
    assert np.count_nonzero(np.bincount(found.ravel(), minlength=256)) >= 4
    for stored in (stored_in_strips, stored_as_a_mosaic, stored_south_up, stored_as_cog):
        folder = tmp_path / stored.__name__
        folder.mkdir()
        labels = labels_of(stored(folder), f"{stored.__name__}.tif")
        turned = labels[::-1] if stored is stored_south_up else labels
        np.testing.assert_array_equal(turned, found)
    code = "import sys, segfocal as sf; sf.predict(*sys.argv[1:])"
    with serving(tmp_path / "stored_as_cog") as (url, _):
        done = in_another_process(code, str(path), f"{url}/scene.tif", str(tmp_path / "http.tif"))
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "http.tif") as labels:
        np.testing.assert_array_equal(labels.read(1), found)


def test_a_scene_that_changes_on_a_server_that_refuses_head(tmp_path: Path) -> None:
    path, labels = stored_in_strips(tmp_path), tmp_path / "labels.tif"
    with serving(tmp_path, terse=True) as (url, _):
        runs = [in_another_process(PREDICT, f"{url}/scene.tif", str(labels)) for _ in range(2)]
        assert [done.returncode for done in runs] == [0, 0], runs[0].stderr
        content = bytearray(path.read_bytes())
        content[50_000] ^= 1  # as long as before
        path.write_bytes(content)
        done = in_another_process(PREDICT, f"{url}/scene.tif", str(labels))
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_what_is_remote_is_refused_where_only_local_files_may_be_read(tmp_path: Path) -> None:
    stored_as_cog(tmp_path)
    with serving(tmp_path) as (url, sent):
        source = f"{url}/scene.tif"
        (tmp_path / "through.vrt").write_text(
            '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
            f"<SimpleSource><SourceFilename>/vsicurl/{source}</SourceFilename></SimpleSource>"
            "</VRTRasterBand></VRTDataset>"
        )
        for name in (source, f"/vsicurl/{source}", str(tmp_path / "through.vrt")):
            done = in_another_process(
                PREDICT, name, str(tmp_path / "labels.tif"), SEGFOCAL_LOCAL_ONLY="1"
            )
            assert done.returncode == 1
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith("segfocal.errors.ScanError")
            assert "only local files may be read" in last
        assert sent == []
    assert not (tmp_path / "labels.tif").exists()
