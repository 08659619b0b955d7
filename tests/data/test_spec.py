"""Dataset specs: the shipped ones, and what a wrong one is told."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

import segfocal
from segfocal.data.regions import refuse_shared_pixels
from segfocal.data.spec import Case, DatasetSpec, Region, load_spec
from segfocal.errors import SpecError

DATA_SPECS = Path(__file__).resolve().parents[2] / "data_specs"
SAMPLES = Path(segfocal.__file__).parent / "samples"


def document(**changes: object) -> dict[str, object]:
    value: dict[str, object] = {
        "name": "fields",
        "ndim": 2,
        "channels": ["red", "nir"],
        "classes": [
            {"value": 0, "name": "other", "color": [0, 0, 0]},
            {"value": 5, "name": "wheat", "color": [200, 180, 40]},
        ],
        "cases": [
            {"id": "a", "image": "images/a.tif", "labels": "labels/a.tif"},
            {"id": "b", "image": "images/b.tif", "labels": "labels/b.tif"},
        ],
        "splits": {"train": [{"case": "a"}], "test": [{"case": "b"}]},
    }
    value.update(changes)
    return {key: entry for key, entry in value.items() if entry is not None}


@pytest.fixture
def load(tmp_path):
    def load(**changes: object) -> DatasetSpec:
        path = tmp_path / "fields.yaml"
        path.write_text(yaml.safe_dump(document(**changes), sort_keys=False), encoding="utf-8")
        return load_spec(path)

    return load


@pytest.fixture
def complaint(load, tmp_path):
    def complaint(**changes: object) -> str:
        with pytest.raises(SpecError) as caught:
            load(**changes)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'fields.yaml'}: ")
        return message

    return complaint


def splits_3d(train: dict, test: dict) -> dict[str, object]:
    return {
        "ndim": 3,
        "splits": {"train": [{"case": "a", **train}], "test": [{"case": "a", **test}]},
    }


def splits_2d(train: dict, test: dict) -> dict[str, object]:
    return {**splits_3d(train, test), "ndim": 2}


@pytest.mark.parametrize("name", ["nc_landcover", "spine_ct"])
def test_a_shipped_spec_loads_and_its_files_are_there(name):
    spec = load_spec(DATA_SPECS / f"{name}.yaml")
    assert spec.name == name
    for case in spec.cases:
        for entry in (case.image, case.labels):
            assert spec.path(entry).is_file()
            assert spec.path(entry).is_relative_to(SAMPLES)
    assert set(spec.splits) == {"train", "test"}
    assert spec.licence
    assert spec.citation


def test_a_spec_is_what_its_file_says(load):
    spec = load(ignore_values=[255])
    assert spec.num_classes == 2
    assert [label.value for label in spec.classes] == [0, 5]
    assert spec.channels == ("red", "nir")
    assert spec.ignore_values == (255,)
    assert spec.valid_when == "all"
    assert spec.orientation is None
    assert spec.case("b") == Case(id="b", image="images/b.tif", labels="labels/b.tif")
    assert spec.regions("test") == (Region(case="b"),)


def test_paths_are_relative_to_the_spec_and_not_to_the_working_folder(load, tmp_path, monkeypatch):
    spec = load()
    monkeypatch.chdir("/")
    assert spec.path("images/a.tif") == tmp_path.resolve() / "images" / "a.tif"
    assert spec.path("../a.tif") == tmp_path.resolve().parent / "a.tif"
    assert spec.path("/data/a.tif") == Path("/data/a.tif")


def test_a_spec_that_is_given_by_a_relative_path_finds_its_files_later(load, tmp_path, monkeypatch):
    load()
    monkeypatch.chdir(tmp_path)
    spec = load_spec("fields.yaml")
    monkeypatch.chdir("/")
    assert spec.path("a.tif") == tmp_path.resolve() / "a.tif"


def test_sample_paths_lie_in_the_package(load):
    assert load().path("sample:spine/ct.nii.gz") == SAMPLES / "spine" / "ct.nii.gz"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ({}, {}),
        ({"rows": [0, 10]}, {}),
        ({"rows": [0, 10]}, {"rows": [9, 20]}),
        ({"rows": [0, 10]}, {"rows": [2, 3]}),
        ({"rows": [0, 10]}, {"cols": [10, 20]}),
        ({"rows": [0, 10], "cols": [0, 10]}, {"rows": [9, 20], "cols": [9, 20]}),
    ],
)
def test_splits_of_a_scene_that_share_a_pixel_are_refused(complaint, train, test):
    for first, second in ((train, test), (test, train)):
        message = complaint(**splits_2d(first, second))
        assert (
            "splits 'train' and 'test' share pixels of case 'a'; give them disjoint rows or cols"
        ) in message


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ({"rows": [0, 10]}, {"rows": [10, 20]}),
        ({"cols": [5, 10]}, {"cols": [0, 5]}),
        ({"rows": [0, 10], "cols": [0, 5]}, {"rows": [0, 10], "cols": [5, 9]}),
        ({"rows": [0, 10], "cols": [0, 5]}, {"cols": [5, 9]}),
    ],
)
def test_disjoint_splits_of_a_scene_are_accepted(load, train, test):
    for first, second in ((train, test), (test, train)):
        spec = load(**splits_2d(first, second))
        assert spec.regions("train") == (Region(case="a", **to_tuples(first)),)
        assert spec.regions("test") == (Region(case="a", **to_tuples(second)),)


def to_tuples(spans: dict) -> dict:
    return {axis: tuple(span) for axis, span in spans.items()}


@pytest.mark.parametrize(
    ("train", "test", "apart"),
    [
        ({"planes": [0, 4]}, {"planes": [4, 8]}, True),
        ({"planes": [0, 4]}, {"planes": [3, 8]}, False),
        ({"planes": [0, 4]}, {"rows": [4, 8]}, False),
        ({"planes": [0, 4], "cols": [0, 4]}, {"planes": [0, 4], "cols": [4, 5]}, True),
        (
            {"planes": [0, 4], "rows": [0, 4], "cols": [0, 4]},
            {"planes": [3, 7], "rows": [3, 7], "cols": [3, 7]},
            False,
        ),
    ],
)
def test_splits_of_a_volume_may_not_share_a_voxel(load, complaint, train, test, apart):
    changes = splits_3d(train, test)
    if apart:
        assert load(**changes).regions("test") == (Region(case="a", **to_tuples(test)),)
    else:
        assert "share pixels of case 'a'; give them disjoint planes or rows or cols" in complaint(
            **changes
        )


def test_shared_pixels_are_found_among_many_regions():
    rng = np.random.default_rng(0)
    said = []
    for _ in range(200):
        boxes = []
        for number in range(6):
            starts, sides = rng.integers(0, 25, 2).tolist(), rng.integers(1, 7, 2).tolist()
            spans = {
                axis: (start, start + side)
                for axis, start, side in zip(("rows", "cols"), starts, sides, strict=True)
            }
            spans.pop(rng.choice(["rows", "cols", *8 * ["none"]]), None)
            boxes.append((f"s{rng.integers(2)}", Region(case="a", **spans), number))
        drawn = np.zeros((6, 31, 31), bool)
        for _, region, number in boxes:
            drawn[number][region.window((31, 31))] = True
        shared = any(
            (drawn[i] & drawn[j]).any() for i, j in itertools.combinations(range(6), 2)
            if boxes[i][0] != boxes[j][0]
        )  # fmt: skip
        splits = {split: [r for s, r, _ in boxes if s == split] for split in ("s0", "s1")}
        told = pytest.raises(ValueError, match="share pixels of case 'a'")
        with told if shared else nullcontext():
            refuse_shared_pixels(splits, 2, lambda name: [name])
        said.append(shared)
    assert 0.05 < np.mean(said) < 0.95


def test_groups_and_blocks_exclude_each_other(complaint):
    rule = {"ratio": {"train": 1, "test": 1}, "blocks": {"size": 8}}
    assert "leave one of the two out" in complaint(splits={}, split_by=rule, group_by="city")


def test_regions_of_one_split_may_overlap_and_cases_do_not_meet(load):
    spec = load(
        splits={
            "train": [{"case": "a", "rows": [0, 10]}, {"case": "a", "rows": [5, 20]}],
            "test": [{"case": "b", "rows": [0, 10]}],
        }
    )
    assert len(spec.regions("train")) == 2


def test_an_unknown_case_is_named_with_the_known_ones(complaint):
    message = complaint(splits={"train": [{"case": "c"}]})
    assert "split 'train' names case 'c'; known cases are a, b" in message


def test_an_unknown_split_is_named_with_the_known_ones(load):
    with pytest.raises(
        SpecError, match="'fields' has no regions in split 'val'; it has train, test"
    ):
        load().regions("val")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"channels": ["nir", "nir"]}, "channel 'nir' stands twice"),
        ({"cases": [{"id": "a", "image": "x", "labels": "y"}] * 2}, "case id 'a' stands twice"),
        (
            {"classes": [{"value": 3, "name": n, "color": [0, 0, 0]} for n in "xy"]},
            "class value 3 stands twice",
        ),
        (
            {"classes": [{"value": v, "name": "x", "color": [0, 0, 0]} for v in (1, 2)]},
            "class name 'x' stands twice",
        ),
        ({"ignore_values": [255, 5]}, "value 5 is both a class and ignored"),
        ({"orientation": "RAS"}, "orientation is for volumes (ndim: 3)"),
        (
            {"splits": {"train": [{"case": "a", "planes": [0, 3]}]}},
            "split 'train' gives planes for a scene (ndim: 2)",
        ),
        ({"channels": []}, "channels: Tuple should have at least 1 item"),
        ({"ndim": 4}, "ndim: Input should be 2 or 3; found 4"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"name": None}, "key 'name' is missing"),
        ({"splits": {"train": [{"case": "a", "rows": [-1, 3]}]}}, "splits.train.0.rows.0: "),
        ({"splits": {"train": [{"case": "a", "rows": [3]}]}}, "splits.train.0.rows.1"),
        (
            {"splits": {"train": [{"case": "a", "row": [0, 3]}]}},
            "unknown key 'splits.train.0.row'; did you mean 'rows'?",
        ),
        ({"chanels": ["a"]}, "unknown key 'chanels'; did you mean 'channels'?"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(complaint, changes, expected):
    assert expected in complaint(**changes)


@pytest.mark.parametrize(
    ("region", "shape", "expected"),
    [
        ({}, (7, 9), (slice(0, 7), slice(0, 9))),
        ({"rows": (2, 7)}, (7, 9), (slice(2, 7), slice(0, 9))),
        ({"cols": (3, 4)}, (7, 9), (slice(0, 7), slice(3, 4))),
        ({"planes": (1, 2)}, (5, 7, 9), (slice(1, 2), slice(0, 7), slice(0, 9))),
        ({"cols": (0, 9), "planes": (0, 1)}, (5, 7, 9), (slice(0, 1), slice(0, 7), slice(0, 9))),
    ],
)
def test_a_region_is_a_window_with_whole_axes_where_none_is_given(region, shape, expected):
    assert Region(case="a", **region).window(shape) == expected


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ({"rows": (0, 8)}, r"rows \[0, 8\] is not inside the scan, which has 7 rows"),
        ({"cols": (9, 10)}, r"cols \[9, 10\] is not inside the scan, which has 9 cols"),
        ({"rows": (4, 4)}, r"rows \[4, 4\] is not inside"),
        ({"rows": (4, 2)}, r"rows \[4, 2\] is not inside"),
    ],
)
def test_a_region_that_is_empty_or_outside_the_scan_is_refused(region, expected):
    with pytest.raises(SpecError, match=f"case 'a': {expected}"):
        Region(case="a", **region).window((7, 9))


def test_a_spec_cannot_be_changed_after_its_checks(load):
    with pytest.raises(ValidationError, match="frozen"):
        load().ndim = 3
