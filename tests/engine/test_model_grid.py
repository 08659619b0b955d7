"""To the model's grid and back, in stretches, against whole arrays."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from skimage.transform import resize

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine import job as job_module
from segfocal.engine import model_grid as model_grid_module
from segfocal.engine.job import prepare
from segfocal.errors import GeometryError
from segfocal.io import MemoryScan
from segfocal.io.resampling import ResampledScan

SETTINGS = {"overlap": None, "halo": 0, "blend": "gaussian", "batch_size": 3}


class Pointwise:
    """Three classes from a pixel's value alone: tiles make no difference but for rounding."""

    output_stride, hash, engine, batch_matters = 1, "pointwise", "numpy", False

    def __init__(self, resolution, tile=16, hash="pointwise"):
        self.ndim, self.hash, self.tiles = len(resolution), hash, 0
        self.card = Card(
            ndim=self.ndim,
            channels=(Channel(name="a", mean=0.3),),
            classes=tuple(
                LabelClass(value=v, name=f"class {v}", color=(v, 0, 0)) for v in (1, 2, 9)
            ),
            tile=(tile,) * self.ndim,
            resolution=tuple(resolution),
            orientation="RAS" if self.ndim == 3 else None,
        )

    def __call__(self, values, valid):
        self.tiles += int(valid.reshape(len(valid), -1).any(1).sum())
        return self.classes(values)

    @staticmethod
    def classes(values):
        score = np.exp(3 * np.sin(values / 30 + np.arange(3, dtype=np.float32)))
        return (score / score.sum(-1, keepdims=True)).astype(np.float32)


class Local(Pointwise):
    """Depends on neighbours and on the place in the tile as well."""

    def __call__(self, values, valid):
        x = values[..., 0].astype(np.float64)
        for axis in range(1, x.ndim):
            x = (
                x
                + 0.4 * np.roll(x, 1, axis)
                + np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            )
        return super().__call__(x[..., None].astype(np.float32), valid)


def collect(job):
    out, valid = None, np.zeros(job.scan.shape, bool)
    for rows in job.sweep():
        if out is None:
            out = np.full((*job.scan.shape, rows.probabilities.shape[-1]), np.nan, np.float32)
        assert np.isnan(out[rows.window]).all(), "given out twice"
        out[rows.window], valid[rows.window] = rows.probabilities, rows.valid
    inside = np.zeros(job.scan.shape, bool)
    inside[job.covered] = True
    np.testing.assert_array_equal(~np.isnan(out[..., 0]), inside)
    return out, valid


def interpolated(array, shape, orders):
    """Interpolate whole arrays by scikit-image, axis by axis where the orders differ."""
    if len(set(orders)) > 1:
        for axis, (length, order) in enumerate(zip(shape, orders, strict=True)):
            sides = list(array.shape)
            sides[axis] = length
            array = resize(array, sides, order=order, mode="edge", anti_aliasing=False, clip=False)
        return array
    sides = (*shape, array.shape[-1])
    return resize(array, sides, order=orders[0], mode="edge", anti_aliasing=False, clip=False)


def draw(seed):
    rng = np.random.default_rng(seed)
    ndim = 2 + seed % 2
    shape = rng.integers(1, 70 if ndim == 2 else 24, ndim)
    resolution = np.ones(ndim)
    if seed % 8 == 3:
        resolution[seed % 3] = 5  # anisotropic: nearest along this axis
    ratio = np.exp(rng.uniform(-1.1, 1.1, ndim))  # a third to three times as fine
    if seed % 8 == 7:
        ratio = np.full(ndim, ratio[0])
    if seed % 8 == 5:
        ratio[0] = 1
    # Smooth, or noise would make of a rounding error in the value one in the class.
    array = sum(
        np.sin(np.arange(n) / 5 + phase).reshape([-1 if i == a else 1 for i in range(ndim)])
        for a, (n, phase) in enumerate(zip(shape, rng.random(ndim) * 6, strict=True))
    )
    return rng, array[..., None] * 40 + 50, resolution, resolution * ratio


@pytest.mark.parametrize("interpolation", [1, 3])
@pytest.mark.parametrize("seed", range(32))
def test_streamed_equals_whole_arrays(seed, interpolation):
    rng, array, resolution, wanted = draw(seed)
    model = Pointwise(wanted, tile=int(rng.integers(5, 17)))
    scan = MemoryScan(array, resolution=resolution)
    scan.slow_axis = int(rng.integers(array.ndim - 1))
    resampled = ResampledScan(scan, wanted, interpolation)
    job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
    found, valid = collect(job)
    assert valid.all()
    orders = [axis.order for axis in resampled.maps]
    image = interpolated(array, resampled.shape, orders).astype(np.float32)
    expected = interpolated(
        Pointwise.classes(image).astype(np.float64),
        scan.shape,
        [axis.order for axis in resampled.back],
    )
    np.testing.assert_allclose(found, expected, atol=1e-5 if interpolation == 3 else 2e-6)
    two = np.sort(expected, -1)[..., -2:]
    clear = two[..., 1] - two[..., 0] > 1e-5
    np.testing.assert_array_equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])
    if interpolation == 1:
        labels = np.empty(scan.shape, int)
        for window, probabilities in sf.stream(model, scan, resample="always", interpolation=1):
            labels[window] = probabilities.argmax(-1)
        np.testing.assert_array_equal(labels, found.argmax(-1))


@pytest.mark.parametrize("seed", range(20))
def test_no_way_of_cutting_makes_a_difference(seed, monkeypatch):
    """Batches, strips, pieces, blocks, regions and runs that compute only a part: the same bits."""
    monkeypatch.setattr(job_module, "OTHER_BYTES", 0)
    monkeypatch.setattr(job_module, "MODEL_GRID_BYTES", 0)
    monkeypatch.setattr(job_module, "peak_bytes", lambda call: (call(), 0))
    rng, array, resolution, wanted = draw(seed)
    valid = rng.random(array.shape[:-1]) > 0.1 * (seed % 3)
    scan = MemoryScan(array, valid=valid, resolution=resolution)
    scan.slow_axis = int(rng.integers(array.ndim - 1))
    resampled = ResampledScan(scan, wanted, (1, 3)[seed % 2])
    model = Local(wanted, tile=int(rng.integers(9, 17)))
    job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
    expected, labelled = collect(job)
    assert not (labelled & ~valid).any()
    ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in scan.shape]
    region = tuple(slice(int(a), int(b)) for a, b in ends)
    for number in range(4):
        monkeypatch.setattr(model_grid_module, "PIECE_BYTES", int(rng.integers(100, 20_000)))
        monkeypatch.setattr(model_grid_module, "BLOCK_VALUES", int(rng.integers(30, 3000)))
        some = prepare(
            model, scan, tile=None, **{**SETTINGS, "batch_size": 1 + number}, resampled=resampled,
            region=region if number % 2 else None,
        )  # fmt: skip
        if number >= 2:
            some = with_least_memory(some)
        found, usable = collect(some)
        np.testing.assert_array_equal(found[some.covered], expected[some.covered])
        np.testing.assert_array_equal(usable[some.covered], labelled[some.covered])
    # Every other row is there already, as after a kill.
    axis = scan.slow_axis
    rows = rng.random(scan.shape[axis]) > 0.5
    rows[-1] = True
    out = np.full(expected.shape, np.nan, np.float32)
    for piece in job.sweep(wanted=lambda window: rows[window[axis]].any()):
        out[piece.window] = piece.probabilities
    there = ~np.isnan(out)
    assert np.moveaxis(there, axis, 0)[rows].all()
    np.testing.assert_array_equal(out[there], expected[there])


def with_least_memory(job):
    for limit in range(1, 200):
        limited = replace(job, max_memory=limit * 2**12 + job._tile_bytes(3))
        try:
            limited._strips()
        except GeometryError:
            continue
        return limited
    raise AssertionError("no limit is enough")


def test_a_column_strip_is_more_than_one(monkeypatch):
    """The strips of the test above are really cut."""
    monkeypatch.setattr(job_module, "OTHER_BYTES", 0)
    monkeypatch.setattr(job_module, "MODEL_GRID_BYTES", 0)
    monkeypatch.setattr(job_module, "peak_bytes", lambda call: (call(), 0))
    scan = MemoryScan(np.ones((20, 300, 1)), resolution=(1, 1))
    model = Local((0.7, 0.8))
    resampled = ResampledScan(scan, (0.7, 0.8))
    job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
    assert len(with_least_memory(job)._strips()) > 5


@pytest.mark.parametrize("wanted", [(0.4, 0.6), (2.3, 1.7), (1.0, 3.1)])
@pytest.mark.parametrize("interpolation", [1, 3])
def test_a_label_is_where_the_scan_has_data(wanted, interpolation):
    rng = np.random.default_rng(0)
    array = rng.random((60, 80, 1)) * 90
    valid = np.ones((60, 80), bool)
    valid[:, 50:] = False
    valid[20, 20] = valid[40:44, 10:30] = False
    poisoned = np.where(valid[..., None], array, 1e30)
    model = Local(wanted)
    found = {}
    for name, values in (("clean", array), ("poisoned", poisoned)):
        scan = MemoryScan(values, valid=valid, resolution=(1, 1))
        resampled = ResampledScan(scan, wanted, interpolation)
        job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
        found[name], labelled = collect(job)
        np.testing.assert_array_equal(labelled, valid)
    np.testing.assert_array_equal(found["clean"][valid], found["poisoned"][valid])
    np.testing.assert_allclose(found["clean"][valid].sum(-1), 1, atol=1e-5)


def test_probabilities_come_from_the_model_s_valid_pixels():
    """By the definition: weights of valid pixels, as parts of their sum."""
    array = np.zeros((1, 6, 1))
    array[0, :, 0] = [0, 10, 20, 30, 40, 50]
    valid = np.array([[True, True, False, True, True, True]])
    scan = MemoryScan(array, valid=valid, resolution=(1, 1))
    resampled = ResampledScan(scan, (1, 2))
    # Pixels of the model: means of two, of which the second lacks one.
    patch = resampled.read((slice(0, 1), slice(0, 3)))
    np.testing.assert_array_equal(patch.valid[0, :, 0], [True, False, True])
    np.testing.assert_array_equal(patch.values[0, [0, 2], 0], [5, 45])
    model = Pointwise((1, 2))
    job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
    found, labelled = collect(job)
    np.testing.assert_array_equal(labelled, valid)
    ends = Pointwise.classes(np.array([[5], [45]], np.float32))
    for col, end in ((0, 0), (1, 0), (3, 1), (4, 1), (5, 1)):
        np.testing.assert_allclose(found[0, col], ends[end], rtol=1e-6)


def test_where_the_model_saw_nothing_there_is_no_label():
    """A valid pixel far from any pixel that is valid at the model's resolution."""
    valid = np.zeros((64, 64), bool)
    valid[:20] = True
    valid[50, 50] = True
    scan = MemoryScan(np.ones((64, 64, 1)), valid=valid, resolution=(1, 1))
    resampled = ResampledScan(scan, (4, 4))
    job = prepare(Pointwise((4, 4), tile=4), scan, tile=None, **{**SETTINGS, "overlap": 0},
                  resampled=resampled)  # fmt: skip
    _, labelled = collect(job)
    assert labelled[:20].all()
    assert not labelled[20:].any()


def test_only_needed_tiles_are_run():
    class First:
        identity = "first"

        def __call__(self, window):
            rows, cols = (np.arange(side.start, side.stop) for side in window)
            return (rows[:, None] < 10) & (cols < 500)

    scan = MemoryScan(np.ones((200, 100, 1)), resolution=(1, 1))
    model = Pointwise((0.5, 0.5), tile=10)
    resampled = ResampledScan(scan, (0.5, 0.5))
    options = {**SETTINGS, "overlap": 0, "tile": None, "resampled": resampled}
    job = prepare(model, scan, **options, mask=First())
    _, labelled = collect(job)
    assert labelled.sum() == 10 * 100
    assert model.tiles == 2 * 20
    model.tiles = 0
    collect(prepare(model, scan, **options, region=(slice(0, 9), slice(0, 9))))
    assert model.tiles == 4


def write_scene(path):
    pixels = np.random.default_rng(0).integers(1, 255, (20, 14)).repeat(10, 0).repeat(10, 1)
    pixels[30:40, 50:75] = 0
    with rasterio.open(
        path, "w", driver="GTiff", width=140, height=200, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 500000, 0, -10, 4000000),
    ) as out:  # fmt: skip
        out.write(pixels.astype(np.uint8), 1)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("interpolation", [1, 3])
def test_a_scene_is_stopped_and_continued_with_the_same_bytes(tmp_path, interpolation, monkeypatch):
    monkeypatch.setattr(model_grid_module, "PIECE_BYTES", 20_000)
    scene = write_scene(tmp_path / "scene.tif")
    options = {"resample": "always", "interpolation": interpolation}
    first = sf.predict(Local((20, 25)), scene, tmp_path / "a.tif", **options)
    for share in (0.3, 0.6, 0.9):
        output, told = tmp_path / f"{share}.tif", []

        def stop(done, total, share=share):
            if done >= share * total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sf.predict(Local((20, 25)), scene, output, progress=stop, **options)
        assert not output.exists()
        model = Local((20, 25))
        again = sf.predict(model, scene, output, notice=told.append, batch_size=1, **options)
        assert "continues with" in told[0]
        assert again.sha256 == first.sha256 == digest(output)
        assert model.tiles < first.tiles or share < 0.5
    with rasterio.open(scene) as source, rasterio.open(tmp_path / "a.tif") as found:
        assert (found.shape, found.transform) == (source.shape, source.transform)
        np.testing.assert_array_equal(found.read(1) == 255, source.read(1) == 0)
    # Another way of resampling is another result; layers go along.
    other = sf.predict(Local((20, 25)), scene, tmp_path / "b.tif", resample="always",
                       interpolation=4 - interpolation, probabilities="float32")  # fmt: skip
    assert other.fingerprint != first.fingerprint
    with rasterio.open(tmp_path / "b.probabilities.tif") as layer:
        sums = layer.read().sum(0)
        np.testing.assert_allclose(sums[~np.isnan(sums)], 1, atol=1e-5)
    plain = sf.predict(Local((10, 10)), scene, tmp_path / "c.tif")
    resampled = sf.predict(Local((10, 10)), scene, tmp_path / "d.tif", resample="always")
    assert plain.fingerprint == resampled.fingerprint  # the same grid: nothing to do


def test_volumes_are_resampled_by_themselves_and_keep_their_geometry(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    affine = np.array(
        [[1.9, 0.1, 0.05, -20], [-0.08, 1.2, 0.3, 31], [-0.04, -0.25, 2.9, 7], [0, 0, 0, 1]]
    )
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * [1.9, 1.2, 2.9]
    grid = np.stack(np.meshgrid(*[np.arange(n) / 4 for n in (30, 40, 21)], indexing="ij"))
    voxels = (np.sin(grid).sum(0) * 40 + 50).astype(np.float32)
    path, output = tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(voxels[::-1].transpose(1, 2, 0), affine), path)
    model = Pointwise((1.5, 1.5, 1.5))
    with sf.open_scan(path) as scan:
        resampled = ResampledScan(scan, (1.5, 1.5, 1.5))
        spacing = resampled.resolution
        ours = resampled.read(tuple(slice(0, n) for n in resampled.shape)).values[..., 0]
        order, shape = scan.order, resampled.shape
    sf.predict(model, path, output)
    image = sitk.ReadImage(str(path))
    labels = sitk.ReadImage(str(output))
    for what in ("GetSize", "GetOrigin", "GetDirection", "GetSpacing"):
        np.testing.assert_allclose(getattr(labels, what)(), getattr(image, what)(), rtol=1e-6)
    # SimpleITK on the model's grid: the same extent, so half a voxel further in or out.
    there = replace(order, shape=shape)
    in_file = np.array([spacing[axis] for axis in order.canonical_axis])
    shift = (in_file / image.GetSpacing() - 1) / 2
    target = sitk.Image([int(n) for n in there.file_shape], sitk.sitkFloat32)
    target.SetSpacing(in_file.tolist())
    target.SetDirection(image.GetDirection())
    target.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(shift.tolist()))
    theirs = sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, 0.0)
    their_values = there.to_canonical(sitk.GetArrayFromImage(theirs).T)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[inner], their_values[inner], atol=2e-3)
    # And back, onto the image's own grid.
    classes = Pointwise.classes(sitk.GetArrayFromImage(theirs).T[..., None])
    back = []
    for k in range(3):
        one = sitk.GetImageFromArray(np.ascontiguousarray(classes[..., k].T))
        one.CopyInformation(target)
        back.append(sitk.GetArrayFromImage(sitk.Resample(one, image, sitk.Transform())).T)
    back = np.stack(back, -1)
    expected = np.array([1, 2, 9])[back.argmax(-1)]
    found = sitk.GetArrayFromImage(labels).T
    two = np.sort(back, -1)[..., -2:]
    clear = two[..., 1] - two[..., 0] > 1e-3
    inner = (slice(4, -4),) * 3
    np.testing.assert_array_equal(found[inner][clear[inner]], expected[inner][clear[inner]])
    assert clear[inner].mean() > 0.95
    np.testing.assert_allclose(nib.load(output).affine, nib.load(path).affine, atol=1e-6)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import segfocal as sf
from segfocal.engine import model_grid
from test_model_grid import Local
model_grid.PIECE_BYTES = 20_000

class Mortal(Local):
    def __call__(self, values, valid):
        if self.tiles > int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(values, valid)

sf.predict(Mortal((20, 25)), sys.argv[2], sys.argv[3], resample="always", interpolation=3)
"""


def test_a_killed_run_is_continued_with_the_same_bytes(tmp_path):
    scene, output = write_scene(tmp_path / "scene.tif"), tmp_path / "labels.tif"
    for tiles in (7, 14, 25):
        folder = Path(__file__).parent
        done = subprocess.run(
            [sys.executable, "-c", KILLED, folder, scene, output, str(tiles)], check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert not output.exists()
    told = []
    model = Local((20, 25))
    options = {"resample": "always", "interpolation": 3}
    found = sf.predict(model, scene, output, notice=told.append, **options)
    assert "continues with" in told[0]
    fresh = sf.predict(Local((20, 25)), scene, tmp_path / "fresh.tif", **options)
    assert digest(output) == digest(tmp_path / "fresh.tif") == fresh.sha256 == found.sha256


def test_memory_does_not_grow_with_the_scan():
    def peak_of(rows):
        scan = MemoryScan(np.zeros((rows, 120, 1), np.uint8), resolution=(1, 1))
        model = Pointwise((0.5, 0.5), tile=32)
        resampled = ResampledScan(scan, (0.5, 0.5))
        job = prepare(model, scan, tile=None, **SETTINGS, resampled=resampled)
        tracemalloc.start()
        for _ in job.sweep():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # A stack of classes would take 2 MB.
    assert peak_of(1500) < peak_of(60) + 10**6
