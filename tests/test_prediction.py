"""Path to path prediction on real files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.errors import (
    ChannelError,
    GeometryError,
    ModelError,
    OutputError,
    OutputExistsError,
    ScanError,
    ScanNotFoundError,
)

SAMPLES = Path(sf.__file__).parent / "samples"
SCENE = SAMPLES / "north_carolina" / "landsat.tif"
VOLUME = SAMPLES / "spine" / "ct.nii.gz"
BANDS = ("blue", "green", "red", "nir", "swir1")


def card(channels, ndim=2, named=True, values=(1, 2, 7)):
    return Card(
        ndim=ndim,
        channels=tuple(Channel(name=name, mean=70, std=20) for name in channels),
        named_channels=named,
        classes=tuple(
            LabelClass(value=value, name=f"class {value}", color=(value % 256, 10 * i, 0))
            for i, value in enumerate(values)
        ),
        tile=(64,) * ndim,
        orientation="RAS" if ndim == 3 else None,
    )


def make_model(**options):
    keras.utils.set_random_seed(3)
    model = sf.FocalUNet(card=card(**options), preset="nano")
    rng = np.random.default_rng(3)
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel"):  # so that every class is predicted somewhere
            weight.assign(rng.normal(0, 1.5 / np.sqrt(weight.shape[-2]), weight.shape))
    return model


@pytest.fixture(scope="module")
def scene_model():
    return make_model(channels=BANDS)


@pytest.fixture(scope="module")
def volume_model():
    return make_model(channels=("ct",), ndim=3, named=False, values=(0, 5, 300))


@pytest.fixture(scope="module")
def saved(scene_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    sf.save_model(scene_model, path)
    return path


def test_a_scene_becomes_a_label_map_on_its_grid(scene_model, saved, tmp_path):
    result = sf.predict(saved, SCENE, tmp_path / "labels.tif", batch_size=7)
    with rasterio.open(SCENE) as scan, rasterio.open(tmp_path / "labels.tif") as labels:
        assert (labels.crs, labels.transform, labels.shape) == (
            scan.crs,
            scan.transform,
            scan.shape,
        )
        assert (labels.dtypes, labels.nodata) == (("uint8",), 255)
        assert labels.colormap(1)[7] == (7, 20, 0, 255)
        found = labels.read(1)
        pixels = scan.read().transpose(1, 2, 0)
    nodata = (pixels == -99999).any(-1)
    assert (found[nodata] == 255).all()
    array = np.where(nodata[..., None], np.nan, pixels)
    # The same batches: of others the sums round otherwise, and near ties fall otherwise.
    expected = sf.predict_array(scene_model, array, batch_size=7)
    np.testing.assert_array_equal(np.where(found == 255, -1, found.astype(int)), expected)
    assert set(np.unique(expected)) == {-1, 1, 2, 7}
    counts = [(expected == value).sum() for value in (1, 2, 7)]
    assert list(result.class_pixels) == counts
    assert result.invalid_pixels == nodata.sum()


def test_a_volume_becomes_a_label_map_with_its_header(volume_model, tmp_path):
    sf.predict(volume_model, VOLUME, tmp_path / "labels.nii.gz", overlap=32)
    scan, labels = nibabel.load(VOLUME), nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(labels.affine, scan.affine)
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert labels.header[code] == scan.header[code]
    assert labels.get_data_dtype() == np.uint16
    oriented = nibabel.as_closest_canonical(scan)
    expected = sf.predict_array(volume_model, np.asarray(oriented.dataobj)[..., None], overlap=32)
    found = np.asarray(nibabel.as_closest_canonical(labels).dataobj)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) == 3


def test_itk_reads_the_volume_mask_with_the_geometry_of_its_input(volume_model, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    sf.predict(volume_model, VOLUME, tmp_path / "labels.nii.gz")
    scan, labels = itk.ReadImage(str(VOLUME)), itk.ReadImage(str(tmp_path / "labels.nii.gz"))
    assert labels.GetSize() == scan.GetSize()
    assert labels.GetOrigin() == scan.GetOrigin()
    assert labels.GetSpacing() == scan.GetSpacing()
    assert labels.GetDirection() == scan.GetDirection()


def test_gdal_sees_class_names_and_a_valid_cog(saved, tmp_path):
    cogeo = pytest.importorskip("rio_cogeo")
    sf.predict(saved, SCENE, tmp_path / "labels.tif")
    valid, errors, warnings = cogeo.cog_validate(tmp_path / "labels.tif")
    assert (valid, errors, warnings) == (True, [], [])
    rasterio.shutil.copy(tmp_path / "labels.tif", tmp_path / "names.vrt", driver="VRT")
    described = (tmp_path / "names.vrt").read_text()
    assert "<Category>class 7</Category>" in described


def test_named_bands_are_found_in_any_order(scene_model, tmp_path):
    with rasterio.open(SCENE) as scan:
        order = [4, 2, 0, 1, 3]
        profile, pixels = scan.profile, scan.read()[order]
        with rasterio.open(tmp_path / "shuffled.tif", "w", **profile) as out:
            out.write(pixels)
            out.descriptions = [BANDS[i] for i in order]
    sf.predict(scene_model, SCENE, tmp_path / "a.tif")
    sf.predict(scene_model, tmp_path / "shuffled.tif", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_the_same_input_gives_the_same_bytes_whatever_the_batch(scene_model, tmp_path):
    """With tiles of 128; TensorFlow adds in another order for batches of much smaller ones."""
    for batch_size in (1, 4, 6):
        target = tmp_path / f"{batch_size}.tif"
        sf.predict(scene_model, SCENE, target, tile=128, batch_size=batch_size)
    contents = {(tmp_path / f"{size}.tif").read_bytes() for size in (1, 4, 6)}
    assert len(contents) == 1


def write_scene(path, bands=5):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=40,
        height=30,
        count=bands,
        dtype="uint8",
        crs="EPSG:32119",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:
        out.write(np.ones((bands, 30, 40), np.uint8))
    return path


def test_wrong_input_gives_one_clear_line_and_writes_nothing(scene_model, saved, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    plain = tmp_path / "plain.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(plain)
    text = tmp_path / "text.tif"
    text.write_text("no scan")
    damaged = tmp_path / "damaged.keras"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(damaged, "w") as copy:
        for name in ("config.json", "metadata.json"):
            copy.writestr(name, source.read(name))
    model_2 = tmp_path / "missing.keras"
    named = write_scene(tmp_path / "named.tif")
    with rasterio.open(named, "r+") as scene:
        scene.descriptions = ("blue", "green", "red", "nir", "pan")

    cases = [
        (saved, tmp_path / "none.tif", {}, ScanNotFoundError, "none.tif"),
        (saved, text, {}, ScanError, "text.tif"),
        (saved, VOLUME, {}, ChannelError, "has 1 channel; the model expects 5 channels"),
        (saved, write_scene(tmp_path / "3.tif", 3), {}, ChannelError,
         "has 3 channels; the model expects 5 channels"),
        (saved, named, {}, ChannelError, "swir1 is missing"),
        (plain, SCENE, {}, ModelError, "without a segfocal card"),
        (text, SCENE, {}, ModelError, "expected a .keras file"),
        (damaged, SCENE, {}, ModelError, "Keras cannot load this model"),
        (model_2, SCENE, {}, ModelError, "no such file"),
        (saved, SCENE, {"tile": 100}, GeometryError, "no multiple"),
        (lambda batch: batch, SCENE, {}, ModelError, "plain function has no class values"),
    ]  # fmt: skip
    for model, scan, options, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            sf.predict(model, scan, out / "labels.tif", **options)
        assert "\n" not in str(caught.value)
        assert list(out.iterdir()) == []
    with pytest.raises(OutputError, match=r"expected \.tif or \.tiff"):
        sf.predict(saved, SCENE, out / "labels.png")
    with pytest.raises(OutputError, match="nowhere"):
        sf.predict(saved, SCENE, out / "nowhere" / "labels.tif")
    assert list(out.iterdir()) == []


def test_an_existing_output_is_kept_unless_overwriting(saved, tmp_path):
    target = tmp_path / "labels.tif"
    target.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        sf.predict(saved, SCENE, target)
    assert target.read_bytes() == b"precious"
    sf.predict(saved, SCENE, target, overwrite=True)
    with rasterio.open(target) as labels:
        assert labels.shape == (443, 489)


def test_a_run_that_fails_half_way_leaves_the_destination_as_it_was(saved, tmp_path):
    target = tmp_path / "labels.tif"
    target.write_bytes(b"precious")

    def fail(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.predict(saved, SCENE, target, overwrite=True, progress=fail)
    assert target.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".labels.tif.scratch", "labels.tif"]


def test_a_truncated_scan_is_told_and_nothing_appears(saved, tmp_path):
    cut = tmp_path / "cut.tif"
    cut.write_bytes(SCENE.read_bytes()[:400_000])
    with pytest.raises(ScanError, match=r"cut\.tif"):
        sf.predict(saved, cut, tmp_path / "labels.tif")
    visible = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert visible == ["cut.tif"]


def test_paths_with_spaces_and_umlauts_work(saved, tmp_path):
    folder = tmp_path / "Größe 1 & mehr"
    folder.mkdir()
    shutil.copy(SCENE, folder / "Überblick A.tif")
    shutil.copy(saved, folder / "módel 1.keras")
    result = sf.predict(folder / "módel 1.keras", folder / "Überblick A.tif", folder / "fläche.tif")
    sf.predict(saved, SCENE, tmp_path / "plain.tif")
    assert result.output.read_bytes() == (tmp_path / "plain.tif").read_bytes()


def test_a_model_with_seven_bands_runs_over_a_large_scene(tmp_path):
    """A scene of 1482 x 1489 pixels, 7 bands, without names."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (7, 1482, 1489), np.uint8)
    with rasterio.open(
        tmp_path / "scene.tif",
        "w",
        driver="GTiff",
        width=1489,
        height=1482,
        count=7,
        dtype="uint8",
        crs="EPSG:4326",
        transform=rasterio.Affine(0.001, 0, -112, 0, -0.001, 41),
    ) as out:
        out.write(pixels)
    model = sf.FocalUNet(num_classes=4, in_channels=7, preset="nano")
    result = sf.predict(model, tmp_path / "scene.tif", tmp_path / "labels.tif")
    assert sum(result.class_pixels) == 1482 * 1489
    with rasterio.open(tmp_path / "labels.tif") as labels:
        assert labels.crs.to_epsg() == 4326
        assert np.isin(labels.read(1), range(4)).all()


def test_one_model_is_compiled_once_for_many_scans(scene_model):
    from segfocal.engine.predictors import as_predictor

    assert as_predictor(scene_model) is as_predictor(scene_model)


@pytest.mark.slow
def test_memory_stays_bounded_on_a_virtual_scan_of_400_million_pixels():
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to read the peak of resident memory")
    code = """
import json, numpy as np, segfocal as sf

class Virtual(sf.MemoryScan):
    '''Makes its pixels when they are read.'''
    def __init__(self, shape):
        super().__init__(np.zeros((1, 1, 3), np.uint8))
        self.shape = shape
    def read(self, window, channels=None):
        from segfocal.types import Patch, window_shape
        rows = np.arange(window[0].start, window[0].stop)[:, None]
        cols = np.arange(window[1].start, window[1].stop)[None]
        values = np.repeat(((rows + cols) % 251).astype(np.uint8)[..., None], 3, -1)
        return Patch(values, np.ones(values.shape, bool))

constant = lambda batch: np.broadcast_to(np.float32([0.2, 0.8]), (*batch.shape[:-1], 2))
pixels = 0
for window, p in sf.stream(constant, Virtual((20_000, 20_000)), tile=512, overlap=128):
    assert abs(p[..., 1] - 0.8).max() < 1e-6
    pixels += p.shape[0] * p.shape[1]
# Not ru_maxrss: a child process starts with the peak of the one that it was forked from.
status = open("/proc/self/status").read()
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
print(json.dumps([pixels, peak]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pixels, peak = json.loads(done.stdout)
    assert pixels == 20_000**2
    assert peak < 1.5e9


def test_a_channel_without_data_counts_as_its_mean_where_any_channel_will_do(tmp_path):
    described = card(("a", "b"), values=(1, 2)).model_copy(update={"valid_when": "any"})
    keras.utils.set_random_seed(0)
    model = sf.FocalUNet(card=described, preset="nano")
    array = np.random.default_rng(0).normal(70, 20, (64, 64, 2)).astype(np.float32)
    filled = array.copy()
    array[10:30, 10:30, 1] = np.nan
    filled[10:30, 10:30, 1] = 70
    found, expected = (
        next(iter(sf.stream(model, sf.MemoryScan(pixels)))) for pixels in (array, filled)
    )
    assert np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[1], expected[1])


def test_nodata_reaches_the_network_as_not_valid(scene_model):
    array = np.random.default_rng(0).normal(70, 20, (64, 64, 5)).astype(np.float32)
    array[:, 40:] = np.nan
    valid = np.isfinite(array[None]).all(-1)
    logits = scene_model.predict_on_batch({"image": np.nan_to_num(array[None]), "valid": valid})
    expected = np.exp(logits - logits.max(-1, keepdims=True))
    expected = (expected / expected.sum(-1, keepdims=True))[0]
    ((_, found),) = sf.stream(scene_model, sf.MemoryScan(array), batch_size=1)
    np.testing.assert_allclose(found[:, :40], expected[:, :40], atol=1e-5)
    everything = scene_model.predict_on_batch(
        {"image": np.where(valid[..., None], array, 70)[...], "valid": np.ones_like(valid)}
    )
    assert np.abs(everything - logits)[:, :, :40].max() > 1e-3, "nodata makes no difference here"


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (64, 32), (128, 32), (256, 64)])
def test_the_default_overlap_is_a_quarter_in_whole_strides(scene_model, tile, overlap):
    array = np.random.default_rng(0).normal(70, 20, (300, 40, 5)).astype(np.float32)
    tiles = []
    for options in ({}, {"overlap": overlap}):
        stretches = sf.stream(scene_model, sf.MemoryScan(array), tile=tile, **options)
        tiles.append([window[0] for window, _ in stretches])
    assert tiles[0] == tiles[1]


def test_a_scan_is_never_replaced_by_its_labels(scene_model, tmp_path):
    scan = tmp_path / "scan.tif"
    shutil.copy(SCENE, scan)
    (tmp_path / "link.tif").symlink_to(scan)
    before = scan.read_bytes()
    for target in (scan, tmp_path / "link.tif"):
        with pytest.raises(OutputError, match="is the scan itself"):
            sf.predict(scene_model, scan, target, overwrite=True)
    assert scan.read_bytes() == before


def test_sides_for_another_number_of_axes_are_refused(scene_model):
    with pytest.raises(GeometryError, match="expected one or 2, one per axis"):
        sf.stream(scene_model, sf.MemoryScan(np.zeros((64, 64, 5))), tile=(64, 64, 64))


def test_bands_in_files_of_their_own_give_the_same_labels(saved, tmp_path):
    with rasterio.open(SCENE) as scan:
        profile = {**scan.profile, "count": 1, "driver": "GTiff", "tiled": False}
        profile = {key: profile[key] for key in profile if not key.startswith("block")}
        paths = [tmp_path / f"{name}.tif" for name in BANDS]
        for index, path in enumerate(paths, start=1):
            with rasterio.open(path, "w", **profile) as band:
                band.write(scan.read(index), 1)
                band.descriptions = (scan.descriptions[index - 1],)
    sf.predict(saved, SCENE, tmp_path / "whole.tif")
    sf.predict(saved, paths[::-1], tmp_path / "parts.tif")
    with rasterio.open(tmp_path / "whole.tif") as a, rasterio.open(tmp_path / "parts.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())
        assert (a.crs, a.transform, a.nodata) == (b.crs, b.transform, b.nodata)
    provenance = json.loads((tmp_path / "parts.tif.json").read_text())
    assert [Path(file["path"]).name for file in provenance["input"]["files"][:2]] == [
        "swir1.tif",
        "nir.tif",
    ]
    with pytest.raises(OutputError, match="is the scan itself"):
        sf.predict(saved, paths, paths[2], overwrite=True)
    with pytest.raises(ChannelError, match="swir1 is missing"):
        sf.predict(saved, paths[:4], tmp_path / "less.tif")
