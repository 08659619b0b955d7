"""What an interrupted run takes away."""

from __future__ import annotations

import pytest

from segfocal import unfinished
from segfocal.errors import OutputError
from segfocal.io import PendingOutput


def test_what_is_noted_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "file").touch()
    for name in ("noted", "kept", "stranger"):
        (tmp_path / name).touch()
    unfinished.note(tmp_path / "folder")
    unfinished.note(tmp_path / "noted")
    unfinished.note(tmp_path / "kept")
    unfinished.note(tmp_path / "gone already")
    unfinished.forget(tmp_path / "kept")
    unfinished.remove_all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "stranger"]
    unfinished.remove_all()


def test_a_pending_output_is_noted_until_it_is_committed(tmp_path):
    with PendingOutput(tmp_path / "a.tif") as pending:
        pending.main.write_text("whole")
        pending.commit()
    unfinished.remove_all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    with PendingOutput(tmp_path / "b.tif") as pending:
        pending.main.write_text("half")
        unfinished.remove_all()
        assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_another_runs_lock_is_left_alone(tmp_path):
    with PendingOutput(tmp_path / "a.tif"):
        lock = tmp_path / ".a.tif.lock"
        unfinished.forget(lock)  # as another process, which never held it, would see it
        with (
            pytest.raises(OutputError, match="another run is writing"),
            PendingOutput(tmp_path / "a.tif"),
        ):
            pass
        unfinished.remove_all()
        assert lock.exists()
