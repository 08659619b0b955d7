"""Plans: statistics against numpy, the numbers that follow from them, and their YAML."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.card import Card, Channel, LabelClass
from segfocal.data import reading
from segfocal.data.plan import Plan, load_plan, save_plan
from segfocal.data.sampling import PatchSampler
from segfocal.data.spec import DatasetSpec, load_spec
from segfocal.errors import GeometryError, OutputExistsError, SpecError
from segfocal.planning import make_plan
from segfocal.planning.device import Device, device_at_hand
from segfocal.planning.memory import training_bytes
from segfocal.planning.network import plan_preset, plan_tile
from segfocal.planning.revision import revised
from segfocal.planning.sizes import plan_patch
from segfocal.presets import PRESETS
from segfocal.version import __version__

# What is made here has one value, or one class: plans warn of it, see test_planning_doubts.py.
pytestmark = pytest.mark.filterwarnings(
    "ignore:spec '(made|any|volumes)':segfocal.errors.SegfocalWarning"
)


def write_scene(path: Path, bands: np.ndarray, nodata: float | None = None) -> None:
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype,
        transform=Affine(30, 0, 0, 0, -20, 0), crs="EPSG:32633", nodata=nodata,
    ) as out:  # fmt: skip
        out.write(bands)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture
def dataset(tmp_path):
    """Return a function that writes bands and labels to files and makes a spec over them."""

    def dataset(bands, labels, *, nodata=None, label_nodata=255, **changes) -> DatasetSpec:
        if labels.ndim == 2:
            image, reference = "a.tif", "labels.tif"
            write_scene(tmp_path / image, bands, nodata)
            write_scene(tmp_path / reference, labels[None], label_nodata)
        else:
            image, reference = "a.nii.gz", "labels.nii.gz"
            affine = np.diag([1.5, 2.0, 3.0, 1.0])
            nib.save(nib.Nifti1Image(np.moveaxis(bands, 0, -1), affine), tmp_path / image)
            nib.save(nib.Nifti1Image(labels, affine), tmp_path / reference)
        return DatasetSpec.model_validate(
            {
                "name": "made",
                "ndim": labels.ndim,
                "channels": [f"band {number}" for number in range(len(bands))],
                "classes": [
                    {"value": 3, "name": "Wälder", "color": [0, 90, 0]},
                    {"value": 0, "name": "08", "color": [9, 9, 9]},
                    {"value": 7, "name": "no", "color": [1, 2, 3]},
                ],
                "cases": [{"id": "a", "image": image, "labels": reference}],
                "splits": {"train": [{"case": "a"}]},
                **changes,
            }
        ).located(tmp_path)

    return dataset


@pytest.fixture
def noisy():
    """Bands of different scales with nodata, labels, and the train regions' pixels of each."""
    rng = np.random.default_rng(0)
    bands = rng.normal([[[0.5]], [[1e6]], [[-40]]], [[[0.1]], [[2]], [[300]]], (3, 50, 70))
    bands = bands.astype("float32")
    bands[:, :, 40:45] += 5000  # between the regions: must not count
    bands[:, 20:, 60:] = -7777  # nodata
    bands[1, 3, 4] = -7777
    labels = rng.choice([0, 3, 7, 255], (50, 70), p=[0.6, 0.1, 0.1, 0.2]).astype("uint8")
    regions = [{"case": "a", "cols": [0, 40]}, {"case": "a", "cols": [45, 70], "rows": [5, 50]}]
    inside = np.zeros((50, 70), bool)
    inside[:, :40] = inside[5:, 45:] = True
    usable = inside & (bands != -7777).all(0)
    return bands, labels, regions, usable


@pytest.mark.parametrize("block", [1024, 16, 7])
def test_statistics_are_numpys_over_the_train_regions_whatever_the_blocks(
    dataset, noisy, monkeypatch, block
):
    bands, labels, regions, usable = noisy
    monkeypatch.setitem(reading.BLOCK, 2, block)
    spec = dataset(bands, labels, nodata=-7777, splits={"train": regions})
    channels = make_plan(spec).card.channels
    for channel, band in zip(channels, bands, strict=True):
        pixels = band[usable].astype(np.float64)
        assert channel.mean == pytest.approx(pixels.mean(), rel=1e-12)
        assert channel.std == pytest.approx(pixels.std(), rel=1e-9)
        assert channel.low == pytest.approx(np.percentile(pixels, 0.5), rel=1e-12)
        assert channel.high == pytest.approx(np.percentile(pixels, 99.5), rel=1e-12)


@pytest.mark.parametrize("block", [1024, 16, 7])
def test_labelled_pixels_are_counted_per_class_index(dataset, noisy, monkeypatch, block):
    bands, labels, regions, usable = noisy
    monkeypatch.setitem(reading.BLOCK, 2, block)
    spec = dataset(bands, labels, nodata=-7777, splits={"train": regions})
    expected = [int((usable & (labels == value)).sum()) for value in (3, 0, 7)]
    assert make_plan(spec).class_pixels == tuple(expected)


def test_statistics_of_a_volume_are_numpys(dataset, monkeypatch):
    monkeypatch.setitem(reading.BLOCK, 3, 5)
    rng = np.random.default_rng(0)
    bands = rng.integers(-1000, 2000, (1, 8, 9, 11)).astype("int16")
    labels = rng.choice([0, 3, 7], (8, 9, 11)).astype("uint8")
    train = {"train": [{"case": "a", "cols": [2, 9]}]}
    plan = make_plan(dataset(bands, labels, splits=train, normalization={"*": "dataset"}))
    pixels = bands[0, :, :, 2:9].astype(np.float64)
    (channel,) = plan.card.channels
    assert (channel.mean, channel.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)
    assert plan.class_pixels == tuple(int((labels[..., 2:9] == v).sum()) for v in (3, 0, 7))


def test_percentiles_of_a_large_region_are_those_of_a_sample(dataset, monkeypatch):
    monkeypatch.setattr("segfocal.data.fingerprint.MOST_SAMPLES", 5000)
    bands = np.random.default_rng(0).random((1, 100, 100)).astype("float32")
    (channel,) = make_plan(dataset(bands, np.zeros((100, 100), "uint8"))).card.channels
    assert channel.low == pytest.approx(0.005, abs=0.004)
    assert channel.high == pytest.approx(0.995, abs=0.004)
    assert channel.low != np.percentile(bands, 0.5)


@pytest.mark.parametrize("constant", [5.0, 0.1, -12345.678, 0.0])
def test_a_constant_channel_is_divided_by_one(dataset, monkeypatch, constant):
    monkeypatch.setitem(reading.BLOCK, 2, 9)
    bands = np.stack([np.full((37, 41), constant), np.arange(37.0 * 41).reshape(37, 41)])
    plan = make_plan(dataset(bands.astype("float32"), np.zeros((37, 41), "uint8")))
    first, second = plan.card.channels
    assert first.mean == pytest.approx(np.float32(constant), rel=1e-12)
    assert first.std == 1.0
    assert second.std == pytest.approx(np.arange(37 * 41).std())


def test_a_train_split_of_nodata_alone_is_refused(dataset):
    spec = dataset(np.full((1, 9, 9), 4, "uint8"), np.zeros((9, 9), "uint8"), nodata=4)
    with pytest.raises(
        SpecError, match="'made': split 'train' has no usable pixel in band 0: all are nodat"
    ):
        make_plan(spec)


def test_a_train_split_without_labels_is_refused(dataset):
    spec = dataset(np.ones((1, 9, 9), "uint8"), np.full((9, 9), 255, "uint8"))
    with pytest.raises(SpecError, match="'made': split 'train' has no labelled pixel"):
        make_plan(spec)


def test_a_label_outside_the_class_table_is_refused(dataset):
    spec = dataset(np.ones((1, 9, 9), "uint8"), np.full((9, 9), 200, "uint8"))
    with pytest.raises(SpecError, match=r"labels\.tif: holds label value 200"):
        make_plan(spec)


@pytest.mark.parametrize(
    ("shape", "patch", "batch_size"),
    [
        # Scenes: two thirds of the region, as multiples of 32; 3 * 2**17 pixels a batch.
        ((384, 383), (256, 224), 6),
        ((288, 287), (192, 160), 12),
        ((48, 47), (32, 32), 16),
        ((400, 400), (256, 256), 6),
        # No more than 2**16 pixels: the side that is longest for the region is shortened.
        ((600, 400), (256, 256), 6),
        # Not more than one and a half times the shorter side.
        ((10, 2000), (32, 32), 16),
        ((192, 2000), (128, 192), 16),
        # Volumes: the nearest multiple of 32, at most 2**19 voxels.
        ((144, 96, 48), (128, 96, 32), 2),
        ((35, 64, 35), (32, 64, 32), 6),
        # Small ones: multiples of 16.
        ((35, 50, 35), (32, 48, 32), 8),
    ],
)
def test_patch_and_batch_follow_from_the_size_of_the_region(dataset, shape, patch, batch_size):
    bands = np.zeros((1, *shape), "uint8")
    bands.flat[0] = 1
    plan = make_plan(dataset(bands, np.zeros(shape, "uint8")))
    assert plan.patch == patch
    assert plan.batch_size == batch_size


@pytest.mark.parametrize(
    ("shape", "tile", "whole"),
    [
        # Scenes: the patch; of one output stride tiles could not overlap.
        ((400, 400), (256, 256), False),
        ((48, 47), (64, 64), False),
        # Volumes: all of the largest, where that is not much more than a patch.
        ((143, 95, 5), (160, 96, 64), True),
        ((35, 50, 35), (48, 64, 48), True),
        ((60, 65, 40), (64, 96, 64), True),
        ((35, 65, 35), (64, 64, 64), False),
        ((200, 180, 90), (128, 96, 64), False),
    ],
)
def test_a_tile_is_a_patch_or_holds_the_largest_volume(dataset, shape, tile, whole):
    bands = np.zeros((1, *shape), "uint8")
    bands.flat[0] = 1
    plan = make_plan(dataset(bands, np.zeros(shape, "uint8")))
    assert plan.card.tile == tile
    assert ("whole" in plan.reasons["card.tile"]) == whole


def test_the_largest_volume_decides_unless_the_others_would_pay_for_it(dataset):
    def tile_of(*shapes):
        scans = np.array(shapes, np.float64)
        return plan_tile(scans, (48, 48, 48), 16)[0]

    assert tile_of((48, 48, 48)) == (48, 48, 48)
    assert tile_of((50, 48, 40)) == (64, 48, 48)
    # One whole tile of 64 x 48 x 48 for each, or 19 tiles of 48 x 48 x 48 and two.
    assert tile_of((50, 48, 40), *[(48, 48, 48)] * 19) == (48, 48, 48)
    assert tile_of((40, 48, 40), (60, 60, 60), (60, 60, 60)) == (64, 64, 64)
    # At most four times the patch, and 2**20.
    assert tile_of((97, 96, 60)) == (48, 48, 48)
    assert plan_tile(np.array([[129.0, 96, 90]]), (96, 96, 96), 16)[0] == (96, 96, 96)
    assert plan_tile(np.array([[113.0, 96, 60]]), (96, 96, 64), 16)[0] == (128, 96, 64)


def test_scans_and_not_the_regions_in_them_say_what_is_small(dataset):
    shape = (70, 66, 40)
    region = {"case": "a", "rows": [0, 40], "cols": [0, 40], "planes": [0, 40]}
    spec = dataset(np.ones((1, *shape), "uint8"), np.zeros(shape, "uint8"),
                   splits={"train": [region]})  # fmt: skip
    plan = make_plan(spec)
    assert plan.preset == "nano"
    assert plan.patch == (32, 32, 32)
    assert plan.card.tile == (64, 64, 64)


def test_the_median_volume_decides_on_the_encoder():
    cpu = device_at_hand("cpu", "8GB")
    small, large = (60.0, 30.0, 30.0), (80.0, 30.0, 30.0)
    assert plan_preset(np.array([small, small, large]), cpu)[0] == "nano_fine"
    assert plan_preset(np.array([small, large, large]), cpu)[0] == "nano"


@pytest.mark.parametrize(
    ("shape", "device", "preset"),
    [
        ((63, 63, 63), "cpu", "nano_fine"),
        ((63, 63, 63), "gpu", "micro_fine"),
        ((64, 20, 20), "cpu", "nano"),
        ((40, 40), "cpu", "nano"),
    ],
)
def test_volumes_that_are_small_along_all_axes_get_a_fine_encoder(dataset, shape, device, preset):
    spec = dataset(np.ones((1, *shape), "uint8"), np.zeros(shape, "uint8"))
    plan = make_plan(spec, device=device)
    assert plan.preset == preset
    assert ("less than 64" in plan.reasons["preset"]) == preset.endswith("fine")


def test_the_smallest_region_along_each_axis_decides(dataset):
    regions = [
        {"case": "a", "rows": [0, 96], "cols": [0, 300]},
        {"case": "a", "rows": [96, 300], "cols": [0, 150]},
    ]
    spec = dataset(
        np.ones((1, 300, 300), "uint8"), np.zeros((300, 300), "uint8"), splits={"train": regions}
    )
    assert make_plan(spec).patch == (64, 96)


def test_what_is_asked_for_is_taken(dataset):
    spec = dataset(np.ones((1, 40, 40), "uint8"), np.zeros((40, 40), "uint8"))
    plan = make_plan(spec, preset="micro", patch=(64, 96), batch_size=3, steps=17, seed=5)
    assert (plan.preset, plan.patch, plan.batch_size, plan.steps, plan.seed) == (
        "micro", (64, 96), 3, 17, 5,
    )  # fmt: skip
    assert plan.card.tile == (64, 96)


def test_the_card_says_what_the_model_will_expect(dataset):
    bands = np.stack([np.arange(1600).reshape(40, 40) % 2, np.full((40, 40), 6)]).astype("uint8")
    spec = dataset(bands, np.zeros((40, 40), "uint8"), valid_when="any")
    plan = make_plan(spec)
    assert plan.card == Card(
        format=1,
        segfocal=__version__,
        ndim=2,
        channels=(
            Channel(name="band 0", mean=0.5, std=0.5, low=0.0, high=1.0),
            Channel(name="band 1", mean=6.0, std=1.0, low=6.0, high=6.0),
        ),
        named_channels=True,
        valid_when="any",
        classes=(
            LabelClass(value=3, name="Wälder", color=(0, 90, 0)),
            LabelClass(value=0, name="08", color=(9, 9, 9)),
            LabelClass(value=7, name="no", color=(1, 2, 3)),
        ),
        tile=(64, 64),
        patch=(32, 32),
        resolution=(20.0, 30.0),
        orientation=None,
    )
    assert plan.spec == "made"
    assert plan.mirror_axes == (0, 1)
    assert plan.class_pixels == (0, 1600, 0)


@pytest.mark.parametrize(
    ("asked", "orientation", "resolution"),
    [
        (None, "RAS", (1.5, 2.0, 3.0)),
        ("SAR", "SAR", (3.0, 2.0, 1.5)),
        ("LPI", "LPI", (1.5, 2.0, 3.0)),
    ],
)
def test_the_card_of_volumes_has_the_specs_orientation(dataset, asked, orientation, resolution):
    bands = np.ones((1, 4, 5, 6), "int16")
    plan = make_plan(dataset(bands, np.zeros((4, 5, 6), "uint8"), orientation=asked))
    assert plan.card.orientation == orientation
    assert plan.card.resolution == pytest.approx(resolution)
    assert plan.mirror_axes == (0, 1, 2)


def test_a_plan_survives_yaml_exactly(dataset, noisy, tmp_path):
    bands, labels, regions, _ = noisy
    plan = make_plan(dataset(bands, labels, nodata=-7777, splits={"train": regions}), seed=3)
    path = tmp_path / "plan.yaml"
    save_plan(plan, path)
    assert load_plan(path) == plan
    assert "Wälder" in path.read_text(encoding="utf-8")


def test_a_plan_of_the_first_release_stays_readable(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        """\
spec: made
card:
  format: 1
  segfocal: 0.1.0
  ndim: 2
  channels:
  - {name: band 0, mean: 0.5, std: 0.25, low: 0.0, high: 1.0}
  named_channels: true
  valid_when: all
  classes:
  - value: 0
    name: other
    color: [0, 0, 0]
  - value: 4
    name: water
    color: [0, 0, 255]
  tile: [32, 64]
patch: [32, 64]
batch_size: 16
learning_rate: 1e-4
""",
        encoding="utf-8",
    )
    assert load_plan(path) == Plan(
        spec="made",
        card=Card(
            segfocal="0.1.0",
            channels=(Channel(name="band 0", mean=0.5, std=0.25, low=0.0, high=1.0),),
            named_channels=True,
            classes=(
                LabelClass(value=0, name="other", color=(0, 0, 0)),
                LabelClass(value=4, name="water", color=(0, 0, 255)),
            ),
            tile=(32, 64),
        ),
        preset="nano",
        patch=(32, 64),
        batch_size=16,
        steps=1000,
        learning_rate=1e-4,
        weight_decay=0.02,
        class_share=0.5,
        mirror_axes=(),
        class_pixels=(),
        seed=0,
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("batch_size: 2", "batch_size: 0", "batch_size: Input should be greater than 0; found 0"),
        ("class_share: 0.5", "class_share: 2", "class_share: Input should be less than or equal"),
        ("preset: nano", "preset: huge", "top level: preset 'huge' is unknown"),
        ("mirror_axes: [", "mirror_axes: [2, ", "top level: mirror_axes names axis 2"),
        ("\npatch: [", "\npatch: [32, ", "top level: patch (32, "),
        ("weight_decay: 0.02", "weight_decay: .inf", "weight_decay: Input should be a finite"),
        ("preset: nano", "presets: nano", "unknown key 'presets'; did you mean 'preset'?"),
    ],
)
def test_a_wrong_plan_names_file_key_and_value(dataset, tmp_path, old, new, expected):
    spec = dataset(np.ones((1, 9, 9), "uint8"), np.zeros((9, 9), "uint8"))
    path = tmp_path / "plan.yaml"
    save_plan(make_plan(spec, batch_size=2), path)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_statistics_of_a_channel_leave_out_pixels_that_lack_only_it(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 200, (2, 40, 40)).astype(np.float32)
    pixels[1, :10] = -9999
    profile = {"driver": "GTiff", "width": 40, "height": 40, "crs": "EPSG:32633",
               "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}  # fmt: skip
    with rasterio.open(
        tmp_path / "i.tif", "w", count=2, dtype="float32", nodata=-9999, **profile
    ) as out:
        out.write(pixels)
    with rasterio.open(tmp_path / "l.tif", "w", count=1, dtype="uint8", **profile) as out:
        out.write(np.ones((40, 40), np.uint8), 1)
    (tmp_path / "spec.yaml").write_text(
        "name: any\nndim: 2\nchannels: [a, b]\nvalid_when: any\n"
        "classes:\n  - {value: 0, name: x, color: [0, 0, 0]}\n"
        "  - {value: 1, name: y, color: [1, 1, 1]}\n"
        "cases: [{id: one, image: i.tif, labels: l.tif}]\nsplits: {train: [{case: one}]}\n"
    )
    plan = make_plan(load_spec(tmp_path / "spec.yaml"))
    for channel, values in zip(
        plan.card.channels, (pixels[0].ravel(), pixels[1, 10:].ravel()), strict=True
    ):
        assert channel.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
        assert channel.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
        assert channel.low == pytest.approx(np.percentile(values, 0.5), rel=1e-6)
    assert plan.class_pixels == (0, 1600)


def volumes(folder: Path, spacings, *, intensities=None, channel="mr", shape=(20, 24, 22), **more):
    """A spec of volumes of these spacings, with a ball of class 1 in each."""
    rng = np.random.default_rng(0)
    cases = []
    for number, spacing in enumerate(spacings):
        affine = np.diag([*spacing, 1.0])
        values = rng.normal(100, 20, shape) if intensities is None else intensities[number]
        grid = np.indices(shape).T - np.array(shape) / 2
        ball = (np.linalg.norm(grid, axis=-1).T < 6).astype("uint8")
        names = f"{number}.nii.gz", f"{number}_labels.nii.gz"
        nib.save(nib.Nifti1Image(values.astype("float32"), affine), folder / names[0])
        nib.save(nib.Nifti1Image(ball, affine), folder / names[1])
        cases.append({"id": f"case {number}", "image": names[0], "labels": names[1]})
    document = {
        "name": "volumes", "ndim": 3, "channels": [channel],
        "classes": [{"value": 0, "name": "other"}, {"value": 1, "name": "ball"}],
        "cases": cases, "splits": {"train": [{"case": case["id"]} for case in cases]}, **more,
    }  # fmt: skip
    return DatasetSpec.model_validate(document).located(folder)


@pytest.mark.parametrize(
    ("spacings", "expected", "resample"),
    [
        ([(1.5, 2, 3)] * 2, (1.5, 2, 3), False),
        ([(1.5, 2, 3), (1.5, 2.01, 3)], (1.5, 2, 3), False),
        ([(1, 1, 3), (1, 2, 3), (1, 4, 3.3)], (1, 2, 3), True),
        # Coarse, and few voxels: the 10th percentile along it.
        ([(5, 1, 1), (6, 1, 1), (8, 1, 1)], (5.2, 1, 1), True),
        # ... but no finer than the other axes.
        ([(0.5, 1, 1), (8, 1, 1), (8, 1, 1)], (2.0, 1, 1), True),
    ],
)
def test_volumes_are_resampled_to_the_median_spacing(tmp_path, spacings, expected, resample):
    spec = volumes(tmp_path, spacings, shape=(6, 22, 20))
    plan = make_plan(spec)
    assert plan.card.resolution == pytest.approx(expected, abs=1e-4)
    assert plan.resample == resample
    assert ("10th percentile" in plan.reasons["card.resolution"]) == (expected[0] in (5.2, 2.0))
    assert plan.fingerprint.coarsest_resolution == pytest.approx(np.max(spacings, 0))


def test_a_resolution_in_the_spec_is_taken(tmp_path, dataset):
    plan = make_plan(volumes(tmp_path, [(1, 1, 1)], resolution=[2.0, 2.0, 4.0]))
    assert (plan.card.resolution, plan.resample) == ((2.0, 2.0, 4.0), True)
    spec = dataset(np.ones((1, 60, 60), "uint8"), np.zeros((60, 60), "uint8"), resolution=[40, 60])
    plan = make_plan(spec)
    assert (plan.card.resolution, plan.resample) == ((40, 60), True)
    assert plan.reasons["card.resolution"] == "the spec says so, in metres"
    with PatchSampler(spec, plan) as sampler:  # 20 x 30: half as many pixels
        assert sampler._regions[0].shape == (30, 30)


def test_sizes_are_those_at_the_resolution(tmp_path):
    spec = volumes(tmp_path, [(1, 1, 1)], shape=(64, 40, 40), resolution=[2.0, 1.0, 0.5])
    assert make_plan(spec).patch == (32, 32, 64)


def test_a_channel_called_ct_is_clipped_to_percentiles_of_the_foreground(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(-800, 10, (20, 24, 22))
    grid = np.indices(image.shape).T - np.array(image.shape) / 2
    ball = np.linalg.norm(grid, axis=-1).T < 6
    image[ball] = rng.normal(100, 30, int(ball.sum()))
    plan = make_plan(volumes(tmp_path, [(1, 1, 1)], intensities=[image], channel="CT"))
    low, high = np.percentile(image[ball], [0.5, 99.5])
    (channel,) = plan.card.channels
    assert channel.normalization.method == "window"
    assert channel.normalization.bounds == pytest.approx((low, high), rel=1e-4)
    windowed = np.clip((image - low) / (high - low), 0, 1)
    assert channel.mean == pytest.approx(windowed.mean(), rel=1e-3)
    assert channel.std == pytest.approx(windowed.std(), rel=1e-3)
    assert "Hounsfield" in plan.reasons["normalization.CT"]
    assert plan.fingerprint.foreground[0].percentiles[1] == pytest.approx(100, abs=3)


@pytest.mark.parametrize(("zeros", "region"), [(0.6, "nonzero"), (0.1, "valid")])
def test_other_volumes_are_normalized_by_their_own_numbers(tmp_path, zeros, region):
    rng = np.random.default_rng(0)
    images = [scale * rng.normal(9, 1, (20, 24, 22)) for scale in (1, 7000)]
    for image in images:
        image[: int(20 * zeros)] = 0
    plan = make_plan(volumes(tmp_path, [(1, 1, 1)] * 2, intensities=images))
    (channel,) = plan.card.channels
    assert (channel.normalization.method, channel.normalization.region) == ("zscore", region)
    assert abs(channel.mean) < 1e-5
    assert channel.std == pytest.approx(1 if region == "valid" else np.sqrt(1 - zeros), abs=1e-3)


@pytest.mark.parametrize(
    ("asked", "mean", "std"), [("none", 0, 1), ("dataset", 100, 20), ("scan", 0, 1)]
)
def test_what_the_spec_says_of_normalization_counts(tmp_path, asked, mean, std):
    spec = volumes(tmp_path, [(1, 1, 1)], channel="ct", normalization={"*": asked})
    plan = make_plan(spec)
    (channel,) = plan.card.channels
    assert (channel.mean, channel.std) == pytest.approx((mean, std), rel=0.02, abs=1e-4)
    assert (channel.normalization is None) == (asked != "scan")
    assert plan.reasons["normalization.ct"].endswith("the spec says so")


def test_common_classes_are_not_drawn_and_rare_ones_are(dataset):
    labels = np.full((60, 60), 3, "uint8")
    labels[:8] = 0
    plan = make_plan(dataset(np.ones((1, 60, 60), "uint8"), labels))
    assert plan.class_chances == (0, 1, 0)  # the third has no pixel
    assert "none for Wälder, which 87% are" in plan.reasons["class_chances"]
    plan = make_plan(dataset(np.ones((1, 60, 60), "uint8"), np.full((60, 60), 3, "uint8")))
    assert plan.class_chances == (1, 0, 0)


@pytest.mark.parametrize(("rows", "others"), [(20, "labelled"), (31, "anywhere")])
def test_with_few_labels_patches_lie_where_there_are_some(dataset, rows, others):
    labels = np.full((60, 60), 255, "uint8")
    labels[:rows] = 3
    plan = make_plan(dataset(np.ones((1, 60, 60), "uint8"), labels))
    assert plan.other_patches == others
    assert plan.reasons["other_patches"].startswith(f"{rows / 60:.1%} of the pixels are labelled")


def test_more_memory_and_a_gpu_allow_more(dataset):
    spec = dataset(np.ones((1, 1600, 1600), "uint8"), np.zeros((1600, 1600), "uint8"))
    cpu = make_plan(spec, device="cpu")
    assert (cpu.preset, cpu.patch, cpu.batch_size, cpu.steps) == ("nano", (256, 256), 6, 1000)
    gpu = make_plan(spec, device="gpu", memory="40GB")
    assert (gpu.preset, gpu.patch) == ("tiny_srf", (512, 512))
    assert gpu.steps == 5000
    small = make_plan(spec, device="gpu", memory="3GB")
    assert small.patch[0] < 512
    for plan, limit in ((gpu, 40e9), (small, 3e9)):
        network = PRESETS[plan.preset]
        taken = training_bytes(network, plan.patch, plan.batch_size, channels=1, classes=3)
        assert taken <= 0.8 * limit  # the rest is for errors of the estimate
        again = training_bytes(network, plan.patch, plan.batch_size + 1, channels=1, classes=3)
        assert plan.batch_size == 16 or again > 0.8 * limit
    assert "memory" in small.reasons["patch"]
    with pytest.raises(GeometryError, match="memory 'much'; expected bytes"):
        make_plan(spec, memory="much")
    with pytest.raises(SpecError, match="device 'tpu'; expected one of auto, cpu, gpu"):
        make_plan(spec, device="tpu")


def test_patches_have_the_shape_of_the_body_and_not_of_the_voxels():
    place = Device("GPU", 40 * 2**30, True)
    shapes = np.array([[60.0, 512, 512]])
    patch, _ = plan_patch(shapes, (5.0, 0.8, 0.8), PRESETS["micro"], 1, 3, place)
    assert patch[0] < patch[1] == patch[2]
    cubic, _ = plan_patch(np.array([[400.0] * 3]), (1, 1, 1), PRESETS["micro"], 1, 3, place)
    assert len(set(cubic)) <= 2
    assert max(cubic) - min(cubic) <= 32
    for sides in (patch, cubic):
        assert all(side % 32 == 0 for side in sides)
        assert np.prod(sides) <= 2**21


@pytest.mark.parametrize(
    ("visible", "answer", "expected"),
    [(None, "24576\n8192\n", 24576), ("1", "24576\n8192\n", 8192), ("-1", "24576\n", None),
     (None, "no devices", None)],
)  # fmt: skip
def test_the_gpu_at_hand_is_asked_for_its_memory(monkeypatch, tmp_path, visible, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{answer}'\n".replace("\n8192", "\\n8192"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    place = device_at_hand()
    assert place.is_gpu == (expected is not None)
    if expected:
        assert place.bytes == expected * 2**20 * 9 // 10
    assert device_at_hand("cpu", "2GB") == Device("CPU, 1.9 GiB", 2 * 10**9, False)


def test_every_number_has_its_reason(dataset):
    plan = make_plan(dataset(np.ones((1, 60, 60), "uint8"), np.zeros((60, 60), "uint8")), steps=5)
    numbers = set(Plan.model_fields) - {"spec", "card", "class_pixels", "fingerprint", "reasons"}
    of_card = {"card.resolution", "card.tile", "normalization.band 0"}
    assert set(plan.reasons) == numbers | of_card
    assert plan.reasons["steps"] == "asked for"
    assert all(plan.reasons.values())


@pytest.mark.parametrize("kind", ["default", "light", "none"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_with_the_options_it_was_made_with_a_plan_is_the_same(dataset, tmp_path, ndim, kind):
    if ndim == 2:
        spec = dataset(np.ones((1, 60, 60), "uint8"), np.zeros((60, 60), "uint8"))
    else:
        spec = volumes(tmp_path, [(1, 1, 4)])
    options = {"patch": (16, 24, 32)[:ndim], "steps": 7, "batch_size": 2, "preset": "micro"}
    options |= {"seed": 3, "augmentation": kind, "device": "cpu", "memory": "3GB"}
    plan = make_plan(spec, **options)
    kept = type(plan).model_validate_json(plan.model_dump_json())
    assert revised(kept, **options) == plan
    assert revised(kept) == plan
    for name, other in {"patch": (16, 16, 16)[:ndim], "steps": 8, "seed": 0}.items():
        assert getattr(revised(kept, **{name: other}), name) == other
    with pytest.raises(SpecError, match=r"^patch \(8,\) has 1 numbers; expected"):
        revised(kept, patch=(8,))
    with pytest.raises(SpecError, match=r"^steps: Input should be greater than 0"):
        revised(kept, steps=0)


def test_an_unknown_augmentation_is_refused(dataset):
    spec = dataset(np.ones((1, 60, 60), "uint8"), np.zeros((60, 60), "uint8"))
    with pytest.raises(SpecError, match="augmentation 'some'; expected one of default, light"):
        make_plan(spec, augmentation="some")


@pytest.mark.parametrize("kind", ["default", "light", "none"])
def test_augmentation_is_written_into_the_plan(dataset, kind):
    spec = dataset(np.ones((1, 60, 60), "uint8"), np.zeros((60, 60), "uint8"))
    plan = make_plan(spec, augmentation=kind)
    done = {name for name, value in plan.augmentation if getattr(value, "probability", value) > 0}
    assert plan.mirror_axes == (() if kind == "none" else (0, 1))
    assert ("noise" in done, "shift" in done) == (kind == "default", kind == "light")
    assert bool(done) == (kind != "none")
    assert plan.augmentation.gamma.range == (0.7, 1.5)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  noise: {probability: 0.1", "  noise: {probability: 7", "augmentation.noise.prob"),
        ("  noise: {", "  nois: {", "unknown key 'augmentation.nois'; did you mean 'noise'?"),
        ("  gamma: {probability: 0.3, range: [0.7", "  gamma: {probability: 0.3, range: [0",
         "augmentation: gamma: expected a range above 0"),
        ("  blur: {probability: 0.2, range: [0.5, 1.0]", "  blur: {probability: 0.2, range: [2, 1]",
         "augmentation.blur: range [2.0, 1.0]; expected the smaller number first"),
        ("class_chances: [0.0, ", "class_chances: [", "top level: class_chances has 2 numbers"),
        ("class_chances: [0.0, 1.0, 0.0]", "class_chances: [0, 0, 0]", "top level: class_chances"),
        ("other_patches: anywhere", "other_patches: here", "other_patches: Input should be"),
    ],
)  # fmt: skip
def test_a_wrong_new_key_is_named(dataset, tmp_path, old, new, expected):
    spec = dataset(np.ones((1, 9, 9), "uint8"), np.zeros((9, 9), "uint8"))
    path = tmp_path / "plan.yaml"
    plan = make_plan(spec).model_copy(update={"class_chances": (0.0, 1.0, 0.0)})
    save_plan(plan, path)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_plan_is_not_overwritten_unless_asked_to(dataset, tmp_path):
    plan = make_plan(dataset(np.ones((1, 9, 9), "uint8"), np.zeros((9, 9), "uint8")))
    save_plan(plan, tmp_path / "plan.yaml")
    with pytest.raises(OutputExistsError):
        save_plan(plan, tmp_path / "plan.yaml", overwrite=False)
    assert "plan.yaml" in {file.name for file in tmp_path.iterdir()}
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
