"""The specs of public datasets, each on a miniature of the dataset's folders.

The layouts and label values below are written from the datasets' own descriptions, not from the
specs: that a spec finds its cases, splits and classes in them shows its rules to work.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

import segfocal as sf
from segfocal.data.spec import load_spec, read_spec

DATA_SPECS = Path(__file__).resolve().parents[2] / "data_specs"
BUNDLED = {"nc_landcover", "spine_ct"}
NAMES = sorted(path.stem for path in DATA_SPECS.glob("*.yaml"))
SIDE = 20
counter = itertools.count()


def image(root, name, bands=3, dtype="uint8"):
    """Write noise; every image is another one."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(counter)
    rng = np.random.default_rng(number)
    if name.endswith(".nii.gz"):
        shape = (6, 6, 6) if bands == 1 else (6, 6, 6, bands)
        nib.save(nib.Nifti1Image(rng.integers(-500, 500, shape).astype("int16"), np.eye(4)), path)
        return
    values = rng.integers(1, 250, (bands, SIDE, SIDE)).astype(dtype)
    if name.endswith((".png", ".jpg")):
        Image.fromarray(np.moveaxis(values, 0, -1)).save(path)
        return
    where = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5 + 1000 * number, 0, -1, 4e6)}
    where["photometric"] = "MINISBLACK"  # of four bands GDAL would make the last an alpha
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=SIDE, width=SIDE, dtype=dtype, **where
    ) as out:
        out.write(values)


def labels(root, name, codes, dtype="uint8", like=None, mode=None):
    """Write codes in turn, in one band or as colours, on the grid of another file."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(np.resize(codes, (6, 6, 6)).astype(dtype), np.eye(4)), path)
        return
    colors = np.ndim(codes[0]) == 1
    values = np.array(codes, dtype)[np.resize(np.arange(len(codes)), (SIDE, SIDE))]
    if name.endswith(".png"):
        picture = Image.fromarray(values)
        (picture.convert(mode) if mode else picture).save(path)
        return
    where = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 4e6)}
    if like is not None:
        with rasterio.open(root / like) as source:
            where = {"crs": source.crs, "transform": source.transform}
    values = np.moveaxis(values, -1, 0) if colors else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=SIDE, width=SIDE, dtype=dtype, **where
    ) as out:
        out.write(values)


ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


def loveda(root):
    for part, area in itertools.product(("Train", "Val", "Test"), ("Urban", "Rural")):
        for n in (1, 2):
            image(root, f"{part}/{area}/images_png/{n}{len(part)}{len(area)}.png")
            if part != "Test":
                labels(root, f"{part}/{area}/masks_png/{n}{len(part)}{len(area)}.png", range(8))
    return {"train": 4, "val": 4}


def potsdam(root):
    rows = {2: (10, 14), 3: (10, 14), 4: (10, 15), 5: (10, 15), 6: (7, 15), 7: (7, 13)}
    for tile in (f"{row}_{col}" for row, (a, b) in rows.items() for col in range(a, b + 1)):
        name = f"4_Ortho_RGBIR/top_potsdam_{tile}_RGBIR.tif"
        image(root, name, 4)
        labels(root, f"5_Labels_all/top_potsdam_{tile}_label.tif", ISPRS, like=name)
    return {"train": 20, "val": 4, "test": 14}


def vaihingen(root):
    areas = [*range(1, 9), *range(10, 18), *range(20, 25), *range(26, 36), 37, 38]
    areas = [n for n in areas if n not in (18, 19, 25, 36)]
    for n in sorted({*areas} - {25}):
        name = f"ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area{n}.tif"
        image(root, name)
        truth = "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
        labels(root, f"{truth}/top_mosaic_09cm_area{n}.tif", ISPRS, like=name)
    return {"test": 17}


def landcover_ai(root):
    for n, part in enumerate(("train", "train", "train", "val", "test")):
        image(root, f"output/M-33-20-D-c-4-2_{n}.jpg")
        labels(root, f"output/M-33-20-D-c-4-2_{n}_m.png", range(5))
        with (root / f"{part}.txt").open("a") as out:
            out.write(f"M-33-20-D-c-4-2_{n}\n")
    return {"train": 3, "val": 1, "test": 1}


def inria(root):
    for city, n in itertools.product(("austin", "tyrol-w"), range(1, 37)):
        name = f"AerialImageDataset/train/images/{city}{n}.tif"
        image(root, name)
        labels(root, f"AerialImageDataset/train/gt/{city}{n}.tif", [0, 255], like=name)
    image(root, "AerialImageDataset/test/images/sfo1.tif")
    return {"train": 62, "val": 10}


def deepglobe(root):
    colors = [
        (0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (250, 255, 251),
        (3, 0, 1),
    ]  # fmt: skip
    for part, count in (("training", 6), ("test", 2)):
        for n in range(count):
            image(root, f"data/{part}_data/images/{part[:2]}{n}_sat.jpg")
            labels(root, f"data/{part}_data/masks/{part[:2]}{n}_mask.png", colors)
    return {"test": 2}


def chesapeake(root):
    for part, count in (("train", 3), ("val", 1), ("test", 1)):
        for n in range(count):
            tile = f"md_1m_2013_extended-debuffered-{part}_tiles/m_38075{n}_ne_18_{part}"
            image(root, f"{tile}_naip-new.tif", 4)
            image(root, f"{tile}_naip-old.tif", 4)
            labels(root, f"{tile}_lc.tif", [0, 1, 2, 3, 4, 5, 6, 15], like=f"{tile}_naip-new.tif")
    return {"train": 3, "val": 1, "test": 1}


def cloud_cover(root):
    for part, count in (("public", 5), ("private", 2)):
        for n in range(count):
            folder = f"{part}/{part}_features/{part[1]}{n}"
            image(root, f"{folder}/B02.tif", 1, "uint16")
            with rasterio.open(root / folder / "B02.tif") as first:
                profile, values = first.profile, first.read()
            for more, band in enumerate(("B03", "B04", "B08"), 1):
                with rasterio.open(root / folder / f"{band}.tif", "w", **profile) as out:
                    out.write(values + more)
            labels(root, f"{part}/{part}_labels/{part[1]}{n}.tif", [0, 1], like=f"{folder}/B02.tif")
    return {"test": 2}


def l8_biome(root):
    for n in range(7):
        scene = f"barren/LC8004208201322{n}LGN00/LC8004208201322{n}LGN00"
        image(root, f"{scene}.TIF", 11, "uint16")
        labels(root, f"{scene}_fixedmask.TIF", [0, 64, 128, 192, 255], like=f"{scene}.TIF")
    return {"test": 1, "val": 1}


def sen1floods11(root):
    lists = {"train": ["Ghana_11", "Sri-Lanka_12", "USA_13"], "valid": ["Spain_21"]}
    lists["test"] = ["India_3"]
    for part, chips in lists.items():
        for chip in chips:
            folder = "v1.1/data/flood_events/HandLabeled"
            image(root, f"{folder}/S2Hand/{chip}_S2Hand.tif", 13, "int16")
            image(root, f"{folder}/S1Hand/{chip}_S1Hand.tif", 2, "float32")
            labels(
                root, f"{folder}/LabelHand/{chip}_LabelHand.tif", [-1, 0, 1], "int16",
                like=f"{folder}/S2Hand/{chip}_S2Hand.tif",
            )  # fmt: skip
        table = root / f"v1.1/splits/flood_handlabeled/flood_{part}_data.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips))
    return {"train": 3, "val": 1, "test": 1}


def hls_burn_scars(root):
    for part, count in (("training", 3), ("validation", 2)):
        for n in range(count):
            chip = f"{part}/subsetted_512x512_HLS.S30.T1{n}{part[:3]}.2020248.v1.4"
            image(root, f"{chip}_merged.tif", 6, "float32")
            labels(root, f"{chip}.mask.tif", [-1, 0, 1], "int16", like=f"{chip}_merged.tif")
    return {"train": 3, "val": 2}


def openearthmap(root):
    lists = {"train": ["aachen_1", "aachen_12", "el_rodeo_3"], "val": ["tokyo_1"]}
    lists["test"] = ["kyoto_1"]
    for part, tiles in lists.items():
        for tile in tiles:
            region = tile.rsplit("_", 1)[0]
            image(root, f"{region}/images/{tile}.tif")
            labels(
                root, f"{region}/labels/{tile}.tif", range(9), like=f"{region}/images/{tile}.tif"
            )
        (root / f"{part}.txt").write_text("".join(f"{tile}.tif\n" for tile in tiles))
    return {"train": 3, "val": 1}


def flair1(root):
    for domain, zone in itertools.product((4, 6, 8, 12, 13), ("Z1_NN", "Z2_UU")):
        place = f"D{domain:03}_2021/{zone}"
        name = f"flair_aerial_train/{place}/img/IMG_{domain}{zone[1]}.tif"
        image(root, name, 5)
        truth = f"flair_labels_train/{place}/msk/MSK_{domain}{zone[1]}.tif"
        labels(root, truth, range(1, 20), like=name)
    name = "flair_1_aerial_test/D012_2019/Z1_UU/img/IMG_77.tif"
    image(root, name, 5)
    labels(root, "flair_1_labels_test/D012_2019/Z1_UU/msk/MSK_77.tif", range(1, 20), like=name)
    return {"test": 1, "train": 8, "val": 2}


def spacenet2(root):
    pytest.importorskip("pyogrio")
    for aoi, count in (("2_Vegas", 4), ("3_Paris", 2)):
        for n in range(1, count + 1):
            name = f"AOI_{aoi}_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_{aoi}_img{n}.tif"
            image(root, name, 3, "uint16")
            with rasterio.open(root / name) as scan:
                x, y = scan.transform.c, scan.transform.f
            ring = [[x + 2, y - 2], [x + 9, y - 2], [x + 9, y - 9], [x + 2, y - 9], [x + 2, y - 2]]
            shape = {"type": "Polygon", "coordinates": [ring]}
            feature = {"type": "Feature", "properties": {}, "geometry": shape}
            crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
            features = [] if n == 2 else [feature]  # a tile without buildings
            value = {"type": "FeatureCollection", "crs": crs, "features": features}
            path = root / f"AOI_{aoi}_Train/geojson/buildings/buildings_AOI_{aoi}_img{n}.geojson"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
    return {"train": 5, "test": 1}


def msd(channels, codes):
    def decathlon(root):
        for n in range(1, 7):
            image(root, f"imagesTr/case_{n:03}.nii.gz", channels)
            labels(root, f"labelsTr/case_{n:03}.nii.gz", codes)
        image(root, "imagesTs/case_099.nii.gz", channels)
        (root / "imagesTr" / "._case_001.nii.gz").write_bytes(b"left by a Mac")
        return {"val": 2}

    return decathlon


def acdc(root):
    for patient in (*range(1, 7), 101):
        part = "training" if patient < 101 else "testing"
        place = f"database/{part}/patient{patient:03}/patient{patient:03}"
        image(root, f"{place}_4d.nii.gz", 5)
        for frame in (1, 12):
            image(root, f"{place}_frame{frame:02}.nii.gz", 1)
            labels(root, f"{place}_frame{frame:02}_gt.nii.gz", range(4))
    return {"test": 2, "val": 4}


def btcv(root):
    for n in range(1, 6):
        image(root, f"RawData/Training/img/img{n:04}.nii.gz", 1)
        labels(root, f"RawData/Training/label/label{n:04}.nii.gz", range(14))
    return {"val": 1}


def amos(root):
    for part, ids in (("Tr", (1, 4, 507)), ("Va", (8, 540))):
        for n in ids:
            image(root, f"amos22/images{part}/amos_{n:04}.nii.gz", 1)
            labels(root, f"amos22/labels{part}/amos_{n:04}.nii.gz", range(16))
    return {"train": 3, "val": 2}


def kits(root):
    for n in range(5):
        image(root, f"dataset/case_{n:05}/imaging.nii.gz", 1)
        labels(root, f"dataset/case_{n:05}/segmentation.nii.gz", range(4))
        labels(root, f"dataset/case_{n:05}/instances/kidney_instance-1.nii.gz", [0, 1])
    return {"val": 1}


def brats2021(root):
    for n in range(5):
        case = f"BraTS2021_Training_Data/BraTS2021_{n:05}/BraTS2021_{n:05}"
        for modality in ("flair", "t1", "t1ce", "t2"):
            image(root, f"{case}_{modality}.nii.gz", 1)
        labels(root, f"{case}_seg.nii.gz", [0, 1, 2, 4])
    return {"val": 1}


def totalsegmentator(root):
    names = [entry.name for entry in read_spec(DATA_SPECS / "totalsegmentator.yaml").class_entries]
    assert len(names) == 118
    for n in range(4):
        image(root, f"s{n:04}/ct.nii.gz", 1)
        for place, name in enumerate(("spleen", "aorta", "rib_left_12", "skull")):
            mask = np.zeros(216, int)
            mask[place::5] = 1
            labels(root, f"s{n:04}/segmentations/{name}.nii.gz", mask)
    return {"train": 2, "val": 1, "test": 1}


def isic2018(root):
    for part, count in (("Training", 3), ("Validation", 1), ("Test", 1)):
        for n in range(count):
            number = f"{len(part):02}{n:05}"
            image(root, f"ISIC2018_Task1-2_{part}_Input/ISIC_{number}.jpg")
            name = f"ISIC2018_Task1_{part}_GroundTruth/ISIC_{number}_segmentation.png"
            labels(root, name, [0, 255])
    return {"train": 3, "val": 1, "test": 1}


def chase_db1(root):
    for patient, eye in itertools.product(range(1, 15), "LR"):
        image(root, f"Image_{patient:02}{eye}.jpg")
        labels(root, f"Image_{patient:02}{eye}_1stHO.png", [0, 255], mode="1")
        labels(root, f"Image_{patient:02}{eye}_2ndHO.png", [0, 255], mode="1")
    return {"train": 20, "test": 8}


def dsb2018(root):
    for part, count in (("train", 4), ("test", 1)):
        for n in range(count):
            image(root, f"dsb2018/{part}/images/{part}{n}.tif", 1)
            labels(root, f"dsb2018/{part}/masks/{part}{n}.tif", [0, 1, 2, 300], "uint16",
                   like=f"dsb2018/{part}/images/{part}{n}.tif")  # fmt: skip
    return {"train": 3, "val": 1, "test": 1}


MINIATURES = {
    "loveda": loveda, "potsdam": potsdam, "vaihingen": vaihingen, "landcover_ai": landcover_ai,
    "inria": inria, "deepglobe": deepglobe, "chesapeake": chesapeake, "cloud_cover": cloud_cover,
    "l8_biome": l8_biome, "sen1floods11": sen1floods11, "hls_burn_scars": hls_burn_scars,
    "openearthmap": openearthmap, "flair1": flair1, "spacenet2": spacenet2,
    "msd_01_brain_tumour": msd(4, range(4)), "msd_02_heart": msd(1, range(2)),
    "msd_03_liver": msd(1, range(3)), "msd_04_hippocampus": msd(1, range(3)),
    "msd_05_prostate": msd(2, range(3)), "msd_06_lung": msd(1, range(2)),
    "msd_07_pancreas": msd(1, range(3)), "msd_08_hepatic_vessel": msd(1, range(3)),
    "msd_09_spleen": msd(1, range(2)), "msd_10_colon": msd(1, range(2)),
    "acdc": acdc, "btcv": btcv, "amos": amos, "kits": kits, "brats2021": brats2021,
    "brats2021_regions": brats2021,
    "totalsegmentator": totalsegmentator, "isic2018": isic2018, "chase_db1": chase_db1,
    "dsb2018": dsb2018,
}  # fmt: skip


def test_every_public_spec_has_a_miniature():
    assert set(NAMES) == set(MINIATURES) | BUNDLED
    assert len(MINIATURES) >= 25


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_public_spec_finds_its_cases_splits_and_classes(name, tmp_path):
    expected = MINIATURES[name](tmp_path)
    spec = load_spec(DATA_SPECS / f"{name}.yaml", root=tmp_path)
    counts = {split: len(spec.regions(split)) for split in spec.split_names}
    assert counts == {**counts, **expected}
    assert len(spec.regions("train")) >= 1
    found = sf.check_spec(spec)
    assert found.ok, [finding.text for finding in found.findings]
    for k, label in enumerate(spec.classes):
        pixels = found.class_pixels("train")[k]
        absent = name == "totalsegmentator" and label.name not in (
            "background", "spleen", "aorta", "rib_left_12", "skull",
        )  # fmt: skip
        assert (pixels == 0) == absent, label.name
    assert not any(survey.stray for survey in found.surveys)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_public_spec_says_whose_it_is(name):
    spec = read_spec(DATA_SPECS / f"{name}.yaml")
    assert spec.name == name
    assert spec.licence
    assert spec.citation
    assert spec.source
    assert not spec.verified, "to be set by somebody who has the data"
    colors = [label.color for label in spec.classes]
    assert len(set(colors)) == len(colors)
