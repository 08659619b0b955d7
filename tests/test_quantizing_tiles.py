"""Tiles that a quantization calibrates with: those that a prediction gives the network."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import segfocal as sf
from segfocal import quantizing
from segfocal.card import Card, Channel, LabelClass, Normalization
from segfocal.cli import segfocal as command
from segfocal.errors import OutputExistsError, ScanError, SpecError
from segfocal.quantizing import Quantization, Scores, calibration_tiles
from segfocal.quantizing.calibration_tiles import sample_tiles

SCAN, WINDOW = Normalization(method="zscore"), Normalization(method="window", low=-100, high=300)


class Recorder:
    """A network that says nothing, and what it was called with."""

    output_stride, hash, engine, batch_matters, tile_by_tile = 4, "recorder", "numpy", False, True

    def __init__(self, ndim, tile, *, fill=None, **about):
        self.ndim, self.fill, self.seen = ndim, fill, []
        about.setdefault("channels", (Channel(name="c"),))
        classes = tuple(LabelClass(value=v, name=f"n{v}", color=(v, 0, 0)) for v in (0, 1))
        self.card = Card(ndim=ndim, classes=classes, tile=(tile,) * ndim, **about)

    def __call__(self, values, valid):
        self.seen += zip(values.copy(), valid.copy(), strict=True)
        return np.full((*valid.shape, 2), 0.5, np.float32)

    def given(self):
        """Tiles with a valid pixel."""
        return {as_bytes(one) for one in self.seen if one[1].any()}


def as_bytes(tile):
    values, valid = tile
    return values.shape, values.tobytes(), valid.tobytes()


def volume(path, shape=(22, 27, 19), spacing=(1, 1, 1), seed=0):
    values = np.random.default_rng(seed).normal(40, 300, shape).astype(np.float32)
    values[:4] = np.nan
    # Stored as L, P, S: what is read in the card's orientation is turned.
    nib.save(nib.Nifti1Image(values, np.diag([-spacing[0], -spacing[1], spacing[2], 1])), path)
    return values


def scene(path, rows=70, cols=90, empty=False, channels=2):
    values = np.random.default_rng(rows).integers(1, 200, (channels, rows, cols)).astype(np.uint8)
    values[:, :30, :20] = 0
    if empty:
        values[:] = 0
    place = rasterio.Affine(10, 0, 0, 0, -10, 700)
    with rasterio.open(
        path, "w", driver="GTiff", width=cols, height=rows, count=channels, dtype="uint8",
        nodata=0, crs="EPSG:32633", transform=place,
    ) as file:  # fmt: skip
        file.write(values)
    return values


CASES = {
    "scan": (3, "v.nii", {"normalization": SCAN, "orientation": "PSR"}, {}, {}),
    "ct": (3, "v.nii", {"normalization": WINDOW, "orientation": "RAS"}, {}, {}),
    "other spacing": (
        3, "v.nii", {"normalization": SCAN, "orientation": "RAS", "resolution": (1.5, 1.5, 3)},
        {}, {"spacing": (1, 1, 2)},
    ),
    "plain scene": (2, "s.tif", {}, {}, {}),
    "resampled scene": (2, "s.tif", {"resolution": (15, 15)}, {"resample": "always"}, {}),
    "slices": (2, "v.nii", {"normalization": SCAN}, {}, {}),
    "neighbouring slices": (2, "v.nii", {"slices": 3, "orientation": "LSA"}, {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tiles_are_among_those_that_a_prediction_runs(name, tmp_path):
    ndim, file, about, options, made = CASES[name]
    if file == "s.tif":
        scene(tmp_path / file)
        about = {**about, "channels": tuple(Channel(name=f"c{k}", mean=9) for k in range(2))}
    else:
        volume(tmp_path / file, **made)
    tile, path = {2: 16, 3: 12}[ndim], tmp_path / file
    model, other = (Recorder(ndim, tile, fill=np.float32(7), **about) for _ in range(2))
    suffix = ".tif" if file == "s.tif" else ".nii"
    sf.predict(model, path, tmp_path / f"labels{suffix}", **options)
    sample = sample_tiles(other, [path], None, 4, **options)
    assert (len(sample.calibration), len(sample.comparison), sample.held_out) == (4, 4, True)
    found = [as_bytes(one) for one in sample.calibration + sample.comparison]
    assert len(set(found)) == 8
    assert set(found) <= model.given()
    assert not other.seen  # reading them runs no network
    # All there are, where enough are asked for.
    everything = sample_tiles(other, [path], None, 10**4, **options)
    assert {as_bytes(one) for one in everything.calibration + everything.comparison} == (
        model.given()
    )


def test_values_are_normalized_as_numpy_does_it(tmp_path):
    stored = volume(tmp_path / "v.nii", shape=(12, 12, 12))
    model = Recorder(3, 12, normalization=SCAN, orientation="LPS")
    (values, valid), = sample_tiles(model, [tmp_path / "v.nii"], None, 1).calibration  # fmt: skip
    known = np.isfinite(stored)
    np.testing.assert_array_equal(valid, known)
    expected = (stored - stored[known].mean(dtype=float)) / stored[known].std(dtype=float)
    np.testing.assert_allclose(values[known][:, 0], expected[known], rtol=1e-4, atol=1e-5)


def test_scans_are_chosen_evenly_and_no_others_opened(tmp_path, monkeypatch):
    paths = [tmp_path / f"{k:02}.tif" for k in range(40)]
    scene(paths[0])
    with rasterio.open(paths[0]) as file:
        profile = file.profile
    for k, path in enumerate(paths):
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.full((2, 70, 90), k + 1, np.uint8))
    opened = []
    real = calibration_tiles.prepared_job

    def recorded(predictor, path, **options):
        opened.append(path)
        return real(predictor, path, **options)

    monkeypatch.setattr(calibration_tiles, "prepared_job", recorded)
    model = Recorder(2, 16, channels=(Channel(name="a"), Channel(name="b")))
    sample = sample_tiles(model, paths, None, 4)
    numbers = [
        [int(values.max()) - 1 for values, _ in part]
        for part in (sample.calibration, sample.comparison)
    ]
    assert numbers == [[2, 12, 22, 32], [7, 17, 27, 37]]
    assert opened == [paths[k] for k in (2, 7, 12, 17, 22, 27, 32, 37)]
    # Of fewer scans than tiles all are read, and each gives its share.
    few = sample_tiles(model, paths[:3], None, 4)
    counts = np.bincount([int(v.max()) for v, _ in few.calibration + few.comparison])
    assert counts.tolist() == [0, 3, 3, 2]


def test_tiles_are_spread_over_a_scan_and_what_is_empty_is_passed_over(tmp_path):
    rows, cols = np.indices((160, 160))
    values = np.stack([rows // 16 + 1, cols // 16 + 1]).astype(np.uint8)
    values[:, :, :80] = 0  # half of the scene has no data
    scene(tmp_path / "s.tif", 160, 160)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.write(values)
    model = Recorder(2, 16, channels=(Channel(name="a"), Channel(name="b")))
    sample = sample_tiles(model, [tmp_path / "s.tif"], None, 8)
    places = [values[8, 8] for values, _ in sample.calibration + sample.comparison]
    assert len(places) == 16
    assert len({place[0] for place in places}) >= 8
    assert len({place[1] for place in places}) >= 4  # not one column, though rows are as long
    # What an empty scan lacks comes from the next.
    scene(tmp_path / "empty.tif", empty=True)
    both = sample_tiles(model, [tmp_path / "empty.tif", tmp_path / "s.tif"], None, 8)
    assert len(both.calibration) == len(both.comparison) == 8
    with pytest.raises(ScanError, match=r"has a valid pixel \(2 of 5 read\); expected"):
        sample_tiles(model, [tmp_path / "empty.tif"] * 5, None, 1)


@pytest.fixture
def quickly(exports, monkeypatch):
    """Quantization without its quantizer: tiles that it was given, and the model's file."""
    path = exports.path("openvino")
    given = []

    def unchanged(network, tiles):
        given.extend(tiles)
        return network.clone()

    monkeypatch.setattr(quantizing, "find_spec", lambda name: "here")
    monkeypatch.setattr(quantizing, "quantized_network", unchanged)
    return path, given


def named_scene(path, rows, cols):
    scene(path, rows, cols, channels=5)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("blue", "green", "red", "nir", "swir1")


def test_a_single_tile_is_said_to_be_compared_with_itself(quickly, tmp_path, monkeypatch):
    model, given = quickly
    named_scene(tmp_path / "s.tif", 50, 60)
    found = sf.quantize(model, tmp_path / "s.tif", tmp_path / "q.xml")
    assert (found.tiles, len(given), found.held_out) == (1, 1, False)
    assert found.against_float.accuracy == 1  # the same network
    named_scene(tmp_path / "wide.tif", 50, 160)
    assert sf.quantize(model, tmp_path / "wide.tif", tmp_path / "w.xml").held_out
    monkeypatch.setattr(sf, "quantize", lambda *args, **options: found, raising=False)
    words = ["quantize", "m.keras", "s.tif", "-o", "q.xml"]
    lines = CliRunner().invoke(command, words).stdout.splitlines()
    assert lines[2] == "int8 against float is on the tile it was calibrated with: there is no other"


def test_a_model_of_two_axes_takes_slices_of_a_volume(quickly, tmp_path):
    model, given = quickly
    values = np.random.default_rng(0).normal(70, 20, (6, 50, 60, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([4, 1, 1, 1])), tmp_path / "v.nii")
    found = sf.quantize(model, tmp_path / "v.nii", tmp_path / "q.xml", tiles=2)
    assert (found.tiles, found.held_out, found.against_float.accuracy) == (2, True, 1)
    for image, valid in given:
        assert valid.all()
        # A slice across the first axis, at the top of a tile of 64 x 64 pixels.
        assert image.shape == (64, 64, 5)
        assert any(np.array_equal(image[:50, :60], one) for one in values)


def test_weights_of_something_else_are_not_replaced(quickly, tmp_path):
    model, given = quickly
    named_scene(tmp_path / "s.tif", 50, 60)
    (tmp_path / "q.bin").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"q\.bin: exists already, without q\.xml; pass"):
        sf.quantize(model, tmp_path / "s.tif", tmp_path / "q.xml")
    assert (tmp_path / "q.bin").read_bytes() == b"mine"
    assert not given
    sf.quantize(model, tmp_path / "s.tif", tmp_path / "q.xml", overwrite=True)
    assert (tmp_path / "q.bin").read_bytes() != b"mine"


def test_an_unknown_split_is_refused_before_anything_is_read(quickly, tmp_path):
    from segfocal.demonstration import DEMOS, bundled_spec

    spec = sf.load_spec(bundled_spec(DEMOS["scene"].spec))
    with pytest.raises(SpecError, match="has no regions in split 'tset'; it has"):
        sf.quantize(quickly[0], "missing.tif", tmp_path / "q.xml", spec=spec, split="tset")
    assert not quickly[1]
    assert not list(tmp_path.iterdir())


def test_the_command_passes_on_how_scans_are_resampled(monkeypatch):
    asked = []

    def quantize(model, scans, output, **options):
        asked.append(options["resample"])
        return Quantization(output, 1, Scores(1, 1, 1), None, None, 0.0)

    monkeypatch.setattr(sf, "quantize", quantize, raising=False)
    words = ["quantize", "m.keras", "s.tif", "-o", "q.xml"]
    assert "no other" not in CliRunner().invoke(command, words).stdout
    CliRunner().invoke(command, [*words, "--resample", "always"])
    assert asked == [None, "always"]
