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


def test_undivided_ends_before_end_with_acts():
    told = []
    unfinished.end_with(lambda: told.append("at once"))
    assert told == ["at once"]
    with unfinished.undivided():
        with unfinished.undivided():
            unfinished.end_with(lambda: told.append("later"))
        told.append("outer goes on")
    assert told == ["at once", "outer goes on", "later"]
    with unfinished.undivided():
        pass
    assert len(told) == 3

    def broken():
        with unfinished.undivided():
            unfinished.end_with(lambda: told.append("in spite of an error"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert told[3:] == ["in spite of an error"]


def test_end_with_acts_once_though_what_it_calls_is_undivided_too():
    told = []

    def end():
        told.append("end")
        with unfinished.undivided():
            told.append("last")

    with unfinished.undivided():
        unfinished.end_with(end)
    assert told == ["end", "last"]


def test_before_end_calls_the_inner_block_first_and_none_that_is_over():
    told = []

    def broken(signal):
        told.append(f"broken {signal}")
        raise ZeroDivisionError

    with (
        unfinished.before_end(lambda signal: told.append(f"outer {signal}")),
        unfinished.before_end(broken),
    ):
        with unfinished.before_end(lambda signal: told.append("over")):
            pass
        unfinished.say_last("SIGTERM")
    assert told == ["broken SIGTERM", "outer SIGTERM"]
    unfinished.say_last("SIGTERM")
    assert len(told) == 2
