"""Shipped specs against what the publishers say: codes, channels and splits by name.

Files are read with GDAL and nibabel beside the spec's own reading, and what the spec makes of
them is compared by class and channel name with ``published_facts``.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
import rasterio
from published_facts import FACTS, IGNORED, TOTALSEGMENTATOR, Facts
from rasterio.errors import NotGeoreferencedWarning
from test_public_specs import DATA_SPECS, MINIATURES

from segfocal.data.reading import RegionReader, open_regions
from segfocal.data.spec import DatasetSpec, load_spec
from segfocal.types import full_window

OTHERWISE = {"spacenet2", "totalsegmentator"}
"""Told by polygons or a file for each class: tests of their own below."""


def raw(path) -> np.ndarray:
    """Return what a file holds, ``(*space, bands)``."""
    if path.name.endswith(".nii.gz"):
        values = np.asanyarray(nib.load(path).dataobj)
        return values if values.ndim == 4 else values[..., None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.moveaxis(file.read(), 0, -1)


def opened(spec: DatasetSpec, case: str, stack: ExitStack) -> RegionReader:
    split = next(s for s in spec.split_names if case in {r.case for r in spec.regions(s)})
    readers = open_regions(spec, split, stack)
    return next(reader for reader in readers if reader.case.id == case)


def meanings(facts: Facts, stored: np.ndarray) -> dict[str, np.ndarray]:
    """Return by name where a label file holds one of its codes; of colours the nearest."""
    rows = [entry.strip().split(" ", 1) for entry in facts.codes.split(",")]
    found = {name: np.zeros(stored.shape[:-1], bool) for _, name in rows}
    if stored.shape[-1] == 3:
        colors = np.array([list(bytes.fromhex(code)) for code, _ in rows])
        away = np.abs(stored[..., None, :].astype(int) - colors).sum(-1)
        for k, (_, name) in enumerate(rows):
            found[name] |= np.argmin(away, -1) == k
        return found
    for code, name in rows:
        found[name] |= stored[..., 0] == int(code)
    return found


@pytest.mark.parametrize("name", sorted(FACTS))
def test_codes_and_channels_mean_what_is_published(name, tmp_path):
    MINIATURES[name](tmp_path)
    facts = FACTS[name]
    spec = load_spec(DATA_SPECS / f"{name}.yaml", root=tmp_path)
    with ExitStack() as stack:
        reader = opened(spec, facts.case, stack)
        window = full_window(reader.shape)
        values, valid, _ = reader.read(window)
        index = reader.read_labels(window)
        known = reader.known_classes(index)
    expected = meanings(facts, raw(tmp_path / facts.labels))
    assert {c.name for c in spec.classes} == set(expected) - {IGNORED}
    for k, label in enumerate(spec.classes):
        found = known[..., k] == 1 if spec.task == "regions" else index == k
        np.testing.assert_array_equal(found, expected[label.name], label.name)
        assert found.any()
    nothing = expected.get(IGNORED, np.zeros(index.shape, bool))
    np.testing.assert_array_equal(index < 0, nothing, IGNORED)
    bands = np.concatenate([raw(tmp_path / file) for file in facts.images], -1)
    channels = facts.channels.split()
    assert bands.shape[-1] == len(channels) == len(spec.channels)
    assert len({band.tobytes() for band in np.moveaxis(bands, -1, 0)}) == len(channels)
    for k, channel in enumerate(spec.channels):
        stored = bands[..., channels.index(channel)] * facts.scale
        np.testing.assert_allclose(values[valid, k], stored[valid], 1e-6, err_msg=channel)
    assert valid.mean() > 0.9


@pytest.mark.parametrize("name", sorted(n for n in FACTS if FACTS[n].splits))
def test_splits_are_those_that_are_published(name, tmp_path):
    MINIATURES[name](tmp_path)
    spec = load_spec(DATA_SPECS / f"{name}.yaml", root=tmp_path)
    found = {s: {region.case for region in spec.regions(s)} for s in spec.split_names}
    published = dict(FACTS[name].splits)
    rest = published.pop("rest", None)
    for split, cases in published.items():
        assert found.pop(split) == cases, split
    if rest is None:
        assert FACTS[name].splits.keys() == {"test"} or not found
    else:
        assert set.union(*found.values()) == rest
        assert found.keys() <= {"train", "val"}


def test_polygons_of_spacenet2_are_buildings(tmp_path):
    pytest.importorskip("pyogrio")
    MINIATURES["spacenet2"](tmp_path)
    spec = load_spec(DATA_SPECS / "spacenet2.yaml", root=tmp_path)
    with ExitStack() as stack:
        reader = opened(spec, "2_Vegas_1", stack)
        values, _, index = reader.read(full_window(reader.shape))
    inside = np.zeros((20, 20), bool)
    inside[2:9, 2:9] = True
    names = np.array([label.name for label in spec.classes])[index]
    np.testing.assert_array_equal(names, np.where(inside, "building", "other"))
    file = "AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif"
    np.testing.assert_array_equal(values, raw(tmp_path / file))
    assert spec.channels == ("red", "green", "blue")


def test_files_of_totalsegmentator_are_its_classes(tmp_path):
    MINIATURES["totalsegmentator"](tmp_path)
    spec = load_spec(DATA_SPECS / "totalsegmentator.yaml", root=tmp_path)
    with ExitStack() as stack:
        reader = opened(spec, "s0001", stack)
        index = reader.read(full_window(reader.shape))[2]
    names = np.array([label.name for label in spec.classes])[index]
    masks = sorted((tmp_path / "s0001" / "segmentations").glob("*.nii.gz"))
    assert len(masks) == 4
    for path in masks:
        inside = raw(path)[..., 0] > 0
        np.testing.assert_array_equal(names == path.name.removesuffix(".nii.gz"), inside)
    numbers = {label.value: label.name for label in spec.classes}
    assert numbers == {0: "background", **dict(enumerate(TOTALSEGMENTATOR, 1))}


def test_the_facts_of_every_miniature_are_stated():
    assert set(FACTS) | OTHERWISE == set(MINIATURES)
