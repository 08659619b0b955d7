"""PendingFolder: a whole folder or nothing at the destination."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segfocal.errors import OutputError, OutputExistsError
from segfocal.io.pending_folder import PendingFolder


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write(pending: PendingFolder, content: str) -> None:
    (pending.main / "variables").mkdir(parents=True)
    (pending.main / "marker.pb").write_text(content)
    (pending.main / "variables" / "data").write_text(content)


def test_commit_moves_the_folder_and_nothing_else(tmp_path: Path) -> None:
    with PendingFolder(tmp_path / "out", marker="marker.pb") as pending:
        write(pending, "new")
        pending.scratch("other").write_text("scratch")
        assert not (tmp_path / "out").exists()
        pending.commit()
    assert tree(tmp_path) == ["out", "out/marker.pb", "out/variables", "out/variables/data"]
    assert (tmp_path / "out" / "variables" / "data").read_text() == "new"


def test_an_existing_folder_is_replaced_only_when_asked_and_of_the_same_kind(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    for overwrite, kind, message in (
        (False, OutputExistsError, "exists already; pass overwrite=True"),
        (True, OutputError, r"other things in it \(no marker\.pb\)"),
    ):
        with (
            pytest.raises(kind, match=message),
            PendingFolder(out, overwrite=overwrite, marker="marker.pb"),
        ):
            pass
    assert tree(tmp_path) == ["out", "out/thesis.tex"]
    (out / "marker.pb").write_text("old")
    with PendingFolder(out, overwrite=True, marker="marker.pb") as pending:
        write(pending, "new")
        pending.commit()
    assert tree(tmp_path) == ["out", "out/marker.pb", "out/variables", "out/variables/data"]


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("x"), lambda path: path.symlink_to(".")]
)
def test_what_is_no_folder_is_left_alone(tmp_path: Path, make) -> None:
    make(tmp_path / "out")
    with (
        pytest.raises(OutputError, match="is no folder"),
        PendingFolder(tmp_path / "out", overwrite=True, marker="marker.pb"),
    ):
        pass
    assert tree(tmp_path) == ["out"]


def test_leaving_without_commit_or_with_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    with PendingFolder(tmp_path / "out", marker="marker.pb") as pending:
        write(pending, "new")
    with PendingFolder(tmp_path / "out", marker="marker.pb") as pending:
        pending.main.mkdir()
        with pytest.raises(OutputError, match="nothing was written"):
            pending.commit()
    assert tree(tmp_path) == []


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "marker.pb").write_text("old")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(target) == out and Path(source).name == "out":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with PendingFolder(out, overwrite=True, marker="marker.pb") as pending:
        write(pending, "new")
        with pytest.raises(OutputError, match="writing failed"):
            pending.commit()
    assert tree(tmp_path) == ["out", "out/marker.pb"]
    assert (out / "marker.pb").read_text() == "old"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_leaves_the_old_folder_and_the_next_run_tidies_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "marker.pb").write_text("old")
    code = (
        "import os, signal, sys\n"
        "from segfocal.io.pending_folder import PendingFolder\n"
        "with PendingFolder(sys.argv[1], overwrite=True, marker='marker.pb') as pending:\n"
        "    pending.main.mkdir()\n"
        "    (pending.main / 'marker.pb').write_text('new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert tree(out) == ["marker.pb"]
    assert (out / "marker.pb").read_text() == "old"
    with PendingFolder(out, overwrite=True, marker="marker.pb") as pending:
        write(pending, "new")
        pending.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
