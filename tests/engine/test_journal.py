"""The journal: what was appended is read back, whatever a kill tore."""

from __future__ import annotations

import os

import pytest

from segfocal.engine.journal import Journal

ENTRIES = [{"a": 1}, [2, "zwei"], {"line\nbreak": "ü"}]


def filled(path):
    journal = Journal(path)
    for entry in ENTRIES:
        journal.append(entry)
    return journal


def test_entries_come_back_in_order(tmp_path):
    assert filled(tmp_path / "journal").read() == ENTRIES
    assert Journal(tmp_path / "absent").read() == []


def test_every_torn_end_loses_its_own_line_only(tmp_path):
    filled(tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    torn = Journal(tmp_path / "torn")
    for length in range(len(whole) + 1):
        (tmp_path / "torn").write_bytes(whole[:length])
        count = sum(end <= length for end in ends)
        assert torn.read() == ENTRIES[:count]
        torn.append("next")
        assert torn.read() == [*ENTRIES[:count], "next"]


def test_every_damaged_byte_loses_its_line(tmp_path):
    filled(tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1
        (tmp_path / "journal").write_bytes(content)
        found = Journal(tmp_path / "journal").read()
        assert len(found) < 3
        assert all(entry in ENTRIES for entry in found)


def test_an_entry_that_cannot_be_written_leaves_the_others(tmp_path, monkeypatch):
    journal = filled(tmp_path / "journal")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append("more")
    assert journal.read()[:3] == ENTRIES
