"""Labels of every kind through the reader that training and scores use."""

from __future__ import annotations

import json
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from segfocal.card import IGNORE_INDEX
from segfocal.data.reading import open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.errors import ChannelError, ScanError, SegfocalWarning, SpecError
from segfocal.types import full_window

GRID = Affine(10, 0, 500000, 0, -10, 4000000)
IGN = IGNORE_INDEX


@pytest.fixture
def write(tmp_path):
    def write(name, *bands, transform=GRID, crs="EPSG:32633", **options):
        bands = [np.atleast_2d(band) for band in bands]
        with rasterio.open(
            tmp_path / name, "w", height=bands[0].shape[0], width=bands[0].shape[1],
            count=len(bands), dtype=bands[0].dtype, transform=transform, crs=crs, **options,
        ) as out:  # fmt: skip
            out.write(np.stack(bands))

    return write


@pytest.fixture
def read(tmp_path):
    """Return a function that makes a spec over one case and reads all of it."""

    def read(classes, *, case=None, ndim=2, **changes):
        suffix = ".tif" if ndim == 2 else ".nii.gz"
        document = {
            "name": "made",
            "ndim": ndim,
            "channels": ["x"],
            "classes": [
                entry if isinstance(entry, dict) else {"value": entry, "name": f"c{entry}"}
                for entry in classes
            ],
            "cases": [{"id": "a", "image": f"a{suffix}", "labels": f"l{suffix}", **(case or {})}],
            "splits": {"train": [{"case": "a"}]},
            **changes,
        }
        document["cases"][0] = {k: v for k, v in document["cases"][0].items() if v is not None}
        spec = DatasetSpec.model_validate(DatasetSpec.spelled_out(document)).located(tmp_path)
        with ExitStack() as stack:
            (reader,) = open_regions(spec, "train", stack)
            return reader.read(full_window(reader.shape))

    return read


def test_values_are_merged_remapped_and_ignored(write, read):
    write("a.tif", np.ones((1, 7), "uint8"))
    write("l.tif", np.array([[64, 128, 192, 255, 0, 15, -1]], "int16"))
    classes = [
        {"value": 4, "name": "clear", "from": [128]},
        {"value": 2, "name": "cloud", "from": [192, 255]},
        {"value": 7, "name": "shadow", "from": [64]},
        {"value": 9, "name": "fill", "from": [0, 15], "ignore": True},
    ]
    assert read(classes, ignore_values=[-1])[2].tolist() == [[2, 0, 1, 1, IGN, IGN, IGN]]


def test_the_ignored_class_may_be_named_once(write, read):
    write("a.tif", np.ones((1, 3), "uint8"))
    write("l.tif", np.array([[0, 1, 2]], "uint8"))
    assert read([0, 1, 2], ignore_class="c1")[2].tolist() == [[0, IGN, 1]]


def test_a_value_that_only_a_class_is_written_with_is_no_label(write, read):
    write("a.tif", np.ones((1, 2), "uint8"))
    write("l.tif", np.array([[5, 1]], "uint8"))
    classes = [0, {"value": 1, "name": "b", "from": [5]}]
    with pytest.raises(SpecError, match=r"l\.tif: holds label value 1; expected a class \(0, 5\)"):
        read(classes)


def test_colours_are_classes(write, read):
    write("a.tif", np.ones((1, 4), "uint8"))
    colors = [(0, 0, 255), (1, 0, 253), (255, 255, 255), (0, 0, 0)]
    write("l.tif", *np.array(colors, "uint8").T)
    classes = [
        {"value": 0, "name": "road", "color": [255, 255, 255]},
        {"value": 1, "name": "house", "color": [9, 9, 9], "from": [[0, 0, 255]]},
        {"value": 2, "name": "unknown", "color": [0, 0, 0], "ignore": True},
    ]
    found = read(classes, labels={"kind": "colors", "tolerance": 2})[2]
    assert found.tolist() == [[1, 1, 0, IGN]]
    with pytest.raises(SpecError, match=r"holds label value \(1, 0, 253\); expected a class"):
        read(classes, labels="colors")


def test_numbered_objects_in_a_png(write, read, tmp_path):
    write("a.tif", np.ones((1, 4), "uint8"))
    write("l.tif", np.array([[0, 1, 300, 2]], "uint16"))
    assert read([0, 3], labels="instances")[2].tolist() == [[0, 1, 1, 1]]


def test_labels_in_another_band_and_nodata_that_is_a_class(write, read):
    write("a.tif", np.ones((1, 3), "uint8"))
    write("l.tif", *np.array([[[9, 9, 9]], [[0, 1, 2]]], "uint8"), nodata=0)
    assert read([0, 1, 2], labels={"band": 2})[2].tolist() == [[IGN, 1, 2]]
    honour = {"band": 2, "honour_nodata": False}
    assert read([0, 1, 2], labels=honour)[2].tolist() == [[0, 1, 2]]
    assert read([0, 1], labels={"band": 2, "nodata": 2})[2].tolist() == [[IGN, 1, IGN]]


def test_nodata_and_a_mask_both_count_in_labels(write, read, tmp_path):
    write("a.tif", np.ones((1, 4), "uint8"))
    write("l.tif", np.array([[0, 1, 2, 1]], "uint8"), nodata=0)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "l.tif", "r+") as out,
    ):
        out.write_mask(np.array([[True, True, True, False]]))
    assert read([0, 1, 2])[2].tolist() == [[IGN, 1, 2, IGN]]


def test_classes_that_were_not_looked_for_are_ignored_in_that_case_only(write, read):
    write("a.tif", np.ones((1, 4), "uint8"))
    write("l.tif", np.array([[0, 1, 2, 9]], "uint8"))
    options = {"ignore_values": [9]}
    assert read([0, 1, 2], **options)[2].tolist() == [[0, 1, 2, IGN]]
    case = {"annotated": ["c0", "c2"]}
    assert read([0, 1, 2], case=case, **options)[2].tolist() == [[0, IGN, 2, IGN]]


def test_labels_on_another_grid_are_read_nearest_with_a_notice(write, read):
    write("a.tif", np.ones((4, 4), "uint8"))
    write("l.tif", np.array([[1, 2]], "uint8"), transform=Affine(20, 0, 500000, 0, -20, 4000000))
    with pytest.warns(SegfocalWarning, match=r"l\.tif: lies on another grid than .*a\.tif"):
        found = read([1, 2])[2]
    assert found.tolist() == [[0, 0, 1, 1]] * 2 + [[IGN] * 4] * 2


def test_labels_of_a_volume_in_another_orientation_and_spacing(read, tmp_path):
    labels = np.arange(8).reshape(2, 2, 2).astype("uint8")
    affine = np.diag([2.0, 2.0, 2.0, 1])
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "l.nii.gz")
    fine = np.diag([1.0, 1.0, 1.0, 1])
    fine[:3, 3] = -0.5  # centres of a finer grid over the same box
    image = nib.Nifti1Image(np.ones((4, 4, 4), "uint8"), fine)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.warns(SegfocalWarning, match="another grid"):
        found = read(range(8), ndim=3)[2]
    np.testing.assert_array_equal(found, labels.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def polygon(*corners, **properties):
    ring = [list(corner) for corner in (*corners, corners[0])]
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def geojson(path, *features):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def rectangle(cols, rows, **properties):
    x = [500000 + 10 * col for col in cols]
    y = [4000000 - 10 * row for row in rows]
    return polygon((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), **properties)


def test_polygons_are_classes_and_the_rest_is_background(write, read, tmp_path):
    pytest.importorskip("pyogrio")
    write("a.tif", np.ones((2, 4), "uint8"))
    geojson(
        tmp_path / "l.geojson",
        rectangle((0, 2), (0, 1), use="wheat"),
        rectangle((1, 3), (0, 2), use="winter rye"),
    )
    classes = [
        0,
        {"value": 1, "name": "wheat"},
        {"value": 2, "name": "rye", "from": ["winter rye"]},
    ]
    case = {"labels": "l.geojson"}
    rule = {"kind": "vector", "class_field": "use"}
    assert read(classes, case=case, labels=rule)[2].tolist() == [[1, 2, 2, 0], [0, 2, 2, 0]]
    rule = {**rule, "draw_order": "area", "outside": "ignore"}
    assert read(classes, case=case, labels=rule)[2].tolist() == [[1, 1, 2, IGN], [IGN, 2, 2, IGN]]
    rule = {**rule, "draw_order": "file", "outside": "wheat"}
    assert read(classes, case=case, labels=rule)[2].tolist() == [[1, 2, 2, 1], [1, 2, 2, 1]]


def test_polygons_without_a_field_are_the_one_class(write, read, tmp_path):
    pytest.importorskip("pyogrio")
    write("a.tif", np.ones((1, 4), "uint8"))
    geojson(tmp_path / "l.geojson", rectangle((1, 2), (0, 1)))
    found = read([0, 5], case={"labels": "l.geojson"}, labels="vector")[2]
    assert found.tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("kind", ["vector", "raster"])
def test_only_the_annotated_area_is_labelled(write, read, tmp_path, kind):
    write("a.tif", np.ones((1, 4), "uint8"))
    write("l.tif", np.array([[0, 1, 1, 0]], "uint8"))
    if kind == "vector":
        pytest.importorskip("pyogrio")
        geojson(tmp_path / "area.geojson", rectangle((1, 3), (0, 1)))
        case = {"area": "area.geojson"}
    else:
        write("area.tif", np.array([[0, 1, 2, 0]], "uint8"))
        case = {"area": "area.tif"}
    assert read([0, 1], case=case)[2].tolist() == [[IGN, 1, 1, IGN]]


def test_bands_of_several_files_by_name(write, read):
    write("red.tif", np.full((1, 2), 3, "uint8"))
    write("two.tif", np.full((1, 2), 5, "uint8"), np.full((1, 2), 7, "uint8"))
    write("l.tif", np.array([[0, 1]], "uint8"))
    case = {"image": None, "images": {"red": "red.tif", "rest": "two.tif"}}
    options = {"bands": {"rest": ["nir", "swir"]}}
    values, _, _ = read([0, 1], case=case, channels=["swir", "red"], **options)
    assert values[0, 0].tolist() == [7, 3]
    with pytest.raises(ChannelError, match=r"two\.tif: its 2 channels have no names"):
        read([0, 1], case=case, channels=["red"])
    with pytest.raises((ChannelError, ScanError), match="bands of spec 'made' names 2"):
        read([0, 1], case=case, channels=["red"], bands={"rest": ["nir"]})


def test_names_for_bands_of_one_file_choose_among_them(write, read):
    write("a.tif", *[np.full((1, 1), number, "uint8") for number in (10, 20, 30)])
    write("l.tif", np.array([[0]], "uint8"))
    values, _, _ = read([0, 1], channels=["nir", "green"], bands=["green", "red", "nir"])
    assert values[0, 0].tolist() == [30, 10]


def test_scale_offset_and_nodata_that_the_file_does_not_say(write, read):
    write("a.tif", np.array([[0, 1000, 2000]], "int16"))
    write("l.tif", np.array([[0, 1, 1]], "uint8"))
    values, valid, index = read([0, 1], scale=1e-4, offset={"x": -0.1}, nodata=0)
    np.testing.assert_allclose(values[0, 1:, 0], [0.0, 0.1], atol=1e-7)
    assert np.isnan(values[0, 0, 0])
    assert valid.tolist() == [[False, True, True]]
    assert index.tolist() == [[IGN, 1, 1]]


def test_a_file_for_each_class(write, read, tmp_path):
    write("a.tif", np.ones((1, 4), "uint8"))
    write("m_liver.tif", np.array([[1, 1, 0, 0]], "uint8"))
    write("m_left kidney.tif", np.array([[0, 255, 255, 0]], "uint8"))
    classes = [
        0, {"value": 3, "name": "liver"}, {"value": 2, "name": "kidney", "from": ["left kidney"]},
        {"value": 9, "name": "spleen"},
    ]  # fmt: skip
    case = {"labels": "m_{class}.tif"}
    assert read(classes, case=case, labels="masks")[2].tolist() == [[1, 2, 2, 0]]
    with pytest.raises(ScanError, match="no mask of any class"):
        read(classes, case={"labels": "n_{class}.tif"}, labels="masks")
    with pytest.raises(ValueError, match=r"have {class} in their paths"):
        read(classes, labels="masks")
