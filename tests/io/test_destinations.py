"""Outputs on object storage are refused before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.errors import OutputError
from segfocal.io.destinations import check_is_on_file_system

REMOTE = [
    "/vsis3/bucket/labels.tif",
    "/vsigs/bucket/labels.tif",
    "/vsiaz/container/labels.tif",
    "/vsizip/archive.zip/labels.tif",
    "/vsimem/labels.tif",
    "s3://bucket/labels.tif",
    "gs://bucket/labels.tif",
    "https://host/labels.tif",
    "abfs+x://container/labels.tif",
]


@pytest.mark.parametrize("name", REMOTE)
def test_remote_outputs_are_refused_by_predict(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: sf.predict("model.keras", "scene.tif", name),
        lambda: sf.predict("model.keras", "scene.tif", Path(name)),
        lambda: sf.predict_many("model.keras", ["scene.tif"], name),
        lambda: sf.predict_part("model.keras", "scene.tif", name, "1/2"),
        lambda: sf.predict_on_cluster("model.keras", "scene.tif", name),
    ):
        with pytest.raises(OutputError, match="is no place on a file system; expected a local"):
            call()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("output", ["s3://bucket/labels.tif", "/vsis3/bucket/labels/"])
def test_the_command_says_so_in_one_line(output: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["predict", "model.keras", "scene.tif", "-o", output])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "is no place on a file system" in done.stderr


@pytest.mark.parametrize(
    "name",
    ["labels.tif", "a/labels.tif", "/data/labels.tif", "C:/labels.tif", "a:b.tif"],
)
def test_paths_of_file_systems_pass(name: str) -> None:
    check_is_on_file_system(name)
    check_is_on_file_system(Path(name))
