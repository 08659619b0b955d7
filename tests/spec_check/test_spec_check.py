"""Checks of datasets: each fault is planted, and found under its name."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.transform import Affine

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.errors import SpecError

SIDE = 40


def scene(path, *, values=None, x=500000.0, y=4000000.0, crs="EPSG:32633", seed=0, **options):
    """Write a scene of 10 m pixels whose upper left corner lies at x, y."""
    if values is None:
        values = np.random.default_rng(seed).integers(1, 200, (1, SIDE, SIDE)).astype("uint8")
    values = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1],
        width=values.shape[2], dtype=values.dtype, transform=Affine(10, 0, x, 0, -10, y), crs=crs,
        **options,
    ) as out:  # fmt: skip
        out.write(values)


def labels(*codes):
    """Labels in stripes."""
    return np.resize(np.array(codes, "uint8"), (SIDE, SIDE)).T.copy()


@pytest.fixture
def dataset(tmp_path):
    """Return a function that writes scenes a, b, c side by side and the spec over them."""

    def dataset(scenes=None, label=None, **changes):
        for n, name in enumerate("abc"):
            options = {"x": 500000.0 + 1000 * n, "seed": n, **(scenes or {}).get(name, {})}
            if options.pop("missing", False):
                continue
            scene(tmp_path / f"{name}.tif", **options)
            place = {key: options[key] for key in ("x", "y", "crs") if key in options}
            scene(
                tmp_path / f"{name}_labels.tif",
                **{"values": labels(0, 1, 1), **place, **(label or {}).get(name, {})},
            )
        document = {
            "name": "made",
            "ndim": 2,
            "channels": ["x"],
            "classes": [{"value": 0, "name": "other"}, {"value": 1, "name": "house"}],
            "cases": [
                {"id": name, "image": f"{name}.tif", "labels": f"{name}_labels.tif"}
                for name in "abc"
            ],
            "splits": {"train": ["a", "b"], "test": ["c"]},
            **changes,
        }
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return dataset


def texts(found, level=None):
    return [
        f"{', '.join(f.cases)}: {f.text}" if f.cases else f.text
        for f in found.findings
        if level in (None, f.level)
    ]


def test_a_sound_dataset_has_no_faults_and_its_counts_are_numpys(dataset):
    found = sf.check_spec(dataset())
    assert found.ok
    assert texts(found) == []
    per_case = [int((labels(0, 1, 1) == k).sum()) for k in (0, 1)]
    assert found.class_pixels("train") == [2 * count for count in per_case]
    assert found.class_pixels("test") == per_case
    a = found.surveys[0]
    values = np.random.default_rng(0).integers(1, 200, (1, SIDE, SIDE))
    assert (a.channels["x"].low, a.channels["x"].high) == (values.min(), values.max())
    assert (a.pixels, a.usable, a.labelled) == (SIDE**2,) * 3


@pytest.mark.parametrize("block", [7, 1024])
def test_regions_nodata_and_ignored_values_are_counted_whatever_the_blocks(
    dataset, monkeypatch, block
):
    from segfocal.data import reading

    monkeypatch.setitem(reading.BLOCK, 2, block)
    values = np.ones((1, SIDE, SIDE), "float32")
    values[0, :10], values[0, 10:12] = -9999, np.nan
    codes = labels(0, 1, 9)
    path = dataset(
        {"a": {"values": values, "nodata": -9999}}, {"a": {"values": codes}}, ignore_values=[9],
        splits={"train": [{"case": "a", "rows": [5, 25]}, "b"], "test": ["c"]},
    )  # fmt: skip
    found = sf.check_spec(path)
    a = found.surveys[0]
    assert a.usable == 28 * SIDE
    assert a.channels["x"].valid == 28 * SIDE
    assert a.channels["x"].nan == 2 * SIDE
    assert a.labelled == int((codes[12:] < 9).sum())
    assert a.values == {k: int((codes == k).sum()) for k in (0, 1, 9)}
    expected = [int((codes[12:25] == k).sum()) for k in (0, 1)]
    np.testing.assert_array_equal(a.class_pixels["train"], expected)


@pytest.mark.parametrize(
    ("scenes", "label", "changes", "expected"),
    [
        ({"b": {"missing": True}}, {}, {}, r"b: .*b\.tif: no such file"),
        ({}, {"b": {"values": labels(0, 1, 77)}}, {}, r"b: a label value is nei.*: 77 \(533 px"),
        ({"b": {"values": np.ones((2, SIDE, SIDE), "uint8")}}, {}, {}, "b: .*has 2 channels"),
        ({}, {"b": {"x": 9e5}}, {}, "b: .*does not touch"),
        ({}, {"b": {"values": labels(0, 1).astype("float32") + 0.5}}, {}, "b: .*whole numbers"),
        ({}, {}, {"splits": {"val": ["a"], "test": ["b"]}}, "there is no split 'train'"),
        ({}, {"a": {"values": labels(0)}, "b": {"values": labels(0)}}, {},
         r"class 'house' \(1\) occurs in test but not in train"),
        ({}, {n: {"values": labels(1), "nodata": 1} for n in "ab"}, {},
         "split 'train' has no labelled pixel"),
        ({n: {"values": np.full((SIDE, SIDE), 7, "uint8"), "nodata": 7} for n in "abc"}, {}, {},
         "channel 'x' has no valid pixel in any case"),
        # Leaks.
        ({"c": {"seed": 0}}, {}, {}, "a, c: the same image in test and train: leakage"),
        ({"c": {"x": 501200.0}}, {}, {},
         r"b, c: cases of test and train lie on the same ground \(up to 50% of one\)"),
        ({}, {}, {"group_by": "city", "groups": {"a": "rome", "b": "oslo", "c": "rome"}},
         r"group 'city' crosses splits \(rome in test and train\): leakage"),
        ({}, {}, {"splits": {"train": ["a", {"case": "b", "rows": [0, 5]}],
                             "test": [{"case": "c", "rows": [0, 500]}]}},
         r"c: .*rows \[0, 500\] is not inside the scan"),
    ],
)  # fmt: skip
def test_what_would_spoil_training_is_a_fault(dataset, tmp_path, scenes, label, changes, expected):
    import re

    groups = changes.pop("groups", None) if "groups" in changes else None
    path = dataset(scenes, label, **changes)
    if groups is not None:
        document = yaml.safe_load(path.read_text())
        for case in document["cases"]:
            case["groups"] = {"city": groups[case["id"]]}
        path.write_text(yaml.safe_dump(document))
    found = sf.check_spec(path)
    assert not found.ok
    assert any(re.search(expected, text) for text in texts(found, "fault")), texts(found)
    done = CliRunner().invoke(command, ["spec", "check", str(path)])
    assert done.exit_code == 1
    assert "mend before training" in done.output


@pytest.mark.parametrize(
    ("scenes", "label", "changes", "level", "expected"),
    [
        ({"b": {"seed": 0}}, {}, {}, "warning", "a, b: the same image twice"),
        ({"b": {"values": np.full((SIDE, SIDE), 5, "uint8")}}, {}, {}, "warning",
         "b: channel 'x' has one value everywhere"),
        ({}, {"b": {"crs": "EPSG:25833"}}, {}, "warning", "b: labels have the scan's transform"),
        ({}, {"b": {"values": labels(0, 1), "y": 4000003.0}}, {}, "notice",
         "b: labels lie on another grid and are read nearest"),
        ({}, {}, {"splits": {"train": ["a", "b", "c"]}}, "warning", "there is one split only"),
        ({}, {}, {"splits": {"train": ["a"], "test": ["c"]}}, "notice", "b: in no split"),
        ({}, {"b": {"values": labels(1), "nodata": 1}}, {}, "warning", "b: no labelled pixel"),
        ({"b": {"x": 500000.0}}, {}, {}, "notice", "a, b: lie in the same place as another case"),
        ({}, {}, {"scale": {"x": 2.0}}, "notice", "scale stand in the spec: a scan to predict"),
        ({}, {}, {"resolution": [30.0, 30.0]}, "warning", "pixels of 10 x 10 to 10 x 10, resolut"),
    ],
)  # fmt: skip
def test_what_is_worth_knowing_is_told_and_no_fault(
    dataset, scenes, label, changes, level, expected
):
    found = sf.check_spec(dataset(scenes, label, **changes))
    assert found.ok, texts(found)
    assert any(text.startswith(expected) for text in texts(found, level)), texts(found)


def test_images_and_labels_without_partners_are_told(dataset, tmp_path):
    path = dataset(
        cases=None, pairing={"image": "{id:[a-z]}.tif", "labels": "{id}_labels.tif"},
        splits=None, split_by={"ratio": {"train": 1, "test": 1}},
    )  # fmt: skip
    document = {k: v for k, v in yaml.safe_load(path.read_text()).items() if v is not None}
    path.write_text(yaml.safe_dump(document))
    scene(tmp_path / "d.tif", x=1e5)
    scene(tmp_path / "z_labels.tif", values=labels(0, 1))
    found = sf.check_spec(path)
    assert found.ok
    assert texts(found, "warning") == [
        "1 images have no labels: d.tif",
        "1 label files have no image: z_labels.tif",
    ]


def test_blocks_of_one_scene_are_no_leak_and_overlapping_scenes_are(dataset):
    rule = {"blocks": {"size": 10, "buffer": 2}, "ratio": {"train": 3, "test": 1}}
    assert sf.check_spec(dataset(splits={}, split_by=rule)).ok
    found = sf.check_spec(dataset({"b": {"x": 500000.0}}, splits={}, split_by=rule))
    assert any("lie on the same ground" in text for text in texts(found, "fault"))


def test_checksums_of_the_source_are_compared(dataset, tmp_path):
    (tmp_path / "good.zip").write_bytes(b"good")
    (tmp_path / "bad.zip").write_bytes(b"bad")
    digest = hashlib.sha256(b"good").hexdigest()
    sums = {
        "good.zip": f"sha256:{digest}",
        "bad.zip": f"sha256:{digest}",
        "gone.zip": "md5:" + "0" * 32,
    }
    found = sf.check_spec(dataset(checksums=sums))
    (fault,) = texts(found, "fault")
    assert fault.startswith("bad.zip: sha256 is ")
    assert any("no such file: gone.zip" in text for text in texts(found, "notice"))


def test_overlapping_regions_are_counted_each(tmp_path):
    codes = np.resize(np.arange(4, dtype="uint8"), (12, 12, 12))
    for name in ("a", "b"):
        image = np.random.default_rng(ord(name)).normal(size=(12, 12, 12)).astype("float32")
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii")
        nib.save(nib.Nifti1Image(codes, np.eye(4)), tmp_path / f"{name}_seg.nii")
    document = {
        "name": "tumour", "ndim": 3, "channels": ["flair"], "task": "regions",
        "classes": [
            {"value": 1, "name": "whole", "from": [1, 2, 3]},
            {"value": 2, "name": "core", "from": [2, 3]},
        ],
        "cases": [{"id": n, "image": f"{n}.nii", "labels": f"{n}_seg.nii"} for n in "ab"],
        "splits": {"train": ["a"], "test": ["b"]},
    }  # fmt: skip
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    found = sf.check_spec(path)
    assert found.ok, texts(found)
    assert found.class_pixels("train") == [int((codes > 0).sum()), int((codes > 1).sum())]


def test_json_holds_what_the_table_shows(dataset):
    path = dataset({}, {"b": {"values": labels(0, 1, 77)}})
    done = CliRunner().invoke(command, ["spec", "check", str(path), "--json"])
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert value["ok"] is False
    assert value["findings"][0]["level"] == "fault"
    assert value["findings"][0]["cases"] == ["b"]
    case = value["cases"][1]
    assert case["label_values"] == {str(k): int((labels(0, 1, 77) == k).sum()) for k in (0, 1, 77)}
    assert value["classes"][1]["pixels"]["test"] == int((labels(0, 1, 1) == 1).sum())


def test_headers_only_reads_no_pixels(dataset):
    path = dataset({}, {"b": {"values": labels(0, 1, 77)}})
    done = CliRunner().invoke(command, ["spec", "check", str(path), "--headers-only"])
    assert done.exit_code == 0, done.output
    assert "3 cases" in done.output
    assert "77" not in done.output


def test_progress_comes_to_its_end(dataset):
    seen = []
    sf.check_spec(dataset(), progress=lambda what, done, total: seen.append((what, done, total)))
    assert seen[0] == ("headers", 1, 3)
    assert ("headers", 3, 3) in seen
    assert seen[-1] == ("pixels", 3, 3)


def test_the_warning_filters_are_as_before(dataset):
    import warnings

    before = list(warnings.filters)
    sf.check_spec(dataset({}, {"b": {"y": 4000003.0}}))
    assert warnings.filters == before


def test_a_broken_spec_is_an_error_and_no_finding(dataset):
    path = dataset(splits={"train": ["nobody"]})
    with pytest.raises(SpecError, match="names case 'nobody'; known cases are a, b, c"):
        sf.check_spec(path)
