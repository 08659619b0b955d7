"""Drafts from folders: pairs, channels, values and colours as a person would write them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from PIL import Image
from rasterio.transform import Affine

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.errors import SpecError
from segfocal.spec_drafts.guesses import Pair, found_pairs, general_rule


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (20, 24, 3)).astype("uint8")


def mask(*values, dtype="uint8"):
    return np.resize(np.array(values, dtype), (20, 24))


@pytest.fixture
def drafted(tmp_path):
    def drafted(folder="data"):
        out = tmp_path / "draft.yaml"
        sf.draft_spec(tmp_path / folder, out, overwrite=True)
        return sf.load_spec(out), yaml.safe_load(out.read_text()), out.read_text()

    return drafted


def test_images_and_masks_in_folders(tmp_path, drafted):
    for n in range(12):
        png(tmp_path / "data" / "images" / f"tile_{n}.png", image(n))
        png(tmp_path / "data" / "masks" / f"tile_{n}.png", mask(0, 1, 4))
    spec, document, text = drafted()
    assert document["pairing"] == {"image": "images/tile_{id}.png", "labels": "masks/tile_{id}.png"}
    assert spec.channels == ("red", "green", "blue")
    assert [c.value for c in spec.classes] == [0, 1, 4]
    assert set(spec.split_names) == {"train", "val", "test"}
    assert "# Fill in" in text
    assert sf.check_spec(spec).ok


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ("{}_sat.jpg", "{}_mask.png", ("{id}_sat.jpg", "{id}_mask.png")),
        (
            "train/images/x{}.png",
            "train/gt/x{}.png",
            ("train/images/{id}.png", "train/gt/{id}.png"),
        ),
        ("img_{}.png", "seg_{}.png", ("img_{id}.png", "seg_{id}.png")),
    ],
)
def test_a_rule_is_found_for_names(tmp_path, images, labels, expected):
    for n in (1, 2, 13, 104):
        png(tmp_path / images.format(n), image(n))
        png(tmp_path / labels.format(n), mask(0, 1))
    pairs, alone = found_pairs(tmp_path)
    assert len(pairs) == 4
    assert alone == []
    rule = general_rule(pairs, tmp_path)
    assert (rule["image"], rule["labels"]) == expected


def test_folders_of_splits_are_splits(tmp_path, drafted):
    for split, count in (("train", 4), ("val", 3), ("test", 3)):
        for n in range(count):
            png(tmp_path / "data" / split / "images" / f"{n}.png", image(n))
            png(tmp_path / "data" / split / "labels" / f"{n}.png", mask(0, 255))
    spec, document, _ = drafted()
    assert {split: len(spec.regions(split)) for split in spec.split_names} == {
        "test": 3, "train": 4, "val": 3,
    }  # fmt: skip
    assert document["classes"][1]["from"] == [255]


def test_cases_of_one_folder_are_never_in_two_splits(tmp_path, drafted):
    for patient in range(4):
        for kind in ("CT", "MR", "PET"):
            folder = tmp_path / "data" / f"STS_{patient}"
            png(folder / f"{kind}_image.png", image(10 * patient + len(kind)))
            png(folder / f"{kind}_mask.png", mask(0, 1))
    spec, document, _ = drafted()
    assert document["pairing"]["image"] == "STS_{part}/{id}_image.png"
    assert document["group_by"] == "part"
    patients = {
        split: {spec.case(region.case).groups["part"] for region in spec.regions(split)}
        for split in spec.split_names
    }
    assert not patients["train"] & patients["test"]
    assert patients["train"] | patients["test"] == {"0", "1", "2", "3"}


def test_a_table_of_contents_is_pointed_at(tmp_path):
    for n in range(3):
        png(tmp_path / "images" / f"{n}.png", image(n))
        png(tmp_path / "masks" / f"{n}.png", mask(0, 1))
    (tmp_path / "dataset.json").write_text("{}")
    lines = sf.draft_spec(tmp_path, tmp_path / "draft.yaml")
    assert any("dataset.json is there: spec import" in line for line in lines)


def test_colours_of_masks_are_classes(tmp_path, drafted):
    colors = np.array([[255, 0, 0], [0, 0, 255], [255, 255, 255]], "uint8")
    for n in range(3):
        png(tmp_path / "data" / f"{n}_image.png", image(n))
        png(tmp_path / "data" / f"{n}_label.png", colors[np.resize([0, 1, 2, n], (20, 24))])
    spec, document, _ = drafted()
    assert document["labels"] == "colors"
    assert sorted(c["color"] for c in document["classes"]) == sorted(colors.tolist())
    assert sf.check_spec(spec).ok


def test_numbered_objects_are_instances(tmp_path, drafted):
    for n in range(3):
        png(tmp_path / "data" / "images" / f"{n}.png", image(n))
        png(
            tmp_path / "data" / "masks" / f"{n}.png",
            np.arange(480).reshape(20, 24).astype("uint16"),
        )
    spec, _, _ = drafted()
    assert spec.labels.kind == "instances"


def test_values_below_zero_are_no_data(tmp_path, drafted):
    for n in range(3):
        for kind, values in (
            ("image", np.ones((2, 9, 9))),
            ("label", np.resize([-1, 0, 1], (1, 9, 9))),
        ):
            path = tmp_path / "data" / f"{n}_{kind}.tif"
            path.parent.mkdir(exist_ok=True)
            with rasterio.open(
                path, "w", driver="GTiff", count=len(values), height=9, width=9, dtype="int16",
                transform=Affine(10, 0, 5e5 + 1000 * n, 0, -10, 4e6), crs="EPSG:32633",
            ) as out:  # fmt: skip
                out.write(values.astype("int16"))
    spec, document, _ = drafted()
    assert [c.value for c in spec.classes] == [0, 1]
    assert document["classes"][2] == {"value": 2, "name": "no_data_1", "from": [-1], "ignore": True}


def test_a_scene_with_polygons(tmp_path, drafted):
    pytest.importorskip("pyogrio")
    folder = tmp_path / "data"
    folder.mkdir()
    with rasterio.open(
        folder / "city.tif", "w", driver="GTiff", count=1, height=300, width=300, dtype="uint8",
        transform=Affine(1, 0, 5e5, 0, -1, 4e6), crs="EPSG:32633",
    ) as out:  # fmt: skip
        out.write(image().repeat(20, 0)[:300, :1].repeat(300, 1)[None, ..., 0])
    features = [
        {
            "type": "Feature",
            "properties": {"class": use, "height": k},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[5e5 + x, 4e6 - y] for x, y in ((k, k), (k + 90, k), (k, 290), (k, k))]
                ],
            },
        }
        for k, use in enumerate(("roof", "road", "roof"))
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    value = {"type": "FeatureCollection", "crs": crs, "features": features}
    (folder / "city_buildings.geojson").write_text(json.dumps(value))
    spec, document, _ = drafted()
    assert document["labels"] == {"kind": "vector", "class_field": "class"}
    assert [(c.value, c.name) for c in spec.classes] == [
        (0, "background"),
        (1, "road"),
        (2, "roof"),
    ]
    assert sf.check_spec(spec).as_json()["cases"][0]["error"] is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "no images found"),
        (["a.png", "b.png"], "2 images but no labels found"),
        (["a_mask.png", "b_mask.png"], "no images found"),
        (["a.png", "c.png", "b_mask.png"], "no two have the same name"),
    ],
)
def test_a_folder_without_pairs_is_told(tmp_path, files, expected):
    (tmp_path / "data").mkdir()
    for name in files:
        png(tmp_path / "data" / name, mask(0, 1))
    with pytest.raises(SpecError, match=expected):
        sf.draft_spec(tmp_path / "data", tmp_path / "x.yaml")
    done = CliRunner().invoke(command, ["spec", "new", str(tmp_path / "data"), "-o", "x.yaml"])
    assert done.exit_code == 2


def test_a_rule_that_would_find_other_files_is_not_written(tmp_path):
    for n in (1, 2, 3, 4):
        png(tmp_path / "images" / f"{n}.png", image(n))
        png(tmp_path / "masks" / f"{n}.png", mask(0, 1))
    pairs = [Pair(f"images/{n}.png", f"masks/{n}.png") for n in (1, 2, 3)]
    assert general_rule(pairs, tmp_path) is None
