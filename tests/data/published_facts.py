"""What the publishers of datasets say of them: codes, channels and splits.

Nothing here is read from a spec: codes, colours, bands and ids are those of the datasets' sites,
papers, ``dataset.json`` and loaders, under the names that the specs use. Cases and paths are those
of the miniatures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

IGNORED = "ignored"


@dataclass(frozen=True)
class Facts:
    """What is published of a dataset.

    Attributes:
        codes: ``"CODE name, CODE name"``, or colours as six hexadecimal digits.
        case: Id of a case of the miniature.
        images: Its files: one that holds all channels, or one for each, in order.
        labels: Its label file.
        channels: Names in the order of bands or files.
        splits: Ids of the splits that are published; ``"rest"`` are the others.
        scale: What stored values are multiplied by.
    """

    codes: str
    case: str
    images: tuple[str, ...]
    labels: str
    channels: str
    splits: dict[str, set[str]] = field(default_factory=dict)
    scale: float = 1.0


def ids(pattern: str, *values: object) -> set[str]:
    return {pattern.format(value) for value in values}


RGB = "red green blue"
ISPRS = (
    "ffffff impervious, 0000ff building, 00ffff low vegetation, 00ff00 tree, ffff00 car, "
    "ff0000 clutter"
)
POTSDAM_TRAIN = (
    "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 "
    "7_7 7_8 7_9 7_10 7_11 7_12"
)
POTSDAM_TEST = "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13"
VAIHINGEN_TRAIN = "1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37"
VAIHINGEN_TEST = "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38"
SENTINEL_2 = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12"
FLOODS = "v1.1/data/flood_events/HandLabeled"
BRATS = "BraTS2021_Training_Data/BraTS2021_00002/BraTS2021_00002"
CLOUDS = "public/public_features/u1/"
BURNT = "training/subsetted_512x512_HLS.S30.T11tra.2020248.v1.4"


def decathlon(codes: str, channels: str) -> Facts:
    image, labels = "imagesTr/case_002.nii.gz", "labelsTr/case_002.nii.gz"
    return Facts(f"0 background, {codes}", "case_002", (image,), labels, channels)


def brain(codes: str) -> Facts:
    files = tuple(f"{BRATS}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2"))
    return Facts(codes, "BraTS2021_00002", files, f"{BRATS}_seg.nii.gz", "FLAIR T1 T1CE T2")


FACTS = {
    "loveda": Facts(
        f"0 {IGNORED}, 1 background, 2 building, 3 road, 4 water, 5 barren, 6 forest, "
        "7 agriculture",
        "Urban_155", ("Train/Urban/images_png/155.png",), "Train/Urban/masks_png/155.png", RGB,
        {
            "train": {"Urban_155", "Urban_255", "Rural_155", "Rural_255"},
            "val": {"Urban_135", "Urban_235", "Rural_135", "Rural_235"},
        },
    ),
    "potsdam": Facts(
        ISPRS, "2_10", ("4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif",),
        "5_Labels_all/top_potsdam_2_10_label.tif", "red green blue nir",
        {"test": set(POTSDAM_TEST.split()), "rest": set(POTSDAM_TRAIN.split())},
    ),
    "vaihingen": Facts(  # colour infrared
        ISPRS, "5", ("ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area5.tif",),
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area5.tif",
        "nir red green",
        {"test": set(VAIHINGEN_TEST.split()), "rest": set(VAIHINGEN_TRAIN.split())},
    ),
    "landcover_ai": Facts(
        "0 background, 1 building, 2 woodland, 3 water, 4 road",
        "M-33-20-D-c-4-2_0", ("output/M-33-20-D-c-4-2_0.jpg",), "output/M-33-20-D-c-4-2_0_m.png",
        RGB,
        {
            "train": ids("M-33-20-D-c-4-2_{}", 0, 1, 2), "val": {"M-33-20-D-c-4-2_3"},
            "test": {"M-33-20-D-c-4-2_4"},
        },
    ),
    "inria": Facts(
        "0 other, 255 building", "austin_7", ("AerialImageDataset/train/images/austin7.tif",),
        "AerialImageDataset/train/gt/austin7.tif", RGB,
        {
            "val": ids("austin_{}", *range(1, 6)) | ids("tyrol-w_{}", *range(1, 6)),
            "train": ids("austin_{}", *range(6, 37)) | ids("tyrol-w_{}", *range(6, 37)),
        },
    ),
    "deepglobe": Facts(
        "00ffff urban, ffff00 agriculture, ff00ff rangeland, 00ff00 forest, 0000ff water, "
        f"ffffff barren, 000000 {IGNORED}",
        "tr1", ("data/training_data/images/tr1_sat.jpg",), "data/training_data/masks/tr1_mask.png",
        RGB, {"test": {"te0", "te1"}},
    ),
    "chesapeake": Facts(
        f"0 {IGNORED}, 1 water, 2 tree canopy, 3 low vegetation, 4 barren, 5 other impervious, "
        f"6 road, 15 {IGNORED}",
        "md_m_380751_ne_18_train",
        ("md_1m_2013_extended-debuffered-train_tiles/m_380751_ne_18_train_naip-new.tif",),
        "md_1m_2013_extended-debuffered-train_tiles/m_380751_ne_18_train_lc.tif",
        "red green blue nir",
        {
            "train": ids("md_m_38075{}_ne_18_train", 0, 1, 2),
            "val": {"md_m_380750_ne_18_val"}, "test": {"md_m_380750_ne_18_test"},
        },
    ),
    "cloud_cover": Facts(  # Sentinel-2: B02 blue, B03 green, B04 red, B08 near infrared
        "0 clear, 1 cloud", "u1",
        (f"{CLOUDS}B02.tif", f"{CLOUDS}B03.tif", f"{CLOUDS}B04.tif", f"{CLOUDS}B08.tif"),
        "public/public_labels/u1.tif", "blue green red nir",
        {"test": {"r0", "r1"}, "rest": ids("u{}", *range(5))},
    ),
    "l8_biome": Facts(
        f"0 {IGNORED}, 64 shadow, 128 clear, 192 thin cloud, 255 cloud", "LC80042082013222LGN00",
        ("barren/LC80042082013222LGN00/LC80042082013222LGN00.TIF",),
        "barren/LC80042082013222LGN00/LC80042082013222LGN00_fixedmask.TIF",
        "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11",
    ),
    "sen1floods11": Facts(
        f"-1 {IGNORED}, 0 dry, 1 water", "Ghana_11", (f"{FLOODS}/S2Hand/Ghana_11_S2Hand.tif",),
        f"{FLOODS}/LabelHand/Ghana_11_LabelHand.tif", SENTINEL_2,
        {
            "train": {"Ghana_11", "Sri-Lanka_12", "USA_13"}, "val": {"Spain_21"},
            "test": {"India_3"},
        },
        scale=1e-4,
    ),
    "hls_burn_scars": Facts(
        f"-1 {IGNORED}, 0 other, 1 burn scar", BURNT.split("/")[1], (f"{BURNT}_merged.tif",),
        f"{BURNT}.mask.tif", "blue green red nir swir1 swir2",
        {
            "train": ids("subsetted_512x512_HLS.S30.T1{}tra.2020248.v1.4", 0, 1, 2),
            "val": ids("subsetted_512x512_HLS.S30.T1{}val.2020248.v1.4", 0, 1),
        },
    ),
    "openearthmap": Facts(
        f"0 {IGNORED}, 1 bareland, 2 rangeland, 3 developed, 4 road, 5 tree, 6 water, "
        "7 agriculture, 8 building",
        "aachen_12", ("aachen/images/aachen_12.tif",), "aachen/labels/aachen_12.tif", RGB,
        {"train": {"aachen_1", "aachen_12", "el_rodeo_3"}, "val": {"tokyo_1"}},
    ),
    "flair1": Facts(
        "1 building, 2 pervious surface, 3 impervious surface, 4 bare soil, 5 water, 6 coniferous, "
        "7 deciduous, 8 brushwood, 9 vineyard, 10 herbaceous vegetation, 11 agricultural land, "
        f"12 plowed land, 13 swimming pool, 14 snow, 15 {IGNORED}, 16 {IGNORED}, 17 {IGNORED}, "
        f"18 greenhouse, 19 {IGNORED}",
        "D006_2021_Z1_NN_61", ("flair_aerial_train/D006_2021/Z1_NN/img/IMG_61.tif",),
        "flair_labels_train/D006_2021/Z1_NN/msk/MSK_61.tif", "red green blue nir elevation",
        {"test": {"D012_2019_Z1_UU_77"}},
    ),
    "msd_01_brain_tumour": decathlon(
        "1 edema, 2 non-enhancing tumour, 3 enhancing tumour", "FLAIR T1w T1gd T2w"
    ),
    "msd_02_heart": decathlon("1 left atrium", "MRI"),
    "msd_03_liver": decathlon("1 liver, 2 cancer", "CT"),
    "msd_04_hippocampus": decathlon("1 anterior, 2 posterior", "MRI"),
    "msd_05_prostate": decathlon("1 peripheral zone, 2 transition zone", "T2 ADC"),
    "msd_06_lung": decathlon("1 cancer", "CT"),
    "msd_07_pancreas": decathlon("1 pancreas, 2 cancer", "CT"),
    "msd_08_hepatic_vessel": decathlon("1 vessel, 2 tumour", "CT"),
    "msd_09_spleen": decathlon("1 spleen", "CT"),
    "msd_10_colon": decathlon("1 colon cancer primaries", "CT"),
    "acdc": Facts(
        "0 background, 1 right ventricle, 2 myocardium, 3 left ventricle", "patient002_frame12",
        ("database/training/patient002/patient002_frame12.nii.gz",),
        "database/training/patient002/patient002_frame12_gt.nii.gz", "MRI",
        {
            "test": {"patient101_frame01", "patient101_frame12"},
            "rest": ids("patient{:03}_frame01", *range(1, 7))
            | ids("patient{:03}_frame12", *range(1, 7)),
        },
    ),
    "btcv": Facts(
        "0 background, 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 5 esophagus, "
        "6 liver, 7 stomach, 8 aorta, 9 inferior vena cava, 10 portal and splenic veins, "
        "11 pancreas, 12 right adrenal gland, 13 left adrenal gland",
        "0002", ("RawData/Training/img/img0002.nii.gz",),
        "RawData/Training/label/label0002.nii.gz", "CT",
    ),
    "amos": Facts(
        "0 background, 1 spleen, 2 right kidney, 3 left kidney, 4 gall bladder, 5 esophagus, "
        "6 liver, 7 stomach, 8 aorta, 9 postcava, 10 pancreas, 11 right adrenal gland, "
        "12 left adrenal gland, 13 duodenum, 14 bladder, 15 prostate or uterus",
        "amos_0004", ("amos22/imagesTr/amos_0004.nii.gz",), "amos22/labelsTr/amos_0004.nii.gz",
        "intensity",
        {"train": ids("amos_{:04}", 1, 4, 507), "val": ids("amos_{:04}", 8, 540)},
    ),
    "kits": Facts(
        "0 background, 1 kidney, 2 tumour, 3 cyst", "case_00002",
        ("dataset/case_00002/imaging.nii.gz",), "dataset/case_00002/segmentation.nii.gz", "CT",
    ),
    "brats2021": brain("0 background, 1 necrotic core, 2 edema, 4 enhancing tumour"),
    # The challenge's regions; a code may stand in several.
    "brats2021_regions": brain(
        "1 whole tumour, 2 whole tumour, 4 whole tumour, 1 tumour core, 4 tumour core, "
        "4 enhancing tumour"
    ),
    "isic2018": Facts(
        "0 skin, 255 lesion", "ISIC_0800001", ("ISIC2018_Task1-2_Training_Input/ISIC_0800001.jpg",),
        "ISIC2018_Task1_Training_GroundTruth/ISIC_0800001_segmentation.png", RGB,
        {
            "train": ids("ISIC_{}", "0800000", "0800001", "0800002"), "val": {"ISIC_1000000"},
            "test": {"ISIC_0400000"},
        },
    ),
    "chase_db1": Facts(  # its masks hold one bit
        "0 background, 1 vessel, 255 vessel", "03_R", ("Image_03R.jpg",), "Image_03R_1stHO.png",
        RGB,
        {
            "train": ids("{:02}_L", *range(1, 11)) | ids("{:02}_R", *range(1, 11)),
            "test": ids("{:02}_L", *range(11, 15)) | ids("{:02}_R", *range(11, 15)),
        },
    ),
    "dsb2018": Facts(  # numbered objects; these are the miniature's numbers
        "0 background, 1 nucleus, 2 nucleus, 300 nucleus", "train1",
        ("dsb2018/train/images/train1.tif",), "dsb2018/train/masks/train1.tif", "intensity",
        {"test": {"test0"}, "rest": ids("train{}", *range(4))},
    ),
}  # fmt: skip


def sides(name: str, *order: str) -> list[str]:
    return [f"{name}_{side}" for side in order]


LEFT_RIGHT, RIGHT_LEFT = ("left", "right"), ("right", "left")
TOTALSEGMENTATOR = [  # the class map "total" of version 2, from number 1
    "spleen", *sides("kidney", *RIGHT_LEFT), "gallbladder", "liver", "stomach", "pancreas",
    *sides("adrenal_gland", *RIGHT_LEFT), *sides("lung", "upper_lobe_left", "lower_lobe_left"),
    *sides("lung", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right"), "esophagus",
    "trachea", "thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate",
    *sides("kidney_cyst", *LEFT_RIGHT), "sacrum",
    *sides("vertebrae", "S1", *(f"L{n}" for n in range(5, 0, -1))),
    *sides("vertebrae", *(f"T{n}" for n in range(12, 0, -1))),
    *sides("vertebrae", *(f"C{n}" for n in range(7, 0, -1))),
    "heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk",
    *sides("subclavian_artery", *RIGHT_LEFT), *sides("common_carotid_artery", *RIGHT_LEFT),
    *sides("brachiocephalic_vein", *LEFT_RIGHT), "atrial_appendage_left", "superior_vena_cava",
    "inferior_vena_cava", "portal_vein_and_splenic_vein", *sides("iliac_artery", *LEFT_RIGHT),
    *sides("iliac_vena", *LEFT_RIGHT), *sides("humerus", *LEFT_RIGHT),
    *sides("scapula", *LEFT_RIGHT), *sides("clavicula", *LEFT_RIGHT), *sides("femur", *LEFT_RIGHT),
    *sides("hip", *LEFT_RIGHT), "spinal_cord", *sides("gluteus_maximus", *LEFT_RIGHT),
    *sides("gluteus_medius", *LEFT_RIGHT), *sides("gluteus_minimus", *LEFT_RIGHT),
    *sides("autochthon", *LEFT_RIGHT), *sides("iliopsoas", *LEFT_RIGHT), "brain", "skull",
    *sides("rib_left", *map(str, range(1, 13))), *sides("rib_right", *map(str, range(1, 13))),
    "sternum", "costal_cartilages",
]  # fmt: skip
