"""Specs with rules: what they become, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine

from segfocal.data.spec import DatasetSpec, Region, load_spec, read_spec
from segfocal.errors import SpecError

CLASSES = [{"value": 0, "name": "other"}, {"value": 1, "name": "house", "color": "#ff8000"}]


def document(**changes):
    value = {
        "name": "city",
        "ndim": 2,
        "channels": ["red", "green", "blue"],
        "classes": CLASSES,
        "pairing": {"image": "{city}/img/{tile}.tif", "labels": "{city}/gt/{tile}.tif"},
        "splits": {"test": [{"where": {"city": "oslo"}}]},
        "split_by": {"ratio": {"train": 2, "val": 1}},
        **changes,
    }
    return {key: entry for key, entry in value.items() if entry is not None}


@pytest.fixture
def load(tmp_path):
    def load(root=None, **changes) -> DatasetSpec:
        path = tmp_path / "city.yaml"
        path.write_text(yaml.safe_dump(document(**changes), sort_keys=False), encoding="utf-8")
        return load_spec(path, root=root)

    return load


@pytest.fixture
def files(tmp_path):
    for city in ("rome", "oslo", "lima"):
        for tile in "1234":
            for part in ("img", "gt"):
                path = tmp_path / city / part / f"{tile}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path


def cases_of(spec, split):
    return {region.case for region in spec.regions(split)}


def test_rules_become_cases_and_regions(load, files):
    spec = load()
    assert [case.id for case in spec.cases[:2]] == ["lima_1", "lima_2"]
    assert spec.path(spec.case("rome_3").labels) == files / "rome" / "gt" / "3.tif"
    assert spec.split_names == ("test", "train", "val")
    assert cases_of(spec, "test") == {f"oslo_{n}" for n in range(1, 5)}
    rest = cases_of(spec, "train") | cases_of(spec, "val")
    assert rest == {f"{city}_{n}" for city in ("rome", "lima") for n in range(1, 5)}
    assert not cases_of(spec, "train") & cases_of(spec, "val")


def test_a_group_of_a_listed_split_is_not_divided_by_the_rule(load, files):
    spec = load(
        splits={"test": ["oslo_1"]}, split_by={"ratio": {"train": 1, "val": 1}}, group_by="city"
    )
    used = {
        split: {case.split("_")[0] for case in cases_of(spec, split)} for split in spec.split_names
    }
    assert used["test"] == {"oslo"}
    assert used["train"] | used["val"] == {"rome", "lima"}
    assert "oslo_2" not in set().union(*(cases_of(spec, split) for split in spec.split_names))


def test_the_data_may_lie_elsewhere(load, files, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("moved")
    (files / "rome").rename(elsewhere / "rome")
    (files / "oslo").rename(elsewhere / "oslo")
    assert len(load(root=elsewhere).cases) == 8
    spec = load(root=elsewhere)
    assert spec.path("rome/img/1.tif") == elsewhere / "rome" / "img" / "1.tif"


def test_scenes_are_divided_into_blocks(load, tmp_path):
    for name in ("a", "b"):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", height=200, width=300, count=1,
            dtype="uint8", transform=Affine(2, 0, 0, 0, -2, 0), crs="EPSG:32633",
        ) as out:  # fmt: skip
            out.write(np.zeros((1, 200, 300), "uint8"))
    spec = load(
        pairing=None,
        splits=None,
        cases=[{"id": n, "image": f"{n}.tif", "labels": "l.tif"} for n in "ab"],
        split_by={"blocks": {"size": 50, "buffer": 10}, "ratio": {"train": 3, "test": 1}},
    )
    assert all(region.rows and region.cols for region in spec.regions("train"))
    taken = {split: {n: np.zeros((200, 300), bool) for n in "ab"} for split in spec.split_names}
    for split in spec.split_names:
        for region in spec.regions(split):
            taken[split][region.case][region.window((200, 300))] = True
    for n in "ab":
        assert not (taken["train"][n] & taken["test"][n]).any()
    assert taken["test"]["a"].any() or taken["test"]["b"].any()


def test_short_forms_are_spelled_out(load, files):
    spec = load(
        scale=1e-4, nodata={"red": 0}, labels="colors", normalization="scan",
        bands=["red", "green", "blue"], splits={"train": "rome_1", "test": ["oslo_1", "oslo_2"]},
        split_by=None, classes=[{**CLASSES[0], "color": [0, 0, 0]}, CLASSES[1]],
    )  # fmt: skip
    assert spec.scale == {"*": 1e-4}
    assert spec.nodata == {"red": 0}
    assert spec.bands == {"*": ("red", "green", "blue")}
    assert spec.labels.kind == "colors"
    assert spec.normalization == {"*": "scan"}
    assert spec.classes[1].color == (255, 128, 0)
    assert spec.regions("test") == (Region(case="oslo_1"), Region(case="oslo_2"))


def test_a_spec_is_read_without_its_data(tmp_path):
    path = tmp_path / "city.yaml"
    path.write_text(yaml.safe_dump(document()))
    assert read_spec(path).pairing.image == "{city}/img/{tile}.tif"
    with pytest.raises(SpecError, match=r"city\.yaml: .*no case was found: 0 files match"):
        load_spec(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pairing": None}, "expected either cases or pairing"),
        ({"cases": [{"id": "a", "image": "a", "labels": "b"}]}, "either cases or pairing"),
        ({"splits": None, "split_by": None}, "expected splits or split_by"),
        ({"split_by": {"ratio": {"train": 1}, "folds": 3}}, "split_by: expected either ratio or"),
        ({"split_by": {"folds": 3, "fold": 3}}, "split_by: fold 3 of 3; expected 0 to 2"),
        ({"split_by": {"ratios": {"train": 1}}}, "key 'split_by.ratios'; did you mean 'ratio'?"),
        (
            {"split_by": {"ratio": {"a": 1}, "blocks": {"size": 9, "buffer": 9}}},
            "split_by.blocks: buffer 9 leaves nothing of blocks of 9",
        ),
        ({"pairing": {"image": "{a.tif", "labels": "b"}}, "pairing.image: pattern '{a.tif' has"),
        ({"pairing": {"image": "a.tif", "labels": "b"}}, "'a.tif' has no group"),
        ({"pairing": {"image": "{a}", "label": "b"}}, "'pairing.label'; did you mean 'labels'?"),
        ({"pairing": {"labels": "{a}"}}, "pairing: expected either image or images"),
        ({"splits": {"test": [{"wher": {"city": "x"}}]}}, "did you mean 'where'?"),
        ({"splits": {"test": [{"case": "a", "list": "b"}]}}, "one of case, where and list"),
        ({"classes": [{**CLASSES[0], "colour": [0, 0, 0]}]}, "did you mean 'color'?"),
        ({"classes": [CLASSES[0], {**CLASSES[1], "frm": [3]}]}, "did you mean 'from'?"),
        ({"classes": [CLASSES[0], {**CLASSES[1], "from": [0]}]}, "label value 0 stands for two"),
        ({"classes": CLASSES[:1]}, "1 that are not ignored; expected at least 2, background incl"),
        ({"ignore_class": "hous"}, "ignore_class 'hous' is no class; expected one of house, other"),
        ({"labels": {"kind": "vektor"}}, "labels.kind: Input should be 'values', 'colors'"),
        ({"labels": {"class_field": "x"}}, "class_field is for labels of kind vector"),
        ({"labels": {"kind": "vector", "outside": "sea"}}, "labels.outside 'sea': expected a cl"),
        ({"labels": {"tolerance": 3}}, "tolerance is for labels of kind colors"),
        ({"scale": {"nir": 2}}, "scale names channel 'nir'; expected one of red, green, blue"),
        ({"nodata": {"red": "x"}}, "nodata.red: expected a number, or \"none\"; found 'x'"),
        ({"resolution": [10]}, "resolution [10.0] has 1 numbers; expected 2"),
        ({"verified": True}, "verified: true without verified_by"),
        ({"checksums": {"a.zip": "123"}}, "checksums.a.zip: String should match pattern"),
        ({"task": "regions"}, "a region has value 0"),
        (
            {"task": "regions", "classes": CLASSES[1:], "labels": "vector"},
            "task: regions with labels of kind vector; expected kind values or colors",
        ),
        (
            {"task": "regions", "classes": CLASSES[1:], "labels": "instances"},
            "task: regions with labels of kind instances; expected kind values or colors",
        ),
        (
            {"task": "regions", "classes": [{**CLASSES[1], "from": [1, 2]}], "ignore_values": [2]},
            "value 2 is both a class and ignored",
        ),
        ({"normalization": "zscore"}, "normalization.*: Input should be 'dataset', 'scan'"),
        ({"group_by": 3}, "group_by: Input should be a valid string"),
    ],
)
def test_a_wrong_rule_is_named_with_file_key_and_what_to_write(load, tmp_path, changes, expected):
    with pytest.raises(SpecError) as caught:
        load(**changes)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'city.yaml'}: ")
    assert expected in message
    assert "\n" not in message


def test_a_broken_spec_is_exit_code_2_and_one_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\nndim: 2\nchanels: [a]\n")
    done = subprocess.run(
        [sys.executable, "-m", "segfocal", "spec", "check", str(path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "unknown key 'chanels'; did you mean 'channels'?" in line


def test_a_loaded_spec_is_written_out_and_read_back_as_itself(load, files):
    spec = load(split_by={"ratio": {"train": 2, "val": 1}, "seed": 3})
    again = DatasetSpec.model_validate(spec.model_dump()).located(files)
    assert again.cases == spec.cases
    assert again.classes == spec.classes
    assert again.all_regions == spec.all_regions
