"""Workers change neither what batches hold nor their order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from test_sampling import dataset, made_plan, positions, write_scene, write_volume  # noqa: F401

from segfocal.data.augmentation import default_augmentation
from segfocal.data.sampling import PatchSampler
from segfocal.data.workers import BatchWorkers, SamplerRecipe
from segfocal.errors import ScanError


@pytest.fixture
def recipe(tmp_path, dataset):  # noqa: F811
    def recipe(ndim=2, **changes) -> SamplerRecipe:
        shape = (80, 90) if ndim == 2 else (20, 24, 18)
        write, suffix = (write_scene, ".tif") if ndim == 2 else (write_volume, ".nii.gz")
        write(tmp_path / f"a{suffix}", positions(shape).astype("float32"))
        labels = np.random.default_rng(0).integers(0, 3, shape).astype("uint8")
        write(tmp_path / f"labels{suffix}", labels)
        spec = dataset(ndim=ndim)
        patch = (16,) * ndim
        plan = made_plan(spec, patch, augmentation=default_augmentation(patch), batch_size=3)
        return SamplerRecipe(spec, plan, **changes)

    return recipe


def batches(recipe, order, **options):
    with BatchWorkers(recipe, 4, **options) as workers:
        return [workers.get(epoch, number) for epoch, number in order]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


TWO_EPOCHS = [(epoch, number) for epoch in range(2) for number in range(4)]


@pytest.mark.parametrize("ndim", [2, 3])
def test_batches_do_not_depend_on_the_number_of_threads_nor_on_the_cache(recipe, ndim, tmp_path):
    expected = batches(recipe(ndim), TWO_EPOCHS, workers=0)
    assert len({values.tobytes() for values, _, _ in expected}) == 8
    for workers, changes in (
        (1, {}),
        (3, {"cache_bytes": 10**7}),
        (2, {"cache_bytes": 10**5, "cache_folder": tmp_path / "cache"}),
        (0, {"cache_bytes": 10**7}),
    ):
        assert_same(batches(recipe(ndim, **changes), TWO_EPOCHS, workers=workers), expected)
    assert list((tmp_path / "cache").iterdir()) == []


def test_batches_of_processes_are_the_same(recipe):
    order = TWO_EPOCHS[2:6]
    made = batches(recipe(3, cache_bytes=10**6), order, workers=2, processes=True)
    assert_same(made, batches(recipe(3), order, workers=0))


def test_any_batch_may_be_asked_for_again(recipe):
    order = [(0, 0), (0, 1), (0, 0), (0, 1), (0, 2), (1, 3), (0, 1)]
    assert_same(batches(recipe(), order, workers=2), batches(recipe(), order, workers=0))


def test_no_more_is_made_ahead_than_is_soon_needed(recipe):
    with BatchWorkers(recipe(), 100, workers=2) as workers:
        for number in range(20):
            workers.get(0, number)
            assert len(workers._made) <= 2 + 2 + 2 + 1


def test_an_error_in_a_worker_is_raised_where_the_batch_is_asked_for(recipe, monkeypatch):
    def batch(sampler, number, epoch):
        if number == 3:
            raise ScanError("a.tif: damaged")
        return number

    monkeypatch.setattr(PatchSampler, "batch", batch)
    with BatchWorkers(recipe(), 100, workers=2) as workers:
        assert [workers.get(0, number) for number in range(3)] == [0, 1, 2]
        with pytest.raises(ScanError, match=r"a\.tif: damaged"):
            workers.get(0, 3)


def test_threads_and_files_are_gone_after_closing(recipe):
    before = threading.active_count()
    with BatchWorkers(recipe(), 4, workers=3) as workers:
        workers.get(0, 0)
        assert threading.active_count() > before
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        workers.get(0, 3)
