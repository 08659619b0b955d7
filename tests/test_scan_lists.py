"""What lists of scans stand for, and the names of outputs."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from segfocal.errors import ScanError, ScanNotFoundError
from segfocal.output_names import name_outputs
from segfocal.scan_lists import list_scans


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


def outputs(*inputs: object) -> list[str]:
    return [str(name) for name in name_outputs(list_scans(inputs))]


def test_a_folder_stands_for_its_scans(tmp_path):
    touch(
        tmp_path, "b.tif", "a.nii.gz", "C.NII", "notes.txt", ".hidden.tif", "a.tif.json", "d/e.tif"
    )
    scans = list_scans([tmp_path])
    assert [Path(scan.name).name for scan in scans] == ["C.NII", "a.nii.gz", "b.tif"]
    assert outputs(tmp_path) == ["C.nii.gz", "a.nii.gz", "b.tif"]


def test_a_pattern_keeps_folders_apart(tmp_path):
    touch(tmp_path, "x/scene.tif", "y/scene.tif", "y/z/scene.tif")
    assert outputs(f"{tmp_path}/**/*.tif") == ["x/scene.tif", "y/scene.tif", "y/z/scene.tif"]
    assert outputs(f"{tmp_path}/x/*.tif") == ["scene.tif"]


def test_a_table_may_name_outputs_and_files_of_one_scan(tmp_path):
    touch(tmp_path, "t1.nii", "pet.nii", "b.tif")
    (tmp_path / "scans.csv").write_text(
        "id,input,output\n1,t1.nii; pet.nii,case/one.nii.gz\n2,b.tif,\n3,https://x.org/c.tif,\n"
    )
    scans = list_scans([tmp_path / "scans.csv"])
    assert scans[0].files == (str(tmp_path / "t1.nii"), str(tmp_path / "pet.nii"))
    assert [str(name) for name in name_outputs(scans)] == ["case/one.nii.gz", "b.tif", "c.tif"]
    (tmp_path / "tabs.tsv").write_text("input\toutput\nb.tif\tq.tif\n")
    assert outputs(tmp_path / "tabs.tsv") == ["q.tif"]


def test_outputs_never_collide(tmp_path):
    touch(tmp_path, "x/a.tif", "y/a.tif", "y/A.tif", "y/a.vrt", "y/other.tif")
    paths = [
        tmp_path / name for name in ("x/a.tif", "y/a.tif", "y/A.tif", "y/a.vrt", "y/other.tif")
    ]
    names = outputs(*paths)
    assert len({name.casefold() for name in names}) == 5
    assert names[4] == "other.tif"
    assert outputs(*paths) == names
    assert sorted(outputs(*paths[::-1])) == sorted(names)


def test_scans_that_share_a_first_file_have_names_of_their_own(tmp_path):
    touch(tmp_path, "base.tif", "rest1.tif", "rest2.tif")
    (tmp_path / "scans.csv").write_text("input\nbase.tif;rest1.tif\nbase.tif;rest2.tif\n")
    names = outputs(tmp_path / "scans.csv")
    assert len(set(names)) == 2
    assert all(name.startswith("base-") for name in names)


def test_nothing_is_named_like_a_file_beside_another_output(tmp_path):
    touch(tmp_path, "a.tif", "A.Uncertainty.tif", "a.probabilities.tif", "b.uncertainty.tif")
    names = outputs(tmp_path)
    assert [name for name in names if "-" not in name] == ["a.tif", "b.uncertainty.tif"]
    assert sorted(name.split("-")[0] for name in names if "-" in name) == [
        "A.Uncertainty", "a.probabilities"
    ]  # fmt: skip
    touch(tmp_path / "v", "a.nii.gz", "a.uncertainty.nii")
    names = outputs(tmp_path / "v")
    assert names[0] == "a.nii.gz"
    assert names[1].startswith("a.uncertainty-")


def test_a_table_may_not_send_an_output_beside_another(tmp_path):
    (tmp_path / "t.csv").write_text("input,output\na.tif,o.tif\nb.tif,o.uncertainty.tif\n")
    with pytest.raises(ScanError, match=r"o\.uncertainty\.tif: .*stands beside the output"):
        outputs(tmp_path / "t.csv")
    (tmp_path / "v.csv").write_text("input,output\na.nii,o.nii\nb.nii,o.nii.gz\n")
    with pytest.raises(ScanError, match="expected a name of its own"):  # both of o.ctbl
        outputs(tmp_path / "v.csv")
    (tmp_path / "p.csv").write_text("input,output\na.tif,o.tif\nb.tif,o.tiff\n")
    scans = list_scans([tmp_path / "p.csv"])
    assert [str(name) for name in name_outputs(scans)] == ["o.tif", "o.tiff"]
    with pytest.raises(ScanError, match="expected a name of its own"):  # both of o.gpkg
        name_outputs(scans, ".gpkg")


def test_rows_of_nothing_at_all_are_passed_over(tmp_path):
    (tmp_path / "t.csv").write_text("input,output\na.tif,o.tif\n,\na.tif,o.tif\n")
    assert outputs(tmp_path / "t.csv") == ["o.tif"]


@pytest.mark.parametrize("pattern", ["{}", "{}/*", "{}/**/*"])
def test_what_cannot_be_read_does_not_vanish(pattern, tmp_path):
    touch(tmp_path, "a.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "annex" / "link.tif")
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "folder").mkdir()
    scans = list_scans([pattern.format(tmp_path)])
    assert [Path(scan.name).name for scan in scans] == [
        "a.tif", "link.tif", "loop.tif", "store.zarr"
    ]  # fmt: skip


def test_a_scan_is_listed_once(tmp_path):
    touch(tmp_path, "a.tif", "b.tif")
    assert outputs(tmp_path / "a.tif", tmp_path, f"{tmp_path}/*.tif") == ["a.tif", "b.tif"]


def test_files_of_one_scan_and_remote_names(tmp_path):
    scans = list_scans([["a.tif", "b.tif"], "/vsizip/x.zip/in/c.tif", "s3://bucket/d.tif"])
    assert scans[0].files == ("a.tif", "b.tif")
    assert [str(name) for name in name_outputs(scans)] == ["a.tif", "c.tif", "d.tif"]


@pytest.mark.parametrize("inputs", [[], ["{}/empty"], ["{}/*.tif"]])
def test_nothing_to_segment_is_told(inputs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanNotFoundError, match=r"no scans|no file matches"):
        list_scans([text.format(tmp_path) for text in inputs])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("scan\na.tif\n", "has scan; expected a row per scan and a column 'input'"),
        ("input,output\na.tif,../a.tif\n", "outside the folder"),
        ("input,output\na.tif,o.tif\nb.tif,O.tif\n", "output of two scans"),
        ("id,input\n1,a.tif\n2,\n", "row 2 has no input"),
        ("id,input\n1,a.tif\n2, ; \n", "row 2 has no input"),
        ("input,output\na.tif,o.tif\na.tif,p.tif\n", "two outputs, o.tif and p.tif"),
        ("input,output\na.tif,o.tif\na.tif,\n", "two outputs, o.tif and one by its name"),
    ],
)
def test_tables_that_cannot_be_followed(text, message, tmp_path):
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(ScanError, match=message):
        name_outputs(list_scans([tmp_path / "scans.csv"]))


def test_places_are_relative(tmp_path):
    touch(tmp_path, "a.tif")
    assert name_outputs(list_scans([tmp_path / "a.tif"])) == [PurePath("a.tif")]
