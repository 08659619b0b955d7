"""Regions and masks: what is computed inside is what the whole scan's run computes there."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine import job as job_module
from segfocal.engine.job import prepare
from segfocal.engine.layers import Layers
from segfocal.engine.output import produce
from segfocal.engine.predictors import CallablePredictor
from segfocal.errors import GeometryError
from segfocal.io import MemoryScan, PendingOutput, open_scan
from segfocal.types import window_shape

SETTINGS = {"overlap": None, "halo": 0, "blend": "gaussian", "batch_size": 3}


class Stub:
    """Depends on neighbours and on the place in the tile."""

    output_stride, hash, engine, batch_matters = 1, "stub", "numpy", False

    def __init__(self, ndim=2, tile=16):
        self.ndim, self.tiles = ndim, 0
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=tuple(
                LabelClass(value=v, name=f"class {v}", color=(v, 0, 0)) for v in (1, 2, 9)
            ),
            tile=(tile,) * ndim,
            orientation="LPS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        self.tiles += int(valid.reshape(len(valid), -1).any(1).sum())
        x = values[..., 0].astype(np.float64) / 50
        for axis in range(1, x.ndim):
            x = (
                x
                + 0.4 * np.roll(x, 1, axis)
                + 0.05
                * np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            )
        score = np.exp(2 * np.sin(x[..., None] + np.arange(3)))
        return (score / score.sum(-1, keepdims=True)).astype(np.float32)


class Stripes:
    """Labels in diagonal stripes and in nothing of the first rows."""

    identity = {"kind": "stripes"}  # noqa: RUF012

    def __init__(self, first=0):
        self.first = first

    def __call__(self, window):
        rows, cols = (np.arange(side.start, side.stop) for side in window)
        return ((rows[:, None] + cols) % 7 < 5) & (rows[:, None] >= self.first)


def collect(job):
    """Return probabilities and valid of what is segmented, NaN where nothing was given out."""
    out, valid = None, np.zeros(job.scan.shape, bool)
    for rows in job.sweep():
        if out is None:
            out = np.full((*job.scan.shape, rows.probabilities.shape[-1]), np.nan, np.float32)
        assert np.isnan(out[rows.window]).all(), "given out twice"
        out[rows.window], valid[rows.window] = rows.probabilities, rows.valid
    return out, valid


def regions(shape, seed):
    rng = np.random.default_rng(seed)
    ends = [np.sort(rng.choice(side + 1, 2, replace=False)) for side in shape]
    return tuple(slice(int(a), int(b)) for a, b in ends)


@pytest.mark.parametrize("seed", range(24))
def test_a_region_is_bit_by_bit_that_part_of_the_whole_run(seed, monkeypatch):
    monkeypatch.setattr(job_module, "OTHER_BYTES", 0)
    monkeypatch.setattr(job_module, "peak_bytes", lambda call: (call(), 0))
    rng = np.random.default_rng(seed)
    shape = (70, 90) if seed % 3 else (20, 31, 26)
    array = rng.random((*shape, 1)) * 255
    scan = MemoryScan(array, valid=rng.random(shape) > 0.2)
    scan.slow_axis = seed % len(shape)
    tile, halo, overlap = (16, 2, 3) if seed % 2 else (9, 0, 5)
    settings = {**SETTINGS, "tile": tile, "halo": halo, "overlap": overlap}
    stub = Stub(len(shape))
    expected, valid = collect(prepare(stub, scan, **settings))
    every = stub.tiles
    for number in range(4):
        region = regions(shape, [seed, number])
        # The second time in column strips that are as narrow as they can be.
        for limit in (None, None if number % 2 else "least"):
            job = prepare(stub, scan, **settings, region=region)
            if limit:
                job = with_least_memory(job)
            stub.tiles = 0
            found, labelled = collect(job)
            inside = np.zeros(shape, bool)
            inside[region] = True
            np.testing.assert_array_equal(~np.isnan(found[..., 0]), inside)
            np.testing.assert_array_equal(found[region], expected[region])
            np.testing.assert_array_equal(labelled, valid & inside)
            if limit is None:
                assert stub.tiles <= min(job.tiles, every)


def with_least_memory(job):
    from dataclasses import replace

    for limit in range(1, 100):
        limited = replace(job, max_memory=limit * 2**13 + job._tile_bytes(3))
        try:
            limited._strips()
        except GeometryError:
            continue
        return limited
    raise AssertionError("no limit is enough")


def test_only_tiles_that_touch_the_region_are_run():
    stub = Stub()
    scan = MemoryScan(np.ones((160, 160, 1)))
    job = prepare(stub, scan, **{**SETTINGS, "overlap": 0}, tile=16,
                  region=(slice(30, 50), slice(64, 80)))  # fmt: skip
    collect(job)
    assert stub.tiles == job.tiles == 3


@pytest.mark.parametrize(
    "region",
    [(slice(0, 0), slice(0, 5)), (slice(0, 5),), (slice(-1, 5), slice(0, 5)),
     (slice(0, 5), slice(3, 21)), (slice(0, 10, 2), slice(0, 5))],
)  # fmt: skip
def test_a_region_outside_is_refused(region):
    scan = MemoryScan(np.ones((20, 20, 1)))
    with pytest.raises(GeometryError, match="expected a part of it with at least one pixel"):
        prepare(Stub(), scan, tile=None, **SETTINGS, region=region)


def test_all_of_a_scan_is_no_region():
    scan = MemoryScan(np.ones((20, 20, 1)))
    whole = prepare(Stub(), scan, tile=None, **SETTINGS)
    same = prepare(Stub(), scan, tile=None, **SETTINGS, region=(slice(0, 20), slice(0, 20)))
    assert same.parameters == whole.parameters
    part = prepare(
        Stub(), scan, tile=None, **SETTINGS, region=(slice(0, 20), slice(np.int64(3), 9))
    )
    assert part.parameters == {**whole.parameters, "region": [[0, 20], [3, 9]]}
    json.dumps(part.parameters)


@pytest.mark.parametrize("region", [None, (slice(13, 71), slice(40, 77))])
def test_a_mask_takes_labels_away_and_nothing_else(region):
    array = np.random.default_rng(0).random((80, 90, 1)) * 255
    scan = MemoryScan(array)
    settings = {**SETTINGS, "tile": 16, "overlap": 4}
    stub = Stub()
    expected, _ = collect(prepare(stub, scan, **settings, region=region))
    every, stub.tiles = stub.tiles, 0
    job = prepare(stub, scan, **settings, region=region, mask=Stripes(first=40))
    found, labelled = collect(job)
    wanted = Stripes(first=40)((slice(0, 80), slice(0, 90)))
    inside = np.zeros((80, 90), bool)
    inside[job.covered] = True
    np.testing.assert_array_equal(labelled, wanted & inside)
    np.testing.assert_array_equal(found[labelled], expected[labelled])
    assert stub.tiles < every
    assert job.parameters["mask"] == {"kind": "stripes"}


def test_a_mask_without_a_pixel_runs_nothing():
    stub = Stub()
    reports = []
    job = prepare(
        CallablePredictor(lambda batch: stub(batch, np.ones(batch.shape[:-1], bool))),
        MemoryScan(np.ones((40, 40, 1))), **SETTINGS, tile=16, mask=Stripes(first=99),
    )  # fmt: skip
    assert not any(rows.valid.any() for rows in job.sweep(lambda *now: reports.append(now)))
    assert reports[-1] == (job.tiles, job.tiles)


def write_scene(path, transform):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11)).repeat(10, 0).repeat(10, 1)
    pixels[30:40, 50:75] = 0
    with rasterio.open(
        path, "w", driver="GTiff", width=110, height=90, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=transform,
    ) as out:  # fmt: skip
        out.write(pixels.astype(np.uint8), 1)
    return path


def make(source, output, stub=None, *, layers=None, progress=None, told=None, **options):
    stub = stub or Stub()
    with (
        PendingOutput(output, overwrite=True) as pending,
        open_scan(source, orientation="LPS") as scan,
    ):
        job = prepare(stub, scan, **{**SETTINGS, "tile": None, **options})
        provenance, _ = produce(
            pending, job, stub.card, layers=layers or Layers(), layout="cog", model_name=None,
            overwrite=False, progress=progress, tell=(told if told is not None else []).append,
        )  # fmt: skip
    return provenance


@pytest.mark.parametrize(
    "transform",
    [rasterio.Affine(2, 0, 100, 0, -2, 900), rasterio.Affine(2, 0, 100, 0, 2, 900),
     rasterio.Affine(1.5, 0.5, 100, 0.5, -1.5, 900)],
    ids=["north-up", "south-up", "rotated"],
)  # fmt: skip
def test_an_output_of_a_region_is_cut_out_of_the_whole_output(tmp_path, transform):
    scene = write_scene(tmp_path / "scene.tif", transform)
    layers = Layers("float32", uncertainty=True)
    make(scene, tmp_path / "whole.tif", layers=layers)
    region = (slice(21, 77), slice(5, 92))
    told = make(scene, tmp_path / "part.tif", layers=layers, region=region)
    top = 90 - 77 if transform.e > 0 else 21
    for name in ("{}.tif", "{}.probabilities.tif", "{}.uncertainty.tif"):
        with (
            rasterio.open(tmp_path / name.format("whole")) as whole,
            rasterio.open(tmp_path / name.format("part")) as part,
        ):
            window = rasterio.windows.Window(5, top, 87, 56)
            np.testing.assert_array_equal(part.read(), whole.read(window=window))
            corner = [transform.a * 5 + transform.b * top + 100,
                      transform.d * 5 + transform.e * top + 900]  # fmt: skip
            assert [part.transform.c, part.transform.f] == pytest.approx(corner)
            steps = [(grid.a, grid.b, grid.d, grid.e) for grid in (part.transform, transform)]
            assert steps[0] == steps[1]
            assert (part.crs, part.count) == (whole.crs, whole.count)
            assert part.tags().keys() == whole.tags().keys()
    assert told["parameters"]["region"] == [[21, 77], [5, 92]]
    counted = sum(label["pixels"] for label in told["result"]["classes"])
    assert counted + told["result"]["invalid_pixels"] == 56 * 87
    area = sum(label["hectares"] for label in told["result"]["classes"])
    assert area == pytest.approx(counted * abs(transform.determinant) / 1e4)


def test_an_output_of_a_region_of_a_volume_is_cut_out_of_the_whole_output(tmp_path):
    affine = np.array([[0, -1.0, 0.1, 3], [2, 0, 0, -9], [0, 0.2, 1.5, 4], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(0, 255, (30, 24, 28)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "volume.nii.gz")
    with open_scan(tmp_path / "volume.nii.gz", orientation="LPS") as scan:
        region = regions(scan.shape, 4)
        box = scan.order.file_window(region)
    make(tmp_path / "volume.nii.gz", tmp_path / "whole.nii.gz", Stub(3, 12))
    make(tmp_path / "volume.nii.gz", tmp_path / "part.nii.gz", Stub(3, 12), region=region)
    whole, part = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("whole", "part"))
    assert part.shape == window_shape(box)
    np.testing.assert_array_equal(np.asarray(part.dataobj), np.asarray(whole.dataobj)[box])
    np.testing.assert_allclose(part.affine, whole.slicer[box].affine, atol=1e-5)


@pytest.mark.parametrize("mask", [None, Stripes(first=30)])
def test_a_region_is_continued_with_the_same_bytes(tmp_path, mask):
    scene = write_scene(tmp_path / "scene.tif", rasterio.Affine(2, 0, 0, 0, -2, 0))
    options = {"region": (slice(21, 77), slice(5, 92)), "mask": mask}
    make(scene, tmp_path / "a.tif", **options)

    def stop(done, total):
        if done >= 0.6 * total:
            raise KeyboardInterrupt

    stub, told = Stub(), []
    with pytest.raises(KeyboardInterrupt):
        make(scene, tmp_path / "b.tif", stub, progress=stop, **options)
    assert not (tmp_path / "b.tif").exists()
    make(scene, tmp_path / "b.tif", stub, told=told, **options)
    assert "continues with" in told[0]
    digests = [
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.tif", "b.tif")
    ]
    assert digests[0] == digests[1]
    if mask is not None:
        with rasterio.open(tmp_path / "a.tif") as found:
            missing = found.read(1) == 255
        outside = ~mask(options["region"])
        assert missing[outside].all()
        assert not missing[~outside].all()
    # Another region is another result.
    with pytest.raises(sf.SegfocalError, match="exists already"):
        make(scene, tmp_path / "a.tif", region=(slice(22, 77), slice(5, 92)), mask=mask)
