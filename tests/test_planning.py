"""Plans: statistics against numpy, the numbers that follow from them, and their YAML."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.card import Card, Channel, LabelClass
from segfocal.data import sampling
from segfocal.data.plan import Plan, load_plan, save_plan
from segfocal.data.spec import DatasetSpec, load_spec
from segfocal.errors import SpecError
from segfocal.planning import make_plan
from segfocal.version import __version__


def write_scene(path: Path, bands: np.ndarray, nodata: float | None = None) -> None:
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype,
        transform=Affine(30, 0, 0, 0, -20, 0), crs="EPSG:32633", nodata=nodata,
    ) as out:  # fmt: skip
        out.write(bands)


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
    monkeypatch.setitem(sampling.BLOCK, 2, block)
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
    monkeypatch.setitem(sampling.BLOCK, 2, block)
    spec = dataset(bands, labels, nodata=-7777, splits={"train": regions})
    expected = [int((usable & (labels == value)).sum()) for value in (3, 0, 7)]
    assert make_plan(spec).class_pixels == tuple(expected)


def test_statistics_of_a_volume_are_numpys(dataset, monkeypatch):
    monkeypatch.setitem(sampling.BLOCK, 3, 5)
    rng = np.random.default_rng(0)
    bands = rng.integers(-1000, 2000, (1, 8, 9, 11)).astype("int16")
    labels = rng.choice([0, 3, 7], (8, 9, 11)).astype("uint8")
    spec = dataset(bands, labels, splits={"train": [{"case": "a", "cols": [2, 9]}]})
    plan = make_plan(spec)
    pixels = bands[0, :, :, 2:9].astype(np.float64)
    (channel,) = plan.card.channels
    assert (channel.mean, channel.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)
    assert plan.class_pixels == tuple(int((labels[..., 2:9] == v).sum()) for v in (3, 0, 7))


def test_percentiles_of_a_large_region_are_those_of_a_sample(dataset, monkeypatch):
    monkeypatch.setattr("segfocal.planning.QUANTILE_SAMPLES_PER_BLOCK", 5000)
    bands = np.random.default_rng(0).random((1, 100, 100)).astype("float32")
    (channel,) = make_plan(dataset(bands, np.zeros((100, 100), "uint8"))).card.channels
    assert channel.low == pytest.approx(0.005, abs=0.004)
    assert channel.high == pytest.approx(0.995, abs=0.004)
    assert channel.low != np.percentile(bands, 0.5)


@pytest.mark.parametrize("constant", [5.0, 0.1, -12345.678, 0.0])
def test_a_constant_channel_is_divided_by_one(dataset, monkeypatch, constant):
    monkeypatch.setitem(sampling.BLOCK, 2, 9)
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
        # The largest side of which the region has one and a half; 3 * 2**17 pixels a batch.
        ((384, 383), (256, 192), 8),
        ((288, 287), (192, 128), 16),
        ((48, 47), (32, 32), 16),
        ((10, 2000), (32, 256), 16),
        ((400, 400), (256, 256), 6),
        ((144, 96, 48), (96, 64, 32), 2),
        ((143, 95, 5), (64, 32, 32), 6),
    ],
)
def test_patch_and_batch_follow_from_the_size_of_the_region(dataset, shape, patch, batch_size):
    bands = np.zeros((1, *shape), "uint8")
    bands.flat[0] = 1
    plan = make_plan(dataset(bands, np.zeros(shape, "uint8")))
    assert plan.patch == patch
    # Tiles of one output stride could not overlap.
    assert plan.card.tile == tuple(max(64, side) for side in patch)
    assert plan.batch_size == batch_size


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
