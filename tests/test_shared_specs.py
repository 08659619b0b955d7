"""Specs of the real scans beside the checkout: what a check says of them is right.

Counts are compared with those of GDAL, numpy and shapely over whole files.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

import segfocal as sf
from segfocal.cli import segfocal as command

SPECS = Path(__file__).resolve().parent / "fixtures" / "shared_specs"


def checked(name, shared_data, root=None):
    spec = sf.load_spec(SPECS / f"{name}.yaml", root=root)
    if root is None:
        files = spec.files(spec.cases[0])
        assert all(Path(file).is_relative_to(shared_data.resolve()) for file in files)
    return sf.check_spec(spec)


def texts(found, level):
    return [finding.text for finding in found.findings if finding.level == level]


def band(path, number=1):
    with rasterio.open(path) as source:
        return source.read(number)


def test_labels_of_lataseno_on_another_grid_and_crs(shared_data):
    found = checked("lataseno", shared_data)
    folder = shared_data / "sat_lataseno_s2_clc2018"
    with (
        rasterio.open(folder / "s2_lataseno_ex.tif") as scan,
        rasterio.open(folder / "clc_2018_lataseno.tif") as labels,
    ):
        warped = np.full(scan.shape, 255, "uint8")
        reproject(
            rasterio.band(labels, 1), warped, dst_transform=scan.transform, dst_crs=scan.crs,
            dst_nodata=255, resampling=Resampling.nearest,
        )  # fmt: skip
    values, counts = np.unique(warped, return_counts=True)
    ours = found.surveys[0].values
    assert sum(ours.values()) == warped.size
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        assert ours[value] == pytest.approx(count, abs=max(20, 0.02 * count))
    assert found.ok
    assert texts(found, "notice")[-1] == "labels lie on another grid and are read nearest"
    assert "class 'built-up' (1) occurs in no split" in texts(found, "warning")


def test_polygons_of_dead_trees_by_drone(shared_data):
    shapely = pytest.importorskip("shapely")
    pyogrio = pytest.importorskip("pyogrio")
    found = checked("deadwood", shared_data)
    path = shared_data / "sat_evo_deadwood_drone" / "R70C21.gpkg"
    _, _, wkb, (kinds,) = pyogrio.raw.read(path, columns=["label"])
    shapes = shapely.from_wkb(wkb)
    with rasterio.open(path.with_suffix(".tif")) as scan:
        a, _, c, _, e, f = tuple(scan.transform)[:6]
        rows, cols = np.indices(scan.shape) + 0.5
    expected = np.zeros(rows.shape, int)
    for kind, code in (("Standing", 1), ("Fallen", 2)):
        for shape in shapes[kinds == kind]:
            expected[shapely.contains_xy(shape, c + a * cols, f + e * rows)] = code
    counts = [found.surveys[0].values[code] for code in (0, 1, 2)]
    assert counts == pytest.approx([int((expected == code).sum()) for code in (0, 1, 2)], abs=15)
    assert found.ok


def test_polygons_of_buildings_in_atlanta(shared_data):
    pytest.importorskip("pyogrio")
    found = checked("atlanta", shared_data)
    values = found.surveys[0].values
    assert values[1] / (900 * 900) == pytest.approx(0.042, abs=0.0005)
    assert found.ok


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("nc_dense", "strata.tif"),
        ("nc_sparse", "landsat96_labelled_pixels.tif"),
        ("nc_polygons", ""),
    ],
)
def test_north_carolina_from_two_files_and_three_kinds_of_labels(shared_data, name, labels):
    folder = shared_data / "sat_nc_landsat7_landclass96"
    found = checked(name, shared_data)
    assert found.ok
    with rasterio.open(folder / "landsat_multiband.tif") as scan:
        usable = (scan.read() != scan.nodata).all(0) & (
            band(folder / "lsat7_2000_70.tif") != -32768
        )
    assert found.surveys[0].usable == usable.sum()
    if not labels:
        pytest.importorskip("pyogrio")
        assert 0 < found.surveys[0].labelled < 10_000
        return
    codes = np.where(usable, band(folder / labels), 0)
    for split, cols in (("train", slice(0, 236)), ("test", slice(252, 489))):
        assert found.class_pixels(split) == [int((codes[:, cols] == k).sum()) for k in range(1, 8)]
    assert texts(found, "warning")[-1] == (
        "labels have the scan's transform but another CRS tag: taken to coincide"
    )


def test_two_sensors_of_spain_on_one_grid(shared_data):
    found = checked("spain", shared_data)
    labels = band(shared_data / "sat_sen1floods11_spain" / "Spain_7370579_LabelHand.tif")
    assert found.ok
    assert found.surveys[0].values == {k: int((labels == k).sum()) for k in (-1, 0, 1)}
    with rasterio.open(shared_data / "sat_sen1floods11_spain" / "Spain_7370579_S2Hand.tif") as scan:
        green = scan.read(scan.descriptions.index("B3") + 1)
    assert found.surveys[0].channels["B3"].high == green.max()


def test_hippocampus_by_its_own_table_of_contents(shared_data, tmp_path):
    folder = shared_data / "med_msd_hippocampus"
    out = tmp_path / "hippocampus.yaml"
    sf.import_spec(folder, out)
    spec = sf.load_spec(out)
    assert [c.name for c in spec.classes] == ["background", "Anterior", "Posterior"]
    assert len(spec.cases) == 200
    found = sf.check_spec(spec, pixels=False)
    assert found.ok
    assert len(found.surveys) == 200


@pytest.mark.slow
def test_labels_of_all_hippocampi_are_counted(shared_data):
    found = checked("hippocampus", shared_data)
    paths = sorted((shared_data / "med_msd_hippocampus" / "labelsTr").glob("h*.nii.gz"))
    labels = [np.asarray(nib.load(path).dataobj) for path in paths]
    total = np.add(found.class_pixels("train"), found.class_pixels("val"))
    assert total.tolist() == [sum(int((own == k).sum()) for own in labels) for k in range(3)]


def test_sarcoma_with_a_mask_from_another_modality(shared_data):
    own, other = (checked(name, shared_data) for name in ("sarcoma_ct", "sarcoma_pet_mask"))
    for survey in own.surveys:
        path = shared_data / "med_sts_sarcoma" / survey.case.id / "CT_mask.nii.gz"
        assert survey.values[1] == int((np.asarray(nib.load(path).dataobj) == 1).sum())
    assert own.ok
    assert other.ok
    assert "labels lie on another grid and are read nearest" in texts(other, "notice")
    # One tumour in two modalities, drawn apart: about as many voxels of the CT.
    for a, b in zip(own.surveys, other.surveys, strict=True):
        assert b.values[1] == pytest.approx(a.values[1], rel=0.2)


def test_regions_of_a_brain_with_both_sides_merged(shared_data):
    found = checked("colin27", shared_data)
    assert found.ok
    folder = shared_data / "med_colin27_aal"
    values = np.asarray(nib.load(folder / "aal.nii.gz").dataobj)
    names = [line.split()[:2] for line in (folder / "aal.nii.txt").read_text().splitlines() if line]

    def merged(name):  # they end in the side, those of the vermis in a number
        return "Vermis" if name.startswith("Vermis") else name[:-2].replace("_", " ")

    for k, label in enumerate(found.spec.classes[1:], 1):
        own = [int(value) for value, name in names if merged(name) == label.name]
        inside = np.isin(values, own)
        assert found.class_pixels("train")[k] == inside[:87].sum() > 0, label.name
        assert found.class_pixels("test")[k] == inside[94:].sum() > 0, label.name
    assert sum(found.surveys[0].values.values()) == values.size


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_nuclei_are_instances_in_png(shared_data):
    found = checked("nuclei", shared_data)
    assert found.ok
    for survey in found.surveys[:5]:
        numbers = band(shared_data / "med2d_dsb2018_nuclei" / survey.case.labels)
        assert survey.values == {0: int((numbers == 0).sum()), 1: int((numbers > 0).sum())}


def test_spine_in_its_own_orientation(shared_data):
    found = checked("spine", shared_data)
    assert found.ok
    assert found.surveys[0].shape == nib.load(found.spec.files(found.spec.cases[0])[0]).shape


def test_clouds_of_two_sensors_after_conversion(shared_data, tmp_path):
    for sensor in ("landsat5", "landsat7"):
        arrays = np.load(shared_data / "sat_cloud_csmask" / f"{sensor}.npz")
        for kind, values in (("image", arrays["img"]), ("labels", arrays["msk"])):
            with rasterio.open(
                tmp_path / f"{sensor}_{kind}.tif", "w", driver="GTiff", count=values.shape[-1],
                height=512, width=512, dtype=values.dtype, transform=Affine(30, 0, 0, 0, -30, 0),
            ) as out:  # fmt: skip
                out.write(np.moveaxis(values, -1, 0))
    found = checked("cloud", shared_data, root=tmp_path)
    for survey in found.surveys:
        arrays = np.load(shared_data / "sat_cloud_csmask" / f"{survey.case.id}.npz")
        expected = np.bincount(arrays["msk"].ravel())
        assert survey.values == {k: n for k, n in enumerate(expected.tolist()) if n}


def test_the_table_is_short_and_tells_what_is_there(shared_data):
    done = CliRunner().invoke(command, ["spec", "check", str(SPECS / "nc_dense.yaml")])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) < 30
    assert any("wake" in line and "443 x 489" in line and "28.5" in line for line in lines)
    assert any("forest" in line and "47.0 %" in line for line in lines)
    assert lines[-1] == "ready to train on"


@pytest.mark.parametrize(
    ("folder", "image", "labels"),
    [
        ("med_colin27_aal", "ch2.nii.gz", "aal.nii.gz"),
        ("sat_lataseno_s2_clc2018", "s2_lataseno_ex.tif", "clc_2018_lataseno.tif"),
        ("sat_nc_landsat7_landclass96", "landsat_multiband.tif", "strata.tif"),
        (
            "sat_sen1floods11_spain",
            "Spain_7370579_S1Hand.tif",
            "Spain_7370579_LabelHand.tif",
        ),
    ],
)
def test_a_draft_pairs_by_place_what_names_do_not(shared_data, tmp_path, folder, image, labels):
    out = tmp_path / "draft.yaml"
    sf.draft_spec(shared_data / folder, out)
    spec = sf.load_spec(out)
    (case,) = spec.cases
    assert next(iter(case.files.values())) == image
    assert case.labels == labels
    assert sf.check_spec(spec).as_json()["cases"][0]["error"] is None


def test_a_draft_of_two_scanners(shared_data, tmp_path):
    sf.draft_spec(shared_data / "med_tptbox_spine", tmp_path / "draft.yaml")
    spec = sf.load_spec(tmp_path / "draft.yaml")
    assert [case.id.split("_")[1] for case in spec.cases] == ["ct", "mri"]
    assert all("_seg-" in case.labels for case in spec.cases)
