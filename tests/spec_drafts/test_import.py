"""Imports of other conventions: what is written is read back as a spec that finds its files."""

from __future__ import annotations

import itertools
import json
import zlib
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.data.reading import open_regions
from segfocal.errors import OutputExistsError, SpecError
from segfocal.types import full_window


@pytest.fixture
def volume(tmp_path):
    def volume(name, values=None, channels=None):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if values is None:
            shape = (4, 5, 6) if channels is None else (4, 5, 6, channels)
            values = np.arange(np.prod(shape)).reshape(shape) + zlib.crc32(name.encode()) % 9999
        nib.save(nib.Nifti1Image(np.asarray(values, "int16"), np.eye(4)), path)

    return volume


@pytest.fixture
def write_json(tmp_path):
    def write_json(value, name="dataset.json"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        return path

    return write_json


@pytest.fixture
def imported(tmp_path):
    def imported(source=None, **options):
        out = tmp_path / "specs" / "x.yaml"
        out.parent.mkdir(exist_ok=True)
        sf.import_spec(source or tmp_path / "data", out, overwrite=True, **options)
        return sf.load_spec(out)

    return imported


def seg(*values):
    return np.resize(np.array(values), (4, 5, 6))


NNUNET = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "edema": 1, "ignore": 2},
    "numTraining": 5,
    "file_ending": ".nii.gz",
    "name": "Brain 2",
    "licence": "CC BY 4.0",
}


def nnunet_files(volume, count=5, channels=2, values=(0, 1, 2)):
    for n in range(count):
        for channel in range(channels):
            volume(f"imagesTr/case_{n:03}_{channel:04}.nii.gz")
        volume(f"labelsTr/case_{n:03}.nii.gz", seg(*values))


def test_nnunet_with_a_file_for_each_channel(volume, write_json, imported):
    nnunet_files(volume)
    write_json(NNUNET)
    spec = imported()
    assert spec.name == "Brain_2"
    assert spec.channels == ("T1", "FLAIR")
    assert [(c.value, c.name) for c in spec.classes] == [(0, "background"), (1, "edema")]
    assert [case.id for case in spec.cases] == [f"case_{n:03}" for n in range(5)]
    assert spec.case("case_001").files == {
        "T1": "imagesTr/case_001_0000.nii.gz", "FLAIR": "imagesTr/case_001_0001.nii.gz",
    }  # fmt: skip
    assert len(spec.regions("val")) == 1
    with ExitStack() as stack:
        reader = open_regions(spec, "train", stack)[0]
        values, _, index = reader.read(full_window(reader.shape))
    assert values.shape == (4, 5, 6, 2)
    np.testing.assert_array_equal(index, np.where(seg(0, 1, 2) == 2, -1, seg(0, 1, 2)))
    assert sf.check_spec(spec).ok


def test_nnunet_with_held_out_cases_and_one_channel_with_a_ct_window(volume, write_json, imported):
    nnunet_files(volume, channels=1)
    for n in (7, 8):
        volume(f"imagesTs/case_{n:03}_0000.nii.gz")
        volume(f"labelsTs/case_{n:03}.nii.gz", seg(0, 1))
    write_json({**NNUNET, "channel_names": {"0": "CT"}})
    spec = imported()
    assert {region.case for region in spec.regions("test")} == {"case_007", "case_008"}
    assert len(spec.regions("train")) + len(spec.regions("val")) == 5
    assert spec.normalization == {"*": "ct"}


def test_nnunet_regions_overlap_in_the_order_of_the_file(volume, write_json, imported):
    nnunet_files(volume, channels=1, values=(0, 1, 2, 3))
    write_json(
        {
            **NNUNET,
            "channel_names": {"0": "T1"},
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3},
            "regions_class_order": [2, 1, 3],
        }
    )
    spec = imported()
    assert spec.task == "regions"
    found = {entry.name: (entry.value, entry.meanings) for entry in spec.class_entries}
    assert found == {"whole": (2, (1, 2, 3)), "core": (1, (2, 3)), "active": (3, (3,))}
    assert sf.check_spec(spec).ok


def test_nnunet_of_colour_images_in_one_file(tmp_path, write_json, imported):
    from PIL import Image

    for n in range(5):
        for folder, name, mode in (("imagesTr", f"x_{n}_0000", "RGB"), ("labelsTr", f"x_{n}", "L")):
            path = tmp_path / "data" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 6), (1,) if mode == "L" else (3, 4, 5)).save(path)
    write_json(
        {**NNUNET, "channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png",
         "labels": {"background": 0, "road": 1}}
    )  # fmt: skip
    spec = imported()
    assert spec.ndim == 2
    with ExitStack() as stack:
        reader = open_regions(spec, "train", stack)[0]
        assert reader.read(full_window(reader.shape))[0][0, 0].tolist() == [3, 4, 5]


def test_nnunet_whose_numbers_start_anew_for_the_test(volume, write_json, imported):
    nnunet_files(volume, channels=1)
    for name in ("imagesTs/a_001_0000.nii.gz", "labelsTs/a_001.nii.gz"):
        volume(name, *([seg(0, 1)] if "labels" in name else []))
    volume("imagesTr/a_001_0000.nii.gz")
    volume("labelsTr/a_001.nii.gz", seg(0, 1))
    write_json({**NNUNET, "channel_names": {"0": "CT"}})
    spec = imported()
    assert {"Tr_a_001", "Ts_a_001"} <= {case.id for case in spec.cases}
    assert [region.case for region in spec.regions("test")] == ["Ts_a_001"]


def test_nnunet_with_lists_of_files(volume, write_json, imported):
    for n in range(5):
        volume(f"here/a{n}.nii.gz")
        volume(f"there/b{n}.nii.gz")
        volume(f"seg/{n}.nii.gz", seg(0, 1))
    listed = {
        f"c{n}": {"images": [f"here/a{n}.nii.gz", f"there/b{n}.nii.gz"], "label": f"seg/{n}.nii.gz"}
        for n in range(5)
    }
    write_json({**NNUNET, "dataset": listed})
    spec = imported()
    assert spec.case("c3").files == {"T1": "here/a3.nii.gz", "FLAIR": "there/b3.nii.gz"}


DECATHLON = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema", "2": "tumour"},
    "licence": "CC-BY-SA 4.0",
    "training": [
        {"image": f"./imagesTr/B_{n}.nii.gz", "label": f"./labelsTr/B_{n}.nii.gz"} for n in range(5)
    ],
}


def decathlon_files(volume, count=5):
    for n in range(count):
        volume(f"imagesTr/B_{n}.nii.gz", channels=2)
        volume(f"labelsTr/B_{n}.nii.gz", seg(0, 1, 2))


@pytest.mark.parametrize("turned", [False, True])
def test_a_decathlon_task_with_modalities_in_one_volume(volume, write_json, imported, turned):
    decathlon_files(volume)
    (path := write_json(DECATHLON)).parent.joinpath("imagesTr", "._B_0.nii.gz").write_bytes(b"mac")
    if turned:
        write_json(
            {**DECATHLON, "labels": {name: int(k) for k, name in DECATHLON["labels"].items()}}
        )
    spec = imported(path)
    assert [(c.value, c.name) for c in spec.classes] == [
        (0, "background"), (1, "edema"), (2, "tumour"),
    ]  # fmt: skip
    assert [case.id for case in spec.cases] == [f"B_{n}" for n in range(5)]
    with ExitStack() as stack:
        reader = open_regions(spec, "val", stack)[0]
        values, _, _ = reader.read(full_window(reader.shape))
    np.testing.assert_array_equal(values - values[0, 0, 0, 0], np.arange(240).reshape(4, 5, 6, 2))


def test_a_decathlon_task_lists_what_is_to_be_used(volume, write_json, imported):
    decathlon_files(volume, 7)
    write_json(DECATHLON)
    assert len(imported().cases) == 5


@pytest.mark.parametrize("space", ["", "_space-MNI"])
def test_bids_derivatives(tmp_path, volume, imported, space):
    for n in range(1, 6):
        root = f"derivatives/seg/sub-{n:02}/anat"
        place = root if space else f"sub-{n:02}/anat"
        volume(f"{place}/sub-{n:02}{space}_T1w.nii.gz")
        volume(f"{root}/sub-{n:02}{space}_desc-x_dseg.nii.gz", seg(0, 3, 7))
        volume(f"derivatives/other/sub-{n:02}/anat/readme.nii.gz")
    (tmp_path / "data" / "derivatives" / "seg" / "desc-x_dseg.tsv").write_text(
        "index\tname\tcolor\n3\tthalamus\t#ff0000\n7\tputamen\t#00ff00\n"
    )
    (tmp_path / "data" / "dataset_description.json").write_text(
        json.dumps({"Name": "Brains", "License": "CC0", "BIDSVersion": "1.9.0"})
    )
    spec = imported()
    assert (spec.name, spec.licence, spec.group_by) == ("Brains", "CC0", "subject")
    assert [(c.value, c.name) for c in spec.classes] == [
        (0, "background"), (3, "thalamus"), (7, "putamen"),
    ]  # fmt: skip
    assert [case.groups["subject"] for case in spec.cases] == [f"{n:02}" for n in range(1, 6)]
    assert sf.check_spec(spec).ok


def test_bids_without_a_table_has_the_values_of_its_labels(tmp_path, volume, imported):
    for n in "12345":
        volume(f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
        volume(f"derivatives/m/sub-{n}/anat/sub-{n}_dseg.nii.gz", seg(0, 4, 9))
    spec = imported()
    assert [(c.value, c.name) for c in spec.classes] == [
        (0, "background"), (4, "class_4"), (9, "class_9"),
    ]  # fmt: skip
    assert sf.check_spec(spec).ok
    notes = sf.import_spec(tmp_path / "data", tmp_path / "again.yaml")
    assert any("fill in their names" in note for note in notes)


BIDS_TABLE = "index\tname\tcolor\n1\tgrey\t#ff0000\n2\twhite\t#00FF7f\n3\tother\tn/a\n"


def bids_table(tmp_path):
    (tmp_path / "data" / "dseg.tsv").write_text(BIDS_TABLE)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("_run-1", "_run-1"),
        ("_acq-mprage", "_acq-mprage"),
        ("_acq-mprage_run-02", "_acq-mprage_run-02_space-orig_desc-manual"),
        ("", "_space-orig"),
        ("", "_space-T1w"),
        ("_acq-mprage", ""),
        ("", "_acq-manual"),
        ("", "_space-odd"),  # of no known meaning, on the grid of the image
    ],
)
def test_bids_entities_of_images_and_labels(tmp_path, volume, imported, image, labels):
    for n in "12345":
        volume(f"sub-{n}/anat/sub-{n}{image}_T1w.nii.gz")
        volume(f"derivatives/m/sub-{n}/anat/sub-{n}{labels}_dseg.nii.gz", seg(0, 1, 2, 3))
    bids_table(tmp_path)
    spec = imported()
    assert {case.files["*"] for case in spec.cases} == {
        f"sub-{n}/anat/sub-{n}{image}_T1w.nii.gz" for n in "12345"
    }
    for case in spec.cases:
        n = case.groups["subject"]
        assert case.labels == f"derivatives/m/sub-{n}/anat/sub-{n}{labels}_dseg.nii.gz"
    assert sf.check_spec(spec).ok


def test_bids_runs_are_cases_that_stay_together(tmp_path, volume, imported):
    for n, run in itertools.product("123456", "12"):
        volume(f"sub-{n}/anat/sub-{n}_run-{run}_T1w.nii.gz")
        volume(f"sub-{n}/anat/sub-{n}_run-{run}_label-x_dseg.nii.gz", seg(0, 1, 2, 3))
    volume("derivatives/m/sub-1/anat/sub-1_dseg.nii.gz", seg(0, 1))
    bids_table(tmp_path)
    spec = imported()
    assert {case.id for case in spec.cases} == {f"{n}_{r}" for n in "123456" for r in "12"}
    for case in spec.cases:
        name = "sub-{subject}/anat/sub-{subject}_run-{run}".format(**case.groups)
        assert (case.files["*"], case.labels) == (
            f"{name}_T1w.nii.gz", f"{name}_label-x_dseg.nii.gz",
        )  # fmt: skip
    assert len(spec.regions("val")) % 2 == 0
    assert sf.check_spec(spec).ok


def test_bids_colours_are_those_of_the_table(tmp_path, volume, imported):
    for n in "12345":
        volume(f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
        volume(f"sub-{n}/anat/sub-{n}_dseg.nii.gz", seg(0, 1, 2, 3))
    bids_table(tmp_path)
    colors = {label.name: label.color for label in imported().classes}
    assert (colors["grey"], colors["white"]) == ((255, 0, 0), (0, 255, 127))
    assert len(set(colors.values())) == 4


def test_bids_labels_in_another_space_are_not_paired_with_raw_images(tmp_path, volume, imported):
    for n in "12345":
        volume(f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
        name = f"derivatives/m/sub-{n}/anat/sub-{n}_space-MNI_dseg.nii.gz"
        volume(name, np.zeros((9, 9, 9)))
    bids_table(tmp_path)
    with pytest.raises(SpecError, match=r"no image such as .*_space-MNI_T1w.nii.gz for the labels"):
        imported()


@pytest.mark.parametrize("kind", ["nnunet", "decathlon", "bids"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_cases_than_five_make_fewer_folds(tmp_path, volume, write_json, kind, count):
    if kind == "nnunet":
        nnunet_files(volume, count)
        write_json(NNUNET)
    elif kind == "decathlon":
        decathlon_files(volume, count)
        write_json({**DECATHLON, "training": DECATHLON["training"][:count]})
    else:
        for n in range(count):
            volume(f"sub-{n}/anat/sub-{n}_T1w.nii.gz")
            volume(f"sub-{n}/anat/sub-{n}_dseg.nii.gz", seg(0, 1, 2, 3))
        bids_table(tmp_path)
    out = tmp_path / "x.yaml"
    lines = sf.import_spec(tmp_path / "data", out)
    spec = sf.load_spec(out)
    assert len(spec.cases) == count
    if count == 1:
        assert lines[:2] == [
            "1 case (train 1)",
            "one case to train on: hold out a part of it with rows, cols or planes in splits",
        ]
        return
    assert f"only {count} cases or groups: {count} folds in place of 5" in lines
    assert spec.folds == count
    held = [{region.case for region in spec.with_fold(k).regions("val")} for k in range(count)]
    assert set.union(*held) == {case.id for case in spec.cases}
    assert [len(cases) for cases in held] == [1] * count


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (["noNorm"], {"*": "none"}),
        (["noNorm", "nonorm"], {"*": "none"}),
        (["CT", "noNorm", "PET"], {"CT": "ct", "noNorm": "none", "PET": "scan"}),
    ],
)
def test_nnunet_channels_without_normalization(volume, write_json, imported, channels, expected):
    nnunet_files(volume, channels=len(channels))
    write_json({**NNUNET, "channel_names": {str(k): name for k, name in enumerate(channels)}})
    assert imported().normalization == expected


def test_bids_sessions_stay_with_their_subject(tmp_path, volume, imported):
    for n in range(1, 6):
        for session in "ab":
            name = f"sub-{n}/ses-{session}/anat/sub-{n}_ses-{session}"
            volume(f"{name}_T2w.nii.gz")
            volume(f"derivatives/p/{name}_dseg.nii.gz", seg(0, 1))
    (tmp_path / "data" / "dseg.tsv").write_text("index\tname\n1\tlesion\n")
    spec = imported()
    assert len(spec.cases) == 10
    assert spec.channels == ("T2w",)
    for case in spec.cases:
        other = next(c for c in spec.cases if c.groups["subject"] == case.groups["subject"])
        splits = [
            {s for s in spec.split_names if c.id in {r.case for r in spec.regions(s)}}
            for c in (case, other)
        ]
        assert splits[0] == splits[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"labels": {}}, "neither channel_names"),
        ({**NNUNET, "file_ending": ".nrrd"}, "file_ending: found '.nrrd'; expected one of"),
        ({**NNUNET, "labels": {"a": "x"}}, "labels: found 'x'; expected a whole number"),
        ({**NNUNET, "labels": {"a": [1, 2], "b": 3}}, "regions_class_order: found None"),
        ({**NNUNET, "channel_names": {"a": "b"}}, "expected 0, 1, 2"),
        ({**DECATHLON, "training": [3]}, "training.0: found 3; expected image and label"),
        ({**DECATHLON, "labels": []}, "labels: found []"),
        (NNUNET, "no case was found"),
        ([1], "holds list; expected an object"),
    ],
)
def test_a_wrong_dataset_json_is_refused_by_name(tmp_path, write_json, imported, value, expected):
    write_json(value)
    with pytest.raises(SpecError) as caught:
        imported()
    assert expected in str(caught.value)
    assert not (tmp_path / "specs" / "x.yaml").exists()


def test_the_command_writes_once(tmp_path, volume, write_json):
    nnunet_files(volume)
    write_json(NNUNET)
    out = tmp_path / "x.yaml"
    arguments = ["spec", "import", str(tmp_path / "data"), "-o", str(out)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert "5 cases (train 4, val 1)" in done.stderr
    before = out.read_text()
    assert CliRunner().invoke(command, arguments).exit_code == 2
    with pytest.raises(OutputExistsError):
        sf.import_spec(tmp_path / "data", out)
    assert out.read_text() == before
