"""Patches of real files: where they come from, what they hold, and that they can be repeated."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.card import IGNORE_INDEX, Card, Channel, LabelClass, Normalization
from segfocal.data.augmentation import Augmentation, Change
from segfocal.data.plan import Plan
from segfocal.data.reading import blocks, open_regions
from segfocal.data.sampling import PatchSampler
from segfocal.data.spec import DatasetSpec
from segfocal.errors import ChannelError, ScanError, ScanNotFoundError, SpecError
from segfocal.types import full_window

CODE = 1000
"""A pixel of the test scans holds row * CODE + col, a voxel plane * CODE**2 + ... ."""


def positions(shape: tuple[int, ...]) -> np.ndarray:
    """An array whose values say where they stand."""
    grid = np.indices(shape)
    return sum(g * CODE ** (len(shape) - 1 - axis) for axis, g in enumerate(grid)).astype(float)


def decoded(values: np.ndarray, ndim: int) -> list[np.ndarray]:
    """Per axis the places that a patch shows, from its edges."""
    whole = np.round(values[..., 0]).astype(int)
    places = [whole // CODE ** (ndim - 1 - axis) % CODE for axis in range(ndim)]
    lines = []
    for axis, place in enumerate(places):
        first = place.transpose(axis, *(a for a in range(ndim) if a != axis)).reshape(
            place.shape[axis], -1
        )
        assert (first == first[:, :1]).all(), "the patch is sheared"
        lines.append(first[:, 0])
    return lines


def write_scene(path: Path, *bands: np.ndarray, names: tuple[str, ...] = (), **options) -> None:
    height, width = bands[0].shape
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=height, width=width,
        dtype=bands[0].dtype, transform=Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32633", **options,
    ) as out:  # fmt: skip
        out.write(np.stack(bands))
        if names:
            out.descriptions = names


def write_volume(path: Path, canonical: np.ndarray) -> None:
    """Write an array in RAS order to a file in LPS order."""
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(canonical[::-1, ::-1]), affine), path)


@pytest.fixture
def dataset(tmp_path):
    """Return a function that makes a spec over files a.tif (or .nii.gz) and labels.tif."""

    def dataset(ndim: int = 2, values: tuple[int, ...] = (0, 1, 2), **changes) -> DatasetSpec:
        suffix = ".tif" if ndim == 2 else ".nii.gz"
        document = {
            "name": "made",
            "ndim": ndim,
            "channels": ["place"],
            "classes": [{"value": v, "name": f"c{v}", "color": [0, 0, 0]} for v in values],
            "cases": [{"id": "a", "image": f"a{suffix}", "labels": f"labels{suffix}"}],
            "splits": {"train": [{"case": "a"}]},
            **changes,
        }
        return DatasetSpec.model_validate(document).located(tmp_path)

    return dataset


def made_plan(spec: DatasetSpec, patch: tuple[int, ...], **changes) -> Plan:
    card = Card(
        ndim=spec.ndim,
        channels=tuple(Channel(name=name) for name in spec.channels),
        classes=tuple(LabelClass(value=c.value, name=c.name, color=c.color) for c in spec.classes),
    )
    options = {"batch_size": 4, "class_share": 0.5, **changes}
    return Plan(spec=spec.name, card=card, patch=patch, **options)


def read_everything(spec: DatasetSpec, split: str = "train"):
    with ExitStack() as stack:
        (reader,) = open_regions(spec, split, stack)
        return reader.read(full_window(reader.shape))


@pytest.fixture
def scene(tmp_path, dataset):
    """A spec over a scene of 80 x 90 pixels that encode their place, in three classes."""
    write_scene(tmp_path / "a.tif", positions((80, 90)).astype("float32"))
    labels = np.random.default_rng(0).integers(0, 3, (80, 90)).astype("uint8")
    write_scene(tmp_path / "labels.tif", labels)

    def scene(**changes) -> tuple[DatasetSpec, np.ndarray]:
        return dataset(**changes), labels

    return scene


@pytest.mark.parametrize("shape", [(7,), (10, 23), (5, 6, 7)])
@pytest.mark.parametrize("side", [1, 4, 5, 100])
def test_blocks_partition_a_window(shape, side):
    window = tuple(slice(3 + i, 3 + i + length) for i, length in enumerate(shape))
    hits = np.zeros([axis.stop + 2 for axis in window], int)
    for block in blocks(window, side):
        assert all(0 < axis.stop - axis.start <= side for axis in block)
        hits[block] += 1
    assert (hits[window] == 1).all()
    assert hits.sum() == np.prod(shape)


@pytest.mark.parametrize("class_share", [0.0, 0.5, 1.0])
def test_patches_of_a_scene_lie_inside_their_region(scene, class_share):
    spec, labels = scene(splits={"train": [{"case": "a", "rows": [11, 60], "cols": [30, 75]}]})
    starts = set()
    with PatchSampler(
        spec, made_plan(spec, (32, 16), class_share=class_share), augment=False
    ) as sampler:
        for step in range(25):
            values, valid, found = sampler.batch(step)
            assert values.shape == (4, 32, 16, 1)
            assert valid.all()
            for patch, patch_labels in zip(values, found, strict=True):
                rows, cols = decoded(patch, 2)
                assert rows.tolist() == list(range(rows[0], rows[0] + 32))
                assert cols.tolist() == list(range(cols[0], cols[0] + 16))
                assert rows[0] >= 11
                assert rows[-1] < 60
                assert cols[0] >= 30
                assert cols[-1] < 75
                np.testing.assert_array_equal(patch_labels, labels[np.ix_(rows, cols)])
                starts.add((int(rows[0]), int(cols[0])))
    # The region is used up to its corners.
    for axis, (low, high) in enumerate([(11, 28), (30, 59)]):
        places = [start[axis] for start in starts]
        assert (min(places), max(places)) == (low, high)


def test_patches_of_a_volume_lie_inside_their_region_in_canonical_axes(tmp_path, dataset):
    shape = (20, 24, 18)
    write_volume(tmp_path / "a.nii.gz", positions(shape))
    labels = np.random.default_rng(0).integers(0, 3, shape).astype("uint8")
    write_volume(tmp_path / "labels.nii.gz", labels)
    region = {"case": "a", "planes": [2, 12], "rows": [5, 17], "cols": [0, 9]}
    spec = dataset(ndim=3, splits={"train": [region]})
    with PatchSampler(spec, made_plan(spec, (8, 6, 4)), augment=False) as sampler:
        for step in range(10):
            values, _, found = sampler.batch(step)
            for patch, patch_labels in zip(values, found, strict=True):
                places = decoded(patch, 3)
                for place, side, (low, high) in zip(
                    places, (8, 6, 4), [(2, 12), (5, 17), (0, 9)], strict=True
                ):
                    assert place.tolist() == list(range(place[0], place[0] + side))
                    assert low <= place[0]
                    assert place[-1] < high
                np.testing.assert_array_equal(patch_labels, labels[np.ix_(*places)])


def test_a_region_smaller_than_the_patch_is_mirrored(scene):
    spec, labels = scene(splits={"train": [{"case": "a", "rows": [11, 21], "cols": [30, 75]}]})
    mirrored = np.pad(np.arange(11, 21), (0, 22), mode="reflect").tolist()
    with PatchSampler(spec, made_plan(spec, (32, 32)), augment=False) as sampler:
        for step in range(5):
            values, valid, found = sampler.batch(step)
            assert valid.all()
            for patch, patch_labels in zip(values, found, strict=True):
                rows, cols = decoded(patch, 2)
                assert rows.tolist() == mirrored
                assert cols.tolist() == list(range(cols[0], cols[0] + 32))
                np.testing.assert_array_equal(patch_labels, labels[np.ix_(rows, cols)])


def test_patches_come_from_all_regions_in_proportion_to_their_size(scene):
    spec, _ = scene(
        splits={
            "train": [{"case": "a", "cols": [0, 60]}, {"case": "a", "cols": [70, 90]}],
            "test": [{"case": "a", "cols": [60, 70]}],
        }
    )
    right = 0
    plan = made_plan(spec, (8, 8), class_share=0.0, batch_size=50)
    with PatchSampler(spec, plan, augment=False) as sampler:
        for step in range(4):
            for patch in sampler.batch(step)[0]:
                _, cols = decoded(patch, 2)
                assert cols[-1] < 60 or cols[0] >= 70
                right += cols[0] >= 70
    assert 30 < right < 70  # 20 of 80 columns: about 50 of 200


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("class_share", [0.0, 1.0])
def test_a_batch_follows_from_seed_and_step_alone(scene, augment, class_share):
    spec, _ = scene()

    def batch(step, seed=0, before=()):
        plan = made_plan(spec, (16, 16), seed=seed, class_share=class_share)
        with PatchSampler(spec, plan, augment=augment) as sampler:
            for earlier in before:
                sampler.batch(earlier)
            return sampler.batch(step)

    first = batch(7)
    for again in (batch(7), batch(7, before=(0, 9, 7))):
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], batch(8)[0])
    assert not np.array_equal(first[0], batch(7, seed=1)[0])


def test_augmentation_is_on_unless_switched_off(scene):
    spec, _ = scene()
    plan = made_plan(spec, (16, 16))
    with PatchSampler(spec, plan) as changed, PatchSampler(spec, plan, augment=False) as plain:
        whole = plain.batch(0)[0] % 1
        assert (whole == 0).all()
        assert (changed.batch(0)[0] % 1 != 0).any()


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 35, 100), (0.0, 0, 10)])
def test_rare_classes_are_drawn_as_often_as_frequent_ones(tmp_path, dataset, share, low, high):
    labels = np.zeros((120, 120), "uint8")
    labels[60, 70] = 2
    write_scene(tmp_path / "a.tif", positions(labels.shape).astype("float32"))
    write_scene(tmp_path / "labels.tif", labels)
    spec = dataset()
    plan = made_plan(spec, (16, 16), class_share=share, batch_size=100)
    with PatchSampler(spec, plan, augment=False) as sampler:
        labels_found = sampler.batch(0)[2]
    with_rare = sum(2 in patch for patch in labels_found)
    # Class 1 is absent: half of the patches are centred near the one pixel of class 2.
    assert low <= with_rare <= high


def test_a_patch_drawn_for_a_class_holds_the_pixel_it_was_drawn_for_at_a_corner(tmp_path, dataset):
    labels = np.full((64, 64), 255, "uint8")
    labels[0, 0] = labels[63, 63] = labels[0, 63] = 1
    write_scene(tmp_path / "a.tif", positions(labels.shape).astype("float32"))
    write_scene(tmp_path / "labels.tif", labels, nodata=255)
    spec = dataset()
    with PatchSampler(spec, made_plan(spec, (16, 16), class_share=1.0), augment=False) as sampler:
        for step in range(5):
            assert all((patch == 1).sum() == 1 for patch in sampler.batch(step)[2])


def test_a_pixel_without_a_label_or_a_value_is_ignored(tmp_path, dataset):
    image = np.ones((4, 5), "float32")
    image[0, 0], image[0, 1] = -9999, np.nan
    labels = np.array([[2, 2, 2, 2, 2], [0, 5, 9, 255, 2]] * 2, "uint8")
    write_scene(tmp_path / "a.tif", image, nodata=-9999)
    write_scene(tmp_path / "labels.tif", labels, nodata=255)
    spec = dataset(values=(5, 2, 0), ignore_values=[9])
    values, valid, index = read_everything(spec)
    assert values.dtype == np.float32
    assert valid.tolist() == [[False, False, True, True, True]] + [[True] * 5] * 3
    assert index.tolist() == [
        [IGNORE_INDEX, IGNORE_INDEX, 1, 1, 1],
        [2, 0, IGNORE_INDEX, IGNORE_INDEX, 1],
        [1, 1, 1, 1, 1],
        [2, 0, IGNORE_INDEX, IGNORE_INDEX, 1],
    ]


def test_valid_when_any_uses_a_pixel_with_one_good_channel(tmp_path, dataset):
    bands = np.array([[[1, -9, -9]], [[1, 1, -9]]], "float32")
    write_scene(tmp_path / "a.tif", *bands, nodata=-9)
    write_scene(tmp_path / "labels.tif", np.zeros((1, 3), "uint8"))
    options = {"channels": ["x", "y"]}
    assert read_everything(dataset(**options))[1].tolist() == [[True, False, False]]
    _, valid, index = read_everything(dataset(**options, valid_when="any"))
    assert valid.tolist() == [[True, True, False]]
    assert index.tolist() == [[0, 0, IGNORE_INDEX]]


def test_channels_come_in_the_order_of_the_spec(tmp_path, dataset):
    names = ("blue", "green", "red")
    bands = [np.full((3, 3), number, "uint8") for number in range(3)]
    write_scene(tmp_path / "a.tif", *bands, names=names)
    write_scene(tmp_path / "labels.tif", np.zeros((3, 3), "uint8"))
    values, _, _ = read_everything(dataset(channels=["red", "blue"]))
    assert values[1, 1].tolist() == [2, 0]
    with pytest.raises(ChannelError, match=r"a\.tif: has channels blue, green, red.*nir is miss"):
        read_everything(dataset(channels=["red", "nir"]))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_value_outside_the_class_table_is_named_with_its_file(tmp_path, dataset, ndim):
    labels = np.zeros((4,) * ndim, "uint8")
    labels[(1,) * ndim] = 77
    write = write_scene if ndim == 2 else write_volume
    suffix = ".tif" if ndim == 2 else ".nii.gz"
    write(tmp_path / f"a{suffix}", labels.astype("float32"))
    write(tmp_path / f"labels{suffix}", labels)
    spec = dataset(ndim=ndim)
    expected = r"labels\.\w+.*: holds label value 77; expected a class \(0, 1, 2\) or one of ignore"
    with pytest.raises(SpecError, match=expected) as caught:
        PatchSampler(spec, made_plan(spec, (4,) * ndim))
    assert str(caught.value).startswith(str(tmp_path / f"labels{suffix}"))


def test_a_value_outside_the_class_table_is_an_error_even_where_the_image_is_nodata(
    tmp_path, dataset
):
    write_scene(tmp_path / "a.tif", np.zeros((3, 3), "uint8"), nodata=0)
    write_scene(tmp_path / "labels.tif", np.full((3, 3), 8, "uint8"))
    with pytest.raises(SpecError, match="label value 8"):
        read_everything(dataset())


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_labels_of_another_shape_that_lie_nowhere_are_refused(tmp_path, dataset):
    write_scene(tmp_path / "a.tif", np.zeros((5, 6), "uint8"))
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", count=1, height=6, width=5, dtype="uint8"
    ) as out:
        out.write(np.zeros((1, 6, 5), "uint8"))
    with pytest.raises(ScanError, match=r"labels\.tif has shape \(6, 5\), .*a\.tif has \(5, 6\)"):
        read_everything(dataset())


def test_a_scene_in_a_spec_of_volumes_is_refused(tmp_path, dataset):
    write_scene(tmp_path / "a.tif", np.zeros((5, 6), "uint8"))
    write_scene(tmp_path / "labels.tif", np.zeros((5, 6), "uint8"))
    cases = [{"id": "a", "image": "a.tif", "labels": "labels.tif"}]
    with pytest.raises(SpecError, match=r"a\.tif: has 2 spatial axes; spec 'made' says ndim: 3"):
        read_everything(dataset(ndim=3, cases=cases))


def test_a_region_outside_the_scan_and_an_unknown_split_are_refused(scene):
    spec, _ = scene(splits={"train": [{"case": "a", "rows": [0, 81]}]})
    with pytest.raises(SpecError, match=r"rows \[0, 81\] is not inside the scan.* 80 rows"):
        PatchSampler(spec, made_plan(spec, (8, 8)))
    with pytest.raises(SpecError, match="no regions in split 'test'"):
        PatchSampler(spec, made_plan(spec, (8, 8)), split="test")


def test_a_missing_file_is_named(dataset, tmp_path):
    spec = dataset()
    with pytest.raises(ScanNotFoundError, match=str(tmp_path / "a.tif")):
        PatchSampler(spec, made_plan(spec, (8, 8)))


def test_a_split_without_labels_is_refused(tmp_path, dataset):
    write_scene(tmp_path / "a.tif", np.zeros((5, 6), "uint8"))
    write_scene(tmp_path / "labels.tif", np.full((5, 6), 255, "uint8"), nodata=255)
    spec = dataset()
    with pytest.raises(SpecError, match="split 'train' of 'made' has no labelled pixel"):
        PatchSampler(spec, made_plan(spec, (4, 4)))


def test_a_closed_sampler_reads_no_more(scene):
    spec, _ = scene()
    with PatchSampler(spec, made_plan(spec, (8, 8))) as sampler:
        sampler.batch(0)
    with pytest.raises(ValueError, match="read after the dataset was closed"):
        sampler.batch(0)


def test_a_sample_follows_from_seed_epoch_and_index(scene):
    spec, _ = scene()
    plan = made_plan(spec, (16, 16), batch_size=3)
    with PatchSampler(spec, plan) as sampler:
        batch = sampler.batch(4, epoch=2)
        for place in range(3):
            for one, of_batch in zip(sampler.sample(2, 12 + place), batch, strict=True):
                np.testing.assert_array_equal(one, of_batch[place])
        others = [sampler.batch(4)[0], sampler.batch(4, epoch=1)[0], batch[0]]
        assert len({values.tobytes() for values in others}) == 3
    wider = plan.model_copy(update={"batch_size": 12})
    with PatchSampler(spec, wider) as sampler:
        for a, b in zip(sampler.batch(1, epoch=2), batch, strict=True):
            np.testing.assert_array_equal(a[:3], b)


class Counting:
    """Passes everything on and counts the pixels that are read."""

    def __init__(self, scan):
        self.scan, self.pixels = scan, 0

    def __getattr__(self, name):
        return getattr(self.scan, name)

    def read(self, window, channels=None):
        patch = self.scan.read(window, channels)
        self.pixels += patch.values[..., 0].size
        return patch


def test_only_windows_are_read(scene, monkeypatch):
    spec, _ = scene()
    with PatchSampler(spec, made_plan(spec, (16, 8))) as sampler:
        opened = sampler._regions[0].scans
        image = Counting(opened.image(spec.cases[0]))
        monkeypatch.setattr(opened, "image", lambda case: image)
        sampler.batch(0)
    assert image.pixels == 4 * 16 * 8


@pytest.mark.parametrize(("others", "least"), [("labelled", 100), ("anywhere", 0)])
def test_with_few_labels_patches_lie_where_there_are_some(tmp_path, dataset, others, least):
    labels = np.full((200, 200), 255, "uint8")
    labels[40, 30], labels[150, 160], labels[150:153, 20] = 1, 2, 1
    write_scene(tmp_path / "a.tif", positions(labels.shape).astype("float32"))
    write_scene(tmp_path / "labels.tif", labels, nodata=255)
    spec = dataset()
    plan = made_plan(spec, (16, 16), class_share=0, other_patches=others, batch_size=100)
    with PatchSampler(spec, plan, augment=False) as sampler:
        values, _, found = sampler.batch(0)
    with_labels = [(patch >= 0).any() for patch in found]
    assert least <= sum(with_labels) <= least + 20
    if others == "labelled":
        # The pixel may be anywhere in the patch, and pixels count, not classes.
        rows = {int(decoded(patch, 2)[0][0]) for patch, one in zip(values, found, strict=True)
                if (one == 2).any()}  # fmt: skip
        assert len(rows) > 5
        assert sum((one == 2).any() for one in found) < 40


def test_the_plan_says_which_classes_patches_are_centred_on(tmp_path, dataset):
    labels = np.zeros((120, 120), "uint8")
    labels[20, 20], labels[100, 100] = 1, 2
    write_scene(tmp_path / "a.tif", positions(labels.shape).astype("float32"))
    write_scene(tmp_path / "labels.tif", labels)
    spec = dataset()
    shares = {}
    for chances in ((0, 3, 1), (0, 0, 1), (1, 0, 0)):
        plan = made_plan(spec, (16, 16), class_share=1, class_chances=chances, batch_size=100)
        with PatchSampler(spec, plan, augment=False) as sampler:
            found = sampler.batch(0)[2]
        shares[chances] = [sum((patch == k).any() for patch in found) for k in (1, 2)]
    assert 60 < shares[0, 3, 1][0] < 90
    assert sum(shares[0, 3, 1]) == 100
    assert shares[0, 0, 1] == [0, 100]
    assert max(shares[1, 0, 0]) < 15
    spec = dataset(values=(0, 1, 2, 9))
    plan = made_plan(spec, (16, 16), class_chances=(0, 0, 0, 1))
    with pytest.raises(SpecError, match=r"class_chances.*are 0 for all classes that split"):
        PatchSampler(spec, plan)


def test_frequent_and_rare_classes_are_drawn_equally_often(tmp_path, dataset):
    labels = np.full((200, 200), 255, "uint8")
    labels[:100], labels[180, 180], labels[150, 20:26] = 0, 1, 2
    write_scene(tmp_path / "a.tif", positions(labels.shape).astype("float32"))
    write_scene(tmp_path / "labels.tif", labels, nodata=255)
    plan = made_plan(dataset(), (16, 16), class_share=1, batch_size=300)
    with PatchSampler(dataset(), plan, augment=False) as sampler:
        found = sampler.batch(0)[2]
    for k in (0, 1, 2):
        assert 70 < sum((patch == k).any() for patch in found) < 130


def test_volumes_are_turned_in_the_planes_of_their_spacing(tmp_path, dataset):
    planes = np.broadcast_to(np.arange(9.0), (24, 24, 9)).astype(np.float32)
    for name, values in (("a", planes), ("labels", planes.astype(np.uint8) // 4)):
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 6, 1])), tmp_path / f"{name}.nii.gz")
    turned = Augmentation(rotation=Change(probability=1, range=(20, 60)))
    plan = made_plan(dataset(3), (24, 24, 9), augmentation=turned, mirror_axes=())
    with PatchSampler(dataset(3), plan) as sampler:
        values, valid, _ = sampler.batch(0)
    assert 0.5 < valid.mean() < 0.99  # turned: corners come from beyond
    expected = np.broadcast_to(planes, valid.shape)
    np.testing.assert_allclose(values[..., 0][valid], expected[valid], atol=1e-3)


def test_a_kept_index_is_used(scene, tmp_path, monkeypatch):
    spec, _ = scene()
    plan, path = made_plan(spec, (16, 16)), tmp_path / "index.npz"
    with PatchSampler(spec, plan, index_path=path) as sampler:
        expected = sampler.batch(3)
        assert not path.exists()  # its folder may not be there yet
        sampler.keep_index()
    monkeypatch.setattr("segfocal.data.sampling.build_index", None)
    with PatchSampler(spec, plan, index_path=path) as sampler:
        for a, b in zip(sampler.batch(3), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def write_ramp(folder: Path, name: str, spacing: tuple[float, ...], lengths: tuple[int, ...]):
    """Write a volume whose values are positions in mm along each axis, and stripes as labels."""
    shape = tuple(round(a / b) for a, b in zip(lengths, spacing, strict=True))
    centres = [(np.arange(n) + 0.5) * side for n, side in zip(shape, spacing, strict=True)]
    grid = np.meshgrid(*centres, indexing="ij")
    affine = np.diag([*spacing, 1.0])
    image = np.stack(grid, -1).astype("float32")
    nib.save(nib.Nifti1Image(image, affine), folder / f"{name}.nii.gz")
    labels = (grid[0] > 0.6 * lengths[0]).astype("uint8") + (grid[1] > 0.5 * lengths[1])
    nib.save(nib.Nifti1Image(labels.astype("uint8"), affine), folder / f"{name}_labels.nii.gz")


def test_volumes_are_resampled_to_the_resolution_of_the_plan(tmp_path, dataset):
    lengths = (48, 60, 40)
    for name, spacing in (("a", (1, 1, 1)), ("b", (2, 1.5, 1)), ("c", (0.8, 2, 2))):
        write_ramp(tmp_path, name, spacing, lengths)
    cases = [
        {"id": n, "image": f"{n}.nii.gz", "labels": f"{n}_labels.nii.gz"} for n in ("a", "b", "c")
    ]
    spec = dataset(
        ndim=3, channels=["x", "y", "z"], cases=cases,
        splits={"train": [{"case": n} for n in "abc"]},
    )  # fmt: skip
    plan = made_plan(spec, (16, 16, 16), batch_size=12)
    card = plan.card.model_copy(update={"resolution": (1.0, 1.0, 1.0)})
    plan = plan.model_copy(update={"card": card, "resample": True})
    with PatchSampler(spec, plan, augment=False) as sampler:
        assert [reader.shape for reader in sampler._regions] == [lengths] * 3
        values, valid, labels = sampler.batch(0)
    assert valid.all()
    steps = []
    for patch, found in zip(values, labels, strict=True):
        for axis in range(3):
            along = np.diff(patch[..., axis], axis=axis)
            inner = np.take(along, range(4, 11), axis)
            steps.append(np.median(inner))  # a voxel is a millimetre
            across = np.ptp(patch[..., axis], axis=tuple(a for a in range(3) if a != axis))
            assert across.max() < 1e-4
        # The label is that of the place, half a coarse voxel aside at most.
        expected = (patch[..., 0] > 28.8).astype(int) + (patch[..., 1] > 30)
        clear = (np.abs(patch[..., 0] - 28.8) > 1.5) & (np.abs(patch[..., 1] - 30) > 1.5)
        np.testing.assert_array_equal(found[clear], expected[clear])
    np.testing.assert_allclose(steps, 1, atol=0.02)


def test_a_resampled_region_takes_nothing_from_outside(tmp_path, dataset):
    image = np.zeros((30, 30, 30), "float32")
    image[:, 10:20] = 1
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    nib.save(
        nib.Nifti1Image(image.astype("uint8"), np.diag([2.0, 2, 2, 1])), tmp_path / "labels.nii.gz"
    )
    spec = dataset(ndim=3, splits={"train": [{"case": "a", "rows": [10, 20]}]})
    for resolution in (1.3, 3.1):
        with ExitStack() as stack:
            (reader,) = open_regions(spec, "train", stack, resolution=(resolution,) * 3)
            values, valid, labels = reader.read(reader.window)
        assert valid.all()
        np.testing.assert_array_equal(values, 1)
        np.testing.assert_array_equal(labels, 1)
        assert values.shape[1] == pytest.approx(20 / resolution, abs=2)
    spec = dataset(ndim=3, splits={"train": [{"case": "a", "rows": [0, 10]}]})
    with ExitStack() as stack, pytest.raises(SpecError, match="holds none of 50 x 50 x 50"):
        open_regions(spec, "train", stack, resolution=(50, 50, 50))


def test_volumes_are_normalized_by_their_own_numbers(tmp_path, dataset):
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    for name, scale in (("a", 1), ("b", 5000)):
        image = (scale * rng.normal(3, 2, (20, 20, 20))).astype("float32")
        nib.save(nib.Nifti1Image(image, affine), tmp_path / f"{name}.nii.gz")
    write_volume(tmp_path / "labels.nii.gz", np.ones((20, 20, 20), "uint8"))
    cases = [{"id": n, "image": f"{n}.nii.gz", "labels": "labels.nii.gz"} for n in "ab"]
    spec = dataset(ndim=3, cases=cases, splits={"train": [{"case": n} for n in "ab"]})
    plan = made_plan(spec, (20, 20, 20), batch_size=6)
    normalization = Normalization(method="zscore", region="valid")
    card = plan.card.model_copy(update={"normalization": normalization})
    with PatchSampler(spec, plan.model_copy(update={"card": card}), augment=False) as sampler:
        assert set(sampler.measured) == {"a", "b"}
        values = sampler.batch(0)[0]
    np.testing.assert_allclose(values.mean((1, 2, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(values.std((1, 2, 3, 4)), 1, atol=1e-4)
    assert len(np.unique(values[:, 5, 5, 5])) == 2
