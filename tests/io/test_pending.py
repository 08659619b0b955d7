"""PendingOutput: everything or nothing at the destination."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from segfocal.errors import OutputError, OutputExistsError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_commit_moves_main_and_sidecars_and_nothing_else(tmp_path: Path) -> None:
    with PendingOutput(tmp_path / "out.tif") as pending:
        assert pending.main == pending.path("out.tif")
        assert pending.main.parent.parent == tmp_path
        pending.main.write_text("main")
        pending.path("out.tif.aux.xml").write_text("aux")
        pending.path("out.json").write_text("provenance")
        pending.scratch("labels.raw").write_text("scratch")
        assert not (tmp_path / "out.tif").exists()
        pending.commit()
        assert (tmp_path / "out.tif").read_text() == "main"
    assert names(tmp_path) == ["out.json", "out.tif", "out.tif.aux.xml"]
    assert (tmp_path / "out.tif.aux.xml").read_text() == "aux"


def test_the_main_file_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    with PendingOutput(tmp_path / "m.tif") as pending:
        for name in ("a.json", "m.tif", "z.json"):
            pending.path(name).write_text(name)
        pending.commit()
    assert order == ["a.json", "z.json", "m.tif"]


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.tif").write_text("old")

    def fail() -> None:
        with PendingOutput(tmp_path / "out.tif", overwrite=True) as pending:
            pending.main.write_text("half")
            pending.scratch("x").write_text("y")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(tmp_path) == ["out.tif"]
    assert (tmp_path / "out.tif").read_text() == "old"


def test_overwriting_removes_stale_sidecars(tmp_path: Path) -> None:
    for name in ("out.tif", "out.tif.aux.xml", "out.tif.ovr", "out.tif.msk", "other.tif.ovr"):
        (tmp_path / name).write_text("old")
    with PendingOutput(tmp_path / "out.tif", overwrite=True) as pending:
        pending.main.write_text("new")
        pending.path("out.tif.msk").write_text("new")
        pending.commit()
    assert names(tmp_path) == ["other.tif.ovr", "out.tif", "out.tif.msk"]
    assert (tmp_path / "out.tif").read_text() == "new"
    assert (tmp_path / "out.tif.msk").read_text() == "new"


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out.tif").write_text("old")
    with (
        pytest.raises(OutputExistsError, match="overwrite=True or --overwrite"),
        PendingOutput(tmp_path / "out.tif"),
    ):
        pass
    with PendingOutput(tmp_path / "new.tif") as pending:
        pending.main.write_text("mine")
        (tmp_path / "new.tif").write_text("appeared meanwhile")
        with pytest.raises(OutputExistsError):
            pending.commit()
    assert (tmp_path / "new.tif").read_text() == "appeared meanwhile"
    assert names(tmp_path) == ["new.tif", "out.tif"]


def test_destinations_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"folder .*absent does not exist"),
        PendingOutput(tmp_path / "absent" / "out.tif"),
    ):
        pass
    (tmp_path / "folder.tif").mkdir()
    with (
        pytest.raises(OutputError, match="is a folder"),
        PendingOutput(tmp_path / "folder.tif", overwrite=True),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="does not exist"),
        PendingOutput(tmp_path / "file" / "out.tif"),
    ):
        pass
    assert names(tmp_path) == ["file", "folder.tif"]


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(OutputError, match=r"cannot be written .*Permission denied"),
        PendingOutput(tmp_path / "out.tif"),
    ):
        pass
    assert names(tmp_path) == []


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="permissions do not bind the superuser",
)
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(OutputError, match="cannot be written"),
            PendingOutput(tmp_path / "out.tif"),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with (
        PendingOutput(tmp_path / "out.tif") as pending,
        pytest.raises(OutputError, match="nothing was written"),
    ):
        pending.commit()
    with pytest.raises(ValueError, match="not open"):
        pending.main  # noqa: B018
    assert names(tmp_path) == []


def test_a_second_run_to_the_same_destination_fails_at_once(tmp_path: Path) -> None:
    with PendingOutput(tmp_path / "out.tif") as first:
        with (
            pytest.raises(OutputError, match="another run is writing this file"),
            PendingOutput(tmp_path / "out.tif"),
        ):
            pass
        with PendingOutput(tmp_path / "other.tif"):
            pass
        first.main.write_text("done")
        first.commit()
    assert names(tmp_path) == ["out.tif"]


def test_a_killed_run_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from segfocal.io import PendingOutput\n"
        "with PendingOutput(sys.argv[1]) as pending:\n"
        "    pending.main.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGTERM if os.name == 'nt' else signal.SIGKILL)\n"
    )
    destination = tmp_path / "out.tif"
    run = subprocess.run([sys.executable, "-c", code, str(destination)], check=False)
    assert run.returncode != 0
    if os.name != "nt":
        assert run.returncode == -signal.SIGKILL
    assert not destination.exists()
    assert any(name.endswith(".partial") for name in names(tmp_path))
    with PendingOutput(destination) as pending:
        pending.main.write_text("whole")
        pending.commit()
    assert names(tmp_path) == ["out.tif"]


def test_deferred_actions_run_before_the_folder_goes(tmp_path: Path) -> None:
    seen: list[bool] = []
    with PendingOutput(tmp_path / "out.tif") as pending:
        folder = pending.folder
        pending.defer(lambda: seen.append(folder.exists()))
    assert seen == [True]
    assert not folder.exists()


def test_a_full_disk_is_found_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PendingOutput(tmp_path / "out.tif") as pending:
        pending.require_space(1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
        with pytest.raises(OutputError, match="about 7 MB are needed and 5 MB are free"):
            pending.require_space(7_000_000)


def test_failures_on_writing_become_output_errors() -> None:
    with (
        pytest.raises(OutputError, match=r"out\.tif: writing failed \(.*No space left"),
        writing("out.tif"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), writing("out.tif"):
        raise KeyError("a bug")
    with pytest.raises(OutputExistsError), writing("out.tif"):
        raise OutputExistsError("kept as it is")
