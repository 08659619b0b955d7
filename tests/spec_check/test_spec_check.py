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
        ({}, {}, {"resolution": [30.0, 30.0]}, "warning",
         "pixels of 10 x 10, resolution 30 x 30: 3 times apart"),
        ({}, {}, {"splits": {"train": ["a", {"case": "b", "rows": [0, 20]}],
                             "test": [{"case": "b", "rows": [20, 40]}, "c"]}},
         "warning", "b: regions of test and train touch"),
        ({"b": {"values": np.arange(SIDE**2, dtype="float32").reshape(SIDE, SIDE) / 1e4}}, {}, {},
         "warning", "values of channel 'x' span 0.1599 in b and 198 in "),
        ({n: {"values": np.where(np.arange(SIDE) < 9, 5 + np.arange(SIDE), 0)[None].repeat(SIDE, 0)
              .astype("uint8"), "nodata": 0} for n in "b"}, {}, {},
         "notice", "b: less than half of the pixels have values"),
    ],
)  # fmt: skip
def test_what_is_worth_knowing_is_told_and_no_fault(
    dataset, scenes, label, changes, level, expected
):
    found = sf.check_spec(dataset(scenes, label, **changes))
    assert found.ok, texts(found)
    assert any(text.startswith(expected) for text in texts(found, level)), texts(found)


def test_scans_that_are_scaled_by_themselves_may_differ_in_scale(dataset):
    values = np.arange(SIDE**2, dtype="float32").reshape(SIDE, SIDE) / 1e4
    found = sf.check_spec(dataset({"b": {"values": values}}, normalization="scan"))
    assert texts(found, "warning") == []


@pytest.mark.parametrize(("gap", "told"), [(0, True), (1, False)])
def test_regions_of_two_splits_that_touch_at_a_corner_are_told(dataset, gap, told):
    splits = {
        "train": [{"case": "a", "rows": [0, 20], "cols": [0, 20]}],
        "test": [{"case": "a", "rows": [20, 40], "cols": [20 + gap, 40]}, "b", "c"],
    }
    found = sf.check_spec(dataset(splits=splits))
    assert any("regions of test and train touch" in text for text in texts(found)) == told


def test_the_channel_that_has_the_fewest_values_is_named(dataset, tmp_path):
    path = dataset(
        cases=[{"id": "a", "images": {"x": "a.tif", "y": "y.tif"}, "labels": "a_labels.tif"}],
        channels=["x", "y"], splits={"train": ["a"]},
    )  # fmt: skip
    values = np.ones((SIDE, SIDE), "uint8")
    values[:, 10:], values[0, 0] = 0, 7
    scene(tmp_path / "y.tif", values=values, nodata=0)
    found = sf.check_spec(path)
    assert texts(found, "notice") == [
        "a: less than half of the pixels have values in all channels; y has the fewest"
    ]


def test_channels_on_other_grids_are_told_once(tmp_path):
    rng = np.random.default_rng(0)
    for case in "ab":
        for name, side in (("CT", 1.0), ("PET", 2.0), ("MR", 1.5)):
            values = rng.normal(size=(12, 12, 12)).astype("float32")
            image = nib.Nifti1Image(values, np.diag([side] * 3 + [1]))
            nib.save(image, tmp_path / f"{case}_{name}.nii")
        labels = nib.Nifti1Image(rng.integers(0, 2, (12, 12, 12)).astype("uint8"), np.eye(4))
        nib.save(labels, tmp_path / f"{case}_seg.nii")
    document = {
        "name": "three", "ndim": 3, "channels": ["CT", "PET", "MR"],
        "classes": [{"value": 0, "name": "rest"}, {"value": 1, "name": "tumour"}],
        "pairing": {"images": {name: f"{{id}}_{name}.nii" for name in ("CT", "PET", "MR")},
                    "labels": "{id}_seg.nii"},
        "splits": {"train": ["a"], "test": ["b"]},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    found = sf.check_spec(tmp_path / "spec.yaml")
    assert texts(found) == [
        "a, b: files of other channels lie on another grid and are resampled to that of the first"
    ]


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
    done = CliRunner().invoke(command, ["spec", "check", str(tmp_path / "spec.yaml")])
    assert done.exit_code == 1
    assert "bad.zip: sha256 is " in done.output
    # Sums take a pass over the files, which may be large.
    assert sf.check_spec(tmp_path / "spec.yaml", pixels=False).ok


def test_checksums_may_be_those_of_the_scans_themselves(dataset, tmp_path):
    dataset()
    sums = {
        f"{name}.tif": f"md5:{hashlib.md5((tmp_path / f'{name}.tif').read_bytes()).hexdigest()}"
        for name in "abc"
    }
    assert sf.check_spec(dataset(checksums=sums)).ok
    scene(tmp_path / "b.tif", x=501000.0, seed=7)
    found = sf.check_spec(tmp_path / "spec.yaml")
    assert [text.split(":")[0] for text in texts(found, "fault")] == ["b.tif"]


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
    assert [survey.labelled for survey in found.surveys] == [codes.size] * 2
    # Shares are of what is labelled, not of each other.
    lines = CliRunner().invoke(command, ["spec", "check", str(path)]).output.splitlines()
    shares = {line.split()[2]: line.split()[-2] for line in lines if "██" in line}
    assert shares == {"whole": "75.0", "core": "50.0"}


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


def bare_png(path, values):
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver="PNG", height=SIDE, width=values.shape[1], count=1, dtype="uint8"
        ) as out,
    ):
        out.write(values, 1)


def test_a_mask_without_a_georeference_lies_on_a_scene_of_its_shape(dataset, tmp_path):
    path = dataset()
    codes = np.random.default_rng(3).integers(0, 2, (SIDE, SIDE)).astype("uint8")
    bare_png(tmp_path / "b.png", codes)
    document = yaml.safe_load(path.read_text())
    document["cases"][1]["labels"] = "b.png"
    document["splits"] = {"train": ["a", {"case": "b", "rows": [0, 10]}], "test": ["c"]}
    path.write_text(yaml.safe_dump(document))
    found = sf.check_spec(path)
    assert found.ok, texts(found)
    assert any(t.startswith("b: scan or labels have no geor") for t in texts(found, "notice"))
    expected = [int((labels(0, 1, 1) == k).sum() + (codes[:10] == k).sum()) for k in (0, 1)]
    assert found.class_pixels("train") == expected
    # Of another shape, or under rows that are stored from south to north, nothing is known.
    bare_png(tmp_path / "b.png", codes[:, :-1])
    assert any("b.png has shape (40, 39)" in t for t in texts(sf.check_spec(path), "fault"))
    bare_png(tmp_path / "b.png", codes)
    with rasterio.open(tmp_path / "b.tif", "r+") as out:
        out.transform = Affine(10, 0, 501000.0, 0, 10, 4000000.0 - 10 * SIDE)
    assert any("b.png lies up to" in t for t in texts(sf.check_spec(path), "fault"))


@pytest.mark.parametrize(("shift", "level"), [(4, "notice"), (15, "warning")])
def test_labels_of_a_volumes_shape_that_lie_beside_it_are_warned_of(tmp_path, shift, level):
    rng = np.random.default_rng(0)
    for name, moved in (("a", 0), ("b", shift)):
        affine = np.eye(4)
        nib.save(nib.Nifti1Image(rng.integers(0, 99, (20, 20, 20), "int16"), affine),
                 tmp_path / f"{name}.nii")  # fmt: skip
        affine[0, 3] = moved
        codes = np.indices((20, 20, 20)).sum(0) % 2
        nib.save(nib.Nifti1Image(codes.astype("uint8"), affine), tmp_path / f"{name}_l.nii")
    document = {
        "name": "made", "ndim": 3, "channels": ["ct"],
        "classes": [{"value": 0, "name": "other"}, {"value": 1, "name": "liver"}],
        "cases": [{"id": n, "image": f"{n}.nii", "labels": f"{n}_l.nii"} for n in "ab"],
        "splits": {"train": ["a"], "test": ["b"]},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    found = sf.check_spec(tmp_path / "spec.yaml")
    assert found.ok, texts(found)
    told = [t for t in texts(found, level) if t.startswith("b: labels ")]
    assert len(told) == 1
    assert ("less than half of their voxels" in told[0]) == (level == "warning")


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
@pytest.mark.parametrize("seen", ["uint8", "float64"])
def test_the_same_image_of_another_type_is_a_leak(dataset, seen, dtype):
    values = np.random.default_rng(5).integers(0, 200, (1, SIDE, SIDE)).astype("float64")
    if (seen, dtype) == ("float64", "float64"):
        values[0, 0, 0], values[0, 0, 1] = 1 / 3, -0.0  # no float32, and a zero like any other
    again = np.abs(values).astype(dtype)
    found = sf.check_spec(dataset({"a": {"values": values.astype(seen)}, "c": {"values": again}}))
    assert "a, c: the same image in test and train: leakage" in texts(found, "fault")
    again[0, -1, -1] += 1
    found = sf.check_spec(dataset({"a": {"values": values.astype(seen)}, "c": {"values": again}}))
    assert found.ok, texts(found)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_scenes_that_overlap_by_their_transforms_are_told_without_degrees(dataset, crs):
    place = {"x": 501200.0, "crs": crs}
    scenes = {"a": {"crs": crs}, "b": {"crs": crs, "x": 501000.0}, "c": place}
    found = sf.check_spec(dataset(scenes, {n: {"crs": crs, **scenes[n]} for n in "abc"}))
    level = "warning" if crs is None else "fault"
    expected = "b, c: cases of test and train lie on the same ground (up to 50% of one)"
    assert any(text.startswith(expected) for text in texts(found, level)), texts(found)
    place["x"] = 509000.0
    found = sf.check_spec(dataset(scenes, {n: {"crs": crs, **scenes[n]} for n in "abc"}))
    assert not any("same ground" in text for text in texts(found)), texts(found)


@pytest.mark.parametrize("resolution", [None, [10.0, 10.0]])
@pytest.mark.parametrize(("crs", "unit"), [("EPSG:4326", "degrees"), ("EPSG:2263", "feet")])
def test_pixel_sizes_in_unlike_units_are_a_fault_and_no_plan(
    dataset, tmp_path, crs, unit, resolution
):
    x, y = (15.0, 1.0) if crs == "EPSG:4326" else (980000.0, 200000.0)
    path = dataset(
        {"b": {"crs": crs, "x": x, "y": y}}, {"b": {"crs": crs, "x": x, "y": y}},
        **({} if resolution is None else {"resolution": resolution}),
    )  # fmt: skip
    if unit == "degrees":  # the world has no room for pixels of 10
        for name in ("b.tif", "b_labels.tif"):
            with rasterio.open(tmp_path / name, "r+") as out:
                out.transform = Affine(1e-4, 0, x, 0, -1e-4, y)
    found = sf.check_spec(path)
    expected = f"pixel sizes are in metres (a, c), {unit} (b)"
    assert any(t.startswith(expected) for t in texts(found, "fault")), texts(found)
    assert not any(t.startswith("pixel") for t in texts(found, "warning")), texts(found)
    done = CliRunner().invoke(command, ["plan", str(path), "-o", str(tmp_path / "plan.yaml")])
    assert done.exit_code == 2
    line = done.output.strip()
    assert f"pixel sizes are in metres (a), {unit} (b)" in line
    assert "\n" not in line
    assert not (tmp_path / "plan.yaml").exists()


def test_a_survey_foot_is_a_foot_and_a_resolution_answers_the_warning_of_pixel_sizes(
    dataset, tmp_path
):
    place = {"crs": "EPSG:2263", "x": 980000.0, "y": 200000.0}  # US survey feet
    other = {"crs": "EPSG:2222", "x": 700000.0, "y": 200000.0}  # feet of 0.3048 m
    scenes = {"a": place, "b": {**place, "x": 985000.0}, "c": other}
    assert sf.check_spec(dataset(scenes, scenes)).ok
    for name in ("b.tif", "b_labels.tif"):
        with rasterio.open(tmp_path / name, "r+") as out:
            out.transform = Affine(30, 0, 985000, 0, -30, 200000)
    path = tmp_path / "spec.yaml"
    assert any(t.startswith("pixel sizes differ") for t in texts(sf.check_spec(path), "warning"))
    path.write_text(path.read_text() + "resolution: [20, 20]\n")
    assert texts(sf.check_spec(path)) == []


def test_a_scale_of_both_header_and_spec_is_told_and_the_same_one_a_fault(dataset, tmp_path):
    path = dataset(scale={"x": 0.5})
    with rasterio.open(tmp_path / "b.tif", "r+") as out:
        out.scales = (0.1,)
    found = sf.check_spec(path)
    assert found.ok, texts(found)
    assert any(t.startswith("b: channel 'x' has a scale") for t in texts(found, "warning"))
    with rasterio.open(tmp_path / "b.tif", "r+") as out:
        out.scales = (0.5,)
    faults = texts(sf.check_spec(path), "fault")
    assert any("b.tif: its header has scale 0.5 for channel" in text for text in faults), faults


def test_a_class_whose_mask_is_missing_is_told_and_read_as_background(tmp_path):
    cases = []
    for n in range(3):
        scene(tmp_path / f"{n}.tif", x=500000.0 + 1000 * n, seed=n)
        for name in ("house", "road"):
            if (n, name) not in [(1, "road"), (2, "house")]:
                mask = labels(0, 1, 0) if name == "house" else labels(0, 0, 1)
                scene(tmp_path / f"{n}_{name}.tif", values=mask, x=500000.0 + 1000 * n)
        cases.append({"id": f"c{n}", "image": f"{n}.tif", "labels": f"{n}_{{class}}.tif"})
    cases[2]["annotated"] = ["other", "road"]  # nobody looked for houses there
    document = {
        "name": "made", "ndim": 2, "channels": ["x"], "labels": "masks",
        "classes": [{"value": k, "name": n} for k, n in enumerate(("other", "house", "road"))],
        "cases": cases, "splits": {"train": ["c0", "c1"], "test": ["c2"]},
    }  # fmt: skip
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    for pixels in (True, False):
        found = sf.check_spec(path, pixels=pixels)
        told = [text for text in texts(found, "warning") if "mask" in text]
        assert len(told) == 1
        assert told[0].startswith("c1: class 'road' has no mask file in 1 of 3 cases")
    # Of the missing mask nothing is labelled: what numpy counts in the others is all there is.
    roads = int((labels(0, 0, 1) == 1).sum())
    assert sf.check_spec(path).class_pixels("train")[2] == roads


def test_a_broken_spec_is_an_error_and_no_finding(dataset):
    path = dataset(splits={"train": ["nobody"]})
    with pytest.raises(SpecError, match="names case 'nobody'; known cases are a, b, c"):
        sf.check_spec(path)
