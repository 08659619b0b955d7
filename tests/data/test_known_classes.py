"""Labels of patches where a class index does not say all: overlapping regions, part annotated."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from scipy import ndimage
from test_sampling import (  # noqa: F401
    dataset,
    decoded,
    made_plan,
    positions,
    write_scene,
    write_volume,
)

from segfocal.data.augmentation import Augmentation, Change
from segfocal.data.class_index import build_index
from segfocal.data.fingerprint import measure
from segfocal.data.plan import Plan
from segfocal.data.reading import open_regions
from segfocal.data.sampling import PatchSampler
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError

WHOLE, CORE, ACTIVE = {1, 2, 4}, {1, 4}, {4}
"""Label values that make up each region, as in BraTS: 1 necrosis, 2 edema, 4 enhancing."""

TUMOUR = [
    {"value": 1, "name": "whole", "from": sorted(WHOLE)},
    {"value": 2, "name": "core", "from": sorted(CORE)},
    {"value": 3, "name": "active", "from": sorted(ACTIVE)},
]

BENT = Augmentation(
    quarter_turns=True,
    rotation=Change(probability=1, range=(-60, 60)),
    scaling=Change(probability=1, range=(0.7, 1.4)),
    elastic=Change(probability=1, range=(1, 1.5)),
)


def plan_of(spec: DatasetSpec, patch: tuple[int, ...], **changes) -> Plan:
    plan = made_plan(spec.model_copy(update={"task": "classes"}), patch, **changes)
    return plan.model_copy(update={"card": plan.card.model_copy(update={"task": "regions"})})


def truth(values: np.ndarray, ignored: int = 255) -> np.ndarray:
    """What the values of a label file say of each region."""
    inside = [np.isin(values, sorted(region)) for region in (WHOLE, CORE, ACTIVE)]
    return np.where((values == ignored)[..., None], -1, np.stack(inside, -1))


def blobs(shape: tuple[int, ...]) -> np.ndarray:
    """A tumour inside of what is in no region, with a corner that is not labelled."""
    centre = np.array(shape) / 2
    away = np.linalg.norm((np.indices(shape).T + 0.5 - centre) / centre, axis=-1).T
    values = np.select([away < 0.3, away < 0.5, away < 0.8], [4, 1, 2], 0)
    values[tuple(slice(0, side // 6) for side in shape)] = 255
    return values.astype("uint8")


@pytest.fixture
def tumour(tmp_path, dataset):  # noqa: F811
    """Return a function that makes a spec of regions over one scan, and its label values."""

    def tumour(shape=(80, 90), **changes):
        values = blobs(shape)
        if len(shape) == 2:
            write_scene(tmp_path / "a.tif", positions(shape).astype("float32"))
            write_scene(tmp_path / "labels.tif", values, nodata=255)
        else:
            write_volume(tmp_path / "a.nii.gz", positions(shape))
            write_volume(tmp_path / "labels.nii.gz", values)
        more = {"task": "regions", "classes": TUMOUR, "ignore_values": [255], **changes}
        return dataset(ndim=len(shape), **more), values

    return tumour


@pytest.mark.parametrize(("shape", "patch"), [((80, 90), (32, 16)), ((16, 24, 18), (8, 12, 6))])
def test_labels_of_regions_are_those_of_the_file(tumour, shape, patch):
    spec, values = tumour(shape)
    seen = set()
    with PatchSampler(spec, plan_of(spec, patch), augment=False) as sampler:
        for step in range(8):
            images, _, labels = sampler.batch(step)
            assert labels.shape == (4, *patch, 3)
            for image, own in zip(images, labels, strict=True):
                places = np.ix_(*decoded(image, len(shape)))
                np.testing.assert_array_equal(own, truth(values[places]))
                seen |= set(map(tuple, own.reshape(-1, 3).tolist()))
    nested = {(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (-1, -1, -1)}
    assert seen == nested


@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 32)])
def test_regions_are_bent_with_the_image_and_ignored_beyond_it(tmp_path, dataset, shape):  # noqa: F811
    values = blobs(shape)
    values[values == 255] = 0
    suffix = ".tif" if len(shape) == 2 else ".nii.gz"
    write = write_scene if len(shape) == 2 else write_volume
    write(tmp_path / f"a{suffix}", 100 * values.astype("float32"))
    write(tmp_path / f"labels{suffix}", values)
    spec = dataset(ndim=len(shape), task="regions", classes=TUMOUR)
    plan = plan_of(spec, shape, mirror_axes=tuple(range(len(shape))))
    plan = plan.model_copy(update={"augmentation": BENT})
    borders = 0
    with PatchSampler(spec, plan) as sampler:
        for index in range(6):
            image, valid, labels = sampler.sample(0, index)
            rows = {tuple(row) for row in labels.reshape(-1, 3).tolist()}
            assert rows <= {(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (-1, -1, -1)}
            unknown = labels < 0
            np.testing.assert_array_equal(unknown, ~valid[..., None].repeat(3, -1))
            borders += unknown.sum()
            # Where the image holds one value around a pixel, that is the file's value there.
            low, high = (f(image[..., 0], 3) for f in (ndimage.minimum_filter,
                                                       ndimage.maximum_filter))  # fmt: skip
            clear = valid & (high - low < 1e-2)
            assert clear.sum() > 0.1 * clear.size
            file_values = np.round(image[..., 0] / 100).astype(int)
            np.testing.assert_array_equal(labels[clear], truth(file_values)[clear])
    assert borders > 0


@pytest.mark.parametrize(("region", "inside"), [(0, WHOLE), (1, CORE), (2, ACTIVE)])
def test_patches_are_centred_on_the_region_that_is_drawn(tumour, region, inside):
    spec, values = tumour()
    chances = tuple(float(k == region) for k in range(3))
    plan = plan_of(spec, (9, 9), class_share=1.0, class_chances=chances, batch_size=60)
    hits = dict.fromkeys(sorted(inside), 0)
    with PatchSampler(spec, plan, augment=False) as sampler:
        places = sampler.index.positions
        assert [len(rows) for rows in places] == [int((values == v).sum()) for v in (0, 1, 2, 4)]
        for step in range(10):
            for image, own in zip(*sampler.batch(step)[::2], strict=True):
                assert (own[..., region] == 1).any()
                rows, cols = decoded(image, 2)
                middle = int(values[rows[4], cols[4]])
                hits[middle] = hits.get(middle, 0) + 1
    # Each of the region's pixels has the same chance, whatever value it has in the file.
    # (The middle of a patch lies up to two pixels beside the pixel that was drawn.)
    total = sum((values == v).sum() for v in inside)
    for value in inside:
        assert hits[value] / 600 == pytest.approx((values == value).sum() / total, abs=0.15)


def test_regions_are_measured_each(tumour):
    spec, values = tumour()
    with ExitStack() as stack:
        found = measure(spec, open_regions(spec, "train", stack))
    expected = [(truth(values)[..., k] == 1).sum() for k in range(3)]
    assert found.class_pixels.tolist() == expected
    labelled = (values != 255).sum()
    assert found.fingerprint.labelled == pytest.approx(labelled / values.size)
    assert found.fingerprint.class_shares == pytest.approx([n / labelled for n in expected])
    inside = positions(values.shape)[np.isin(values, sorted(WHOLE))]
    assert found.fingerprint.foreground[0].percentiles == pytest.approx(
        np.percentile(inside.astype("float32"), [0.5, 50, 99.5]), rel=1e-6
    )


def test_a_split_without_a_pixel_in_a_region_is_refused(tumour, tmp_path):
    spec, values = tumour()
    write_scene(tmp_path / "labels.tif", np.zeros_like(values))
    with pytest.raises(SpecError, match="split 'train' of 'made' has no pixel in a region"):
        PatchSampler(spec, plan_of(spec, (8, 8)))


def test_a_region_that_was_not_looked_for_is_unknown(tumour):
    case = {"id": "a", "image": "a.tif", "labels": "labels.tif", "annotated": ["whole", "active"]}
    spec, values = tumour(cases=[case])
    with PatchSampler(spec, plan_of(spec, (32, 32)), augment=False) as sampler:
        image, _, labels = sampler.sample(0, 0)
    expected = truth(values[np.ix_(*decoded(image, 2))])
    assert (labels[..., 1] == -1).all()
    np.testing.assert_array_equal(labels[..., [0, 2]], expected[..., [0, 2]])


@pytest.fixture
def partial(tmp_path, dataset):  # noqa: F811
    """Two scenes with classes 0 to 3; in the second nobody looked for class 2."""
    rng = np.random.default_rng(0)
    values = {}
    for name, known in (("a", (0, 1, 2, 3)), ("b", (0, 1, 3))):
        values[name] = rng.choice([*known, 255], (40, 44)).astype("uint8")
        place = positions((40, 44)) + (500 if name == "b" else 0)
        write_scene(tmp_path / f"{name}.tif", place.astype("float32"))
        write_scene(tmp_path / f"{name}_labels.tif", values[name], nodata=255)
    cases = [{"id": name, "image": f"{name}.tif", "labels": f"{name}_labels.tif"} for name in "ab"]
    cases[1]["annotated"] = ["c0", "c1", "c3"]

    def partial(values_of_classes=(0, 1, 2, 3), **changes):
        return dataset(
            values=values_of_classes,
            cases=cases,
            splits={"train": [{"case": "a"}, {"case": "b"}]},
            **changes,
        )

    return partial, values


def possible(value: int, looked_for: set[int], values: tuple[int, ...]) -> list[int]:
    """What is known of a pixel, in the words of the specification."""
    if value == 255:  # unlabelled: it may be anything
        return [1] * len(values)
    may_be = {value} | (set(values) - looked_for if value == 0 else set())
    return [int(v in may_be) for v in values]


def test_the_rest_may_be_of_a_class_that_nobody_looked_for(partial):
    make, values = partial
    spec = make()
    with PatchSampler(spec, made_plan(spec, (16, 16)), augment=False) as sampler:
        seen = set()
        for index in range(12):
            image, _, labels = sampler.sample(0, index)
            name = "ab"[int(image[0, 0, 0]) % 1000 >= 500]
            seen.add(name)
            rows, cols = decoded(image - (500 if name == "b" else 0), 2)
            looked_for = {0, 1, 2, 3} if name == "a" else {0, 1, 3}
            for own, row in zip(labels, rows, strict=True):
                for found, col in zip(own, cols, strict=True):
                    value = int(values[name][row, col])
                    assert found.tolist() == possible(value, looked_for, (0, 1, 2, 3))
    assert seen == {"a", "b"}


def test_labels_are_class_indices_where_everything_was_looked_for(partial):
    make, _ = partial
    whole = make().model_copy(update={"splits": {"train": make().splits["train"][:1]}})
    with PatchSampler(whole, made_plan(whole, (16, 16)), augment=False) as sampler:
        labels = sampler.batch(0)[2]
    assert labels.shape == (4, 16, 16)
    assert set(np.unique(labels)) == {-1, 0, 1, 2, 3}


def test_without_a_rest_a_class_that_was_not_looked_for_changes_nothing(tmp_path, dataset):  # noqa: F811
    values = np.random.default_rng(0).choice([5, 6, 7], (24, 24)).astype("uint8")
    write_scene(tmp_path / "a.tif", positions((24, 24)).astype("float32"))
    write_scene(tmp_path / "labels.tif", values)
    case = {"id": "a", "image": "a.tif", "labels": "labels.tif", "annotated": ["c5", "c6"]}
    spec = dataset(values=(5, 6, 7), cases=[case])
    with PatchSampler(spec, made_plan(spec, (24, 24)), augment=False) as sampler:
        image, _, labels = sampler.sample(0, 0)
    own = values[np.ix_(*decoded(image, 2))]
    # All is possible where it is labelled as what nobody looked for: the losses leave it out.
    expected = np.where((own == 7)[..., None], 1, own[..., None] == [5, 6, 7])
    np.testing.assert_array_equal(labels, expected)


def test_the_index_of_regions_is_built_over_all_labels(tumour):
    spec, values = tumour(splits={"train": [{"case": "a", "rows": [0, 40]}]})
    with ExitStack() as stack:
        index = build_index(open_regions(spec, "train", stack), 0)
    assert index.counts == tuple(int((values[:40] == v).sum()) for v in (0, 1, 2, 4))
    for value, rows in zip((0, 1, 2, 4), index.positions, strict=True):
        assert (values[rows[:, 1], rows[:, 2]] == value).all()
