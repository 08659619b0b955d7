"""Pairing rules: which files make up a case, and what is told when they do not fit."""

from __future__ import annotations

import pytest

from segfocal.data.cases import Pairing, paired
from segfocal.errors import SpecError


@pytest.fixture
def files(tmp_path):
    def files(*names: str):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return files


def test_images_and_labels_meet_by_their_groups(files):
    root = files(
        "rome/img/1.tif", "rome/gt/1.tif", "oslo/img/1.tif", "oslo/gt/1.tif", "oslo/img/2.tif",
        "rome/gt/9.tif",
    )  # fmt: skip
    rule = Pairing(image="{city}/img/{n}.tif", labels="{city}/gt/{n}.tif")
    cases, alone = paired(rule, root)
    assert [(c.id, c.image, c.labels, c.groups) for c in cases] == [
        ("oslo_1", "oslo/img/1.tif", "oslo/gt/1.tif", {"city": "oslo", "n": "1"}),
        ("rome_1", "rome/img/1.tif", "rome/gt/1.tif", {"city": "rome", "n": "1"}),
    ]
    assert set(alone) == {"oslo/img/2.tif: no labels", "rome/gt/9.tif: no image"}


def test_a_file_for_each_band_and_labels_with_a_group_of_their_own(files):
    root = files("chips/a/B02.tif", "chips/a/B08.tif", "chips/b/B02.tif", "masks/a_v3.tif")
    rule = Pairing(
        images={"blue": "chips/{chip}/B02.tif", "nir": "chips/{chip}/B08.tif"},
        labels="masks/{chip}_v{version}.tif",
    )
    (case,), alone = paired(rule, root)
    assert (case.id, case.files) == ("a", {"blue": "chips/a/B02.tif", "nir": "chips/a/B08.tif"})
    assert case.groups == {"chip": "a", "version": "3"}
    assert alone == ("chips/b/B02.tif: no nir, labels",)


def test_an_expression_of_a_group_holds_in_all_patterns(files):
    root = files("tyrol-w12.tif", "austin1.tif", "gt/tyrol-w12.tif", "gt/austin1.tif")
    rule = Pairing(image=r"{city:[a-z-]+}{n:\d+}.tif", labels="gt/{city}{n}.tif")
    cases, alone = paired(rule, root)
    assert [case.groups for case in cases] == [
        {"city": "austin", "n": "1"}, {"city": "tyrol-w", "n": "12"},
    ]  # fmt: skip
    assert alone == ()


def test_one_vector_file_may_label_all_scenes(files):
    root = files("a.tif", "b.tif", "buildings.gpkg", "areas/a.geojson")
    rule = Pairing(image="{id}.tif", labels="buildings.gpkg", area="areas/{id}.geojson")
    cases, _ = paired(rule, root)
    assert [(c.id, c.labels, c.area) for c in cases] == [
        ("a", "buildings.gpkg", "areas/a.geojson"),
        ("b", "buildings.gpkg", None),
    ]


def test_excluded_images_and_an_id_of_ones_own(files):
    root = files("1_raw.tif", "1_gt.tif", "2_raw.tif", "2_gt.tif")
    rule = Pairing(image="{n}_raw.tif", labels="{n}_gt.tif", id="scene-{n}", exclude=("2_*.tif",))
    cases, alone = paired(rule, root)
    assert [case.id for case in cases] == ["scene-1"]
    assert alone == ("2_gt.tif: no image",)


@pytest.mark.parametrize("with_header", [True, False])
def test_lines_of_a_table_are_cases(files, with_header):
    root = files()
    lines = "image,mask,split\n" if with_header else ""
    (root / "t.csv").write_text(lines + "x/1.tif,y/1.png,train\nx/2.tif,y/2.png,\n")
    columns = () if with_header else ("image", "mask", "split")
    rule = Pairing(csv="t.csv", image="{image}", labels="{mask}", columns=columns)
    cases, _ = paired(rule, root)
    assert [(c.id, c.image, c.labels, c.groups.get("split")) for c in cases] == [
        ("1", "x/1.tif", "y/1.png", "train"),
        ("2", "x/2.tif", "y/2.png", None),
    ]


def test_classes_that_were_looked_for_follow_from_a_group(files):
    root = files("A/1.nii", "A/1_seg.nii", "B/2.nii", "B/2_seg.nii")
    rule = Pairing(
        image=r"{site}/{n:\d}.nii",
        labels="{site}/{n}_seg.nii",
        annotated={"group": "site", "classes": {"A": ("liver",)}},
    )
    cases, _ = paired(rule, root)
    assert {case.id: case.annotated for case in cases} == {"A_1": ("liver",), "B_2": None}


@pytest.mark.parametrize(
    ("names", "rule", "expected"),
    [
        (("a.tif",), {"image": "{i}.tif", "labels": "{i}.png"}, "1 files match '{i}.tif', and 0"),
        (("a.tif", "a_1.png", "a_2.png"), {"image": "{i}.tif", "labels": "{i}_*.png"}, "both a_1"),
        (
            ("x/1.tif", "y/1.tif", "x/1.png", "y/1.png"),
            {"image": "{d}/{n}.tif", "labels": "{d}/{n}.png", "id": "{n}"},
            "two cases have the id '1'",
        ),
        (("a.tif", "a.png"), {"image": "{i}.tif", "labels": "{i}.png", "id": "{k}"}, "not a group"),
        ((), {"csv": "t.csv", "image": "{a}", "labels": "{b}"}, "cannot be read as a table"),
    ],
)
def test_what_does_not_fit_is_told(files, names, rule, expected):
    with pytest.raises(SpecError) as caught:
        paired(Pairing.model_validate(rule), files(*names))
    assert expected in str(caught.value)


def test_a_table_whose_lines_differ_is_refused(files):
    root = files()
    (root / "t.csv").write_text("a,b\n1.tif,1.png\n2.tif\n")
    with pytest.raises(SpecError, match="line 3 has 1 columns; expected 2"):
        paired(Pairing(csv="t.csv", image="{a}", labels="{b}"), root)
    (root / "t.csv").write_text("a,b\n1.tif,1.png\n")
    with pytest.raises(SpecError, match=r"cannot fill in '{c}'; expected columns .* a, b"):
        paired(Pairing(csv="t.csv", image="{a}", labels="{c}"), root)
