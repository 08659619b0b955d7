"""Drafts from folders whose names do not say which files belong together."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from rasterio.transform import Affine

import segfocal as sf
from segfocal.errors import SpecError
from segfocal.spec_drafts.by_place import placed_cases

SIDE = 64
HERE = Affine(10, 0, 5e5, 0, -10, 4e6)


def scene(path, bands, *, crs="EPSG:32633", transform=HERE, names=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands[0].shape[0],
        width=bands[0].shape[1], dtype=bands[0].dtype, transform=transform, crs=crs,
    ) as out:  # fmt: skip
        out.write(np.stack(bands))
        for place, name in enumerate(names, 1):
            out.set_band_description(place, name)


def noise(seed=0, dtype="uint8", shape=(SIDE, SIDE)):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def areas(*values, dtype="uint8", shape=(SIDE, SIDE)):
    """Labels in quarters, as they are alike over areas."""
    rows, cols = np.indices(shape)[-2:]
    half = rows.shape[-1] // 2
    return np.array(values)[(2 * (rows >= half) + (cols >= half)) % len(values)].astype(dtype)


@pytest.fixture
def drafted(tmp_path):
    def drafted():
        out = tmp_path / "draft.yaml"
        notes = sf.draft_spec(tmp_path / "data", out, overwrite=True)
        assert "names do not pair the files: check which scan has which labels" in notes
        spec = sf.load_spec(out)
        assert sf.check_spec(spec).as_json()["cases"][0]["error"] is None
        return spec, yaml.safe_load(out.read_text()), out.read_text()

    return drafted


def test_two_sensors_on_one_grid_are_the_channels_of_one_case(tmp_path, drafted):
    folder = tmp_path / "data"
    scene(folder / "ebro_S1.tif", [noise(1), noise(2)], names=("VV", "VH"))
    scene(folder / "ebro_S2.tif", [noise(3), noise(4)])
    scene(folder / "ebro_water.tif", [areas(0, 1)])
    scene(folder / "elsewhere.tif", [areas(0, 1)], transform=Affine(10, 0, 7e5, 0, -10, 4e6))
    spec, document, _ = drafted()
    assert spec.channels == ("VV", "VH", "band_1", "band_2")
    assert document["cases"] == [
        {
            "id": "ebro",
            "images": {"s1": "ebro_S1.tif", "s2": "ebro_S2.tif"},
            "labels": "ebro_water.tif",
        }
    ]
    assert [c.value for c in spec.classes] == [0, 1]


def test_labels_on_another_grid_and_crs_belong_to_the_scene_they_lie_on(tmp_path, drafted):
    folder = tmp_path / "data"
    scene(folder / "s2_march.tif", [noise(1, "uint16"), noise(2, "uint16"), noise(3, "uint16")])
    # 15 degrees east, 36.14 north is the corner of zone 33 at 500 km, 4 000 km.
    scene(
        folder / "corine.tif", [areas(3, 5, 8)], crs="EPSG:4326",
        transform=Affine(0.0005, 0, 14.99, 0, -0.0005, 36.15),
    )  # fmt: skip
    _, document, _ = drafted()
    assert document["cases"] == [
        {"id": "s2_march", "image": "s2_march.tif", "labels": "corine.tif"}
    ]


def test_an_atlas_is_known_by_what_it_holds(tmp_path, drafted):
    folder = tmp_path / "data"
    folder.mkdir()
    shape = (12, 20, 20)
    for name, values in (
        ("brain", noise(1, "uint8", shape)),
        ("regions", areas(0, 3, 9, shape=shape)),
        ("few", areas(0, 0, 0, 4, shape=shape)),
    ):
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 1, 1, 1])), folder / f"{name}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    spec, document, text = drafted()
    assert document["cases"] == [
        {"id": "brain", "image": "brain.nii.gz", "labels": "regions.nii.gz"}
    ]
    assert "# Other labels of the same place: few.nii.gz" in text
    assert [c.value for c in spec.classes] == [0, 3, 9]


def test_scans_with_other_channels_are_told(tmp_path):
    folder = tmp_path / "data"
    for number, bands in enumerate((3, 3, 1)):
        place = Affine(10, 0, 5e5 + 5000 * number, 0, -10, 4e6)
        own = [noise(10 * number + k, "uint16") for k in range(bands)]
        scene(folder / f"a{number}.tif", own, transform=place)
        scene(folder / f"b{number}.tif", [areas(1, 2)], transform=place)
    notes = sf.draft_spec(folder, tmp_path / "draft.yaml")
    assert "1 scans with other channels are left out, such as a2" in notes
    spec = sf.load_spec(tmp_path / "draft.yaml")
    assert {case.id: case.labels for case in spec.cases} == {"a0": "b0.tif", "a1": "b1.tif"}


def test_polygons_lie_on_the_only_scene(tmp_path, drafted):
    pytest.importorskip("pyogrio")
    folder = tmp_path / "data"
    scene(folder / "flight_7.tif", [noise(1), noise(2), noise(3)])
    scene(folder / "surface_model.tif", [noise(5, "uint16")])
    ring = [[5e5 + x, 4e6 - y] for x, y in ((0, 0), (300, 0), (300, 300), (0, 0))]
    feature = {
        "type": "Feature",
        "properties": {"kind": "tree"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    value = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (folder / "crowns.geojson").write_text(json.dumps(value))
    _, document, _ = drafted()
    assert document["cases"][0]["labels"] == "crowns.geojson"
    assert set(document["cases"][0]["images"]) == {"flight_7", "surface_model"}
    assert document["labels"]["kind"] == "vector"


def test_plain_images_of_equal_sides_are_not_taken_for_one_scan(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, values in (("a", noise()), ("b", noise(1)), ("c", areas(0, 1))):
        Image.fromarray(values).save(folder / f"{name}.png")
    assert placed_cases(folder, ["a.png", "b.png", "c.png"]) == []
    with pytest.raises(SpecError, match="3 images but no labels found"):
        sf.draft_spec(folder, tmp_path / "draft.yaml")


def test_arrays_are_pointed_at(tmp_path):
    np.savez(tmp_path / "scene.npz", image=noise())
    with pytest.raises(SpecError, match=r"scene\.npz is not read: write its arrays as GeoTIFF"):
        sf.draft_spec(tmp_path, tmp_path / "draft.yaml")
