"""The scratch store: units survive, damage and strangers are told apart."""

from __future__ import annotations

import os

import numpy as np
import pytest

from segfocal import unfinished
from segfocal.engine import coverage, window_index
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.scratch import (
    ScratchStore,
    kept_bytes,
    kept_digest,
    remove_scratch,
    scratch_folder,
)
from segfocal.errors import OutputError

MINE = Fingerprint({"model": "m", "parameters": {"tile": [8, 8]}, "input": {"size": 3}})
WINDOWS = [(slice(0, 4), slice(0, 9)), (slice(4, 8), slice(0, 9)), (slice(8, 9), slice(0, 9))]


def arrays(window):
    shape = tuple(side.stop - side.start for side in window)
    labels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) + window[0].start
    return {"labels": labels, "more": np.stack([labels / 7, labels / 3], -1).astype(np.float32)}


@pytest.fixture(autouse=True)
def _nothing_stays_noted():
    yield
    for folder in unfinished.kept():
        unfinished.release(folder)


def filled(destination):
    with ScratchStore(destination, MINE) as store:
        for window in WINDOWS:
            store.add(window, arrays(window))
    return store


def test_units_are_found_again_bit_by_bit(tmp_path):
    filled(tmp_path / "a.tif")
    again = ScratchStore(tmp_path / "a.tif", MINE)
    assert [unit.window for unit in again.units] == WINDOWS
    assert (again.damaged, again.replaced) == (0, [])
    for unit in again.units:
        for name, array in arrays(unit.window).items():
            found = again.load(unit, name)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
    stored = sum(path.stat().st_size for path in again.folder.glob("*.unit"))
    assert kept_bytes(tmp_path / "a.tif") == stored > 0
    assert kept_digest(tmp_path / "a.tif") == MINE.digest
    assert (kept_bytes(tmp_path / "b.tif"), kept_digest(tmp_path / "b.tif")) == (0, None)
    assert again.missing((slice(2, 9), slice(0, 9))) == []
    assert again.missing((slice(7, 12), slice(0, 9))) == [(slice(9, 12), slice(0, 9))]


def test_only_what_is_missing_is_added(tmp_path):
    store = ScratchStore(tmp_path / "a.tif", MINE)
    store.add((slice(0, 2), slice(0, 3)), {"labels": np.zeros((2, 3), np.uint8)})
    store.add((slice(0, 4), slice(0, 3)), {"labels": np.ones((4, 3), np.uint8)})
    found = np.full((4, 3), 9)
    for unit in store.units:
        assert (found[unit.window] == 9).all()
        found[unit.window] = store.load(unit, "labels")
    assert found.tolist() == [[0] * 3] * 2 + [[1] * 3] * 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "other"}, "the model"),
        ({"parameters": {"tile": [16, 16]}}, "the parameters"),
        ({"input": {"size": 4}}, "the input"),
    ],
)
def test_another_fingerprint_starts_afresh_and_says_what_differs(tmp_path, change, word):
    filled(tmp_path / "a.tif")
    other = ScratchStore(tmp_path / "a.tif", Fingerprint({**MINE.about, **change}))
    assert (other.units, other.replaced) == ([], [word])
    assert [path.name for path in other.folder.iterdir()] == ["journal"]
    assert ScratchStore(tmp_path / "a.tif", MINE).units == []


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [damage_byte, lambda path: path.unlink(), lambda path: path.write_bytes(b"")],
)
def test_a_damaged_unit_is_dropped_and_can_be_added_anew(tmp_path, damage):
    store = filled(tmp_path / "a.tif")
    damage(store.folder / "4-8_0-9.more.unit")
    with pytest.raises(OutputError, match="run again: what it held is computed anew"):
        store.load(store.units[1], "more")
    again = ScratchStore(tmp_path / "a.tif", MINE)
    assert again.damaged == 1
    assert [unit.window for unit in again.units] == [WINDOWS[0], WINDOWS[2]]
    again.add(WINDOWS[1], arrays(WINDOWS[1]))
    third = ScratchStore(tmp_path / "a.tif", MINE)
    assert third.damaged == 0
    assert sum(len(third.missing(window)) for window in WINDOWS) == 0
    np.testing.assert_array_equal(
        np.concatenate(
            [third.load(u, "labels") for u in sorted(third.units, key=lambda u: u.window[0].start)]
        ),
        np.concatenate([arrays(window)["labels"] for window in WINDOWS]),
    )


def test_a_torn_journal_loses_one_unit(tmp_path):
    store = filled(tmp_path / "a.tif")
    journal = store.folder / "journal"
    journal.write_bytes(journal.read_bytes()[:-3])
    again = ScratchStore(tmp_path / "a.tif", MINE)
    assert [unit.window for unit in again.units] == WINDOWS[:2]


def test_a_full_disk_keeps_the_units_before(tmp_path, monkeypatch):
    store = ScratchStore(tmp_path / "a.tif", MINE)
    store.add(WINDOWS[0], arrays(WINDOWS[0]))
    calls = []

    def full(handle):
        calls.append(handle)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"), store:
            store.add(WINDOWS[1], arrays(WINDOWS[1]))
    assert calls
    assert not list(store.folder.glob("*.new"))
    again = ScratchStore(tmp_path / "a.tif", MINE)
    assert [unit.window for unit in again.units] == [WINDOWS[0]]


def test_a_strangers_files_stay(tmp_path):
    folder = scratch_folder(tmp_path / "a.tif")
    folder.mkdir()
    (folder / "precious").write_text("mine")
    filled(tmp_path / "a.tif").remove()
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_an_empty_store_goes_with_its_block_and_a_filled_one_stays(tmp_path):
    with ScratchStore(tmp_path / "a.tif", MINE) as store:
        assert unfinished.kept() == [store.folder]
    assert not store.folder.exists()
    assert unfinished.kept() == []
    assert filled(tmp_path / "b.tif").folder.exists()
    remove_scratch(tmp_path / "b.tif")
    remove_scratch(tmp_path / "b.tif")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_told(tmp_path):
    scratch_folder(tmp_path / "a.tif").write_text("a file")
    with pytest.raises(OutputError, match=r"a\.tif: writing failed"):
        ScratchStore(tmp_path / "a.tif", MINE)


def test_opening_compares_a_unit_with_few_others(tmp_path, monkeypatch):
    store = ScratchStore(tmp_path / "a.tif", MINE)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    count = 600
    for row in range(count // 10):
        for column in range(10):
            window = (slice(4 * row, 4 * row + 4), slice(3 * column, 3 * column + 3))
            store.add(window, {"labels": np.full((4, 3), row, np.uint8)})
    compared = []
    for module, name in ((coverage, "_without"), (window_index, "_overlap")):
        compare = getattr(module, name)

        def counted(*windows, compare=compare):
            compared.append(windows)
            return compare(*windows)

        monkeypatch.setattr(module, name, counted)
    again = ScratchStore(tmp_path / "a.tif", MINE)
    assert len(again.units) == count
    assert again.covers((slice(0, 240), slice(0, 30)))
    assert not again.covers((slice(0, 241), slice(0, 30)))
    assert len(compared) < 20 * count


def test_a_part_reads_files_of_others_only_where_it_would_compute(tmp_path, monkeypatch):
    destination, read = tmp_path / "a.tif", []
    for number, window in enumerate(WINDOWS, 1):
        ScratchStore(destination, MINE, f"{number}-of-3").add(window, arrays(window))
    whole = ScratchStore._is_whole

    def noted(store, files):
        read.append(files["more"]["file"])
        return whole(store, files)

    monkeypatch.setattr(ScratchStore, "_is_whole", noted)
    folder = scratch_folder(destination)
    damage_byte(folder / "0-4_0-9.more.unit")
    second = ScratchStore(destination, MINE, "2-of-3")
    assert read == ["4-8_0-9.more.unit"]
    assert [unit.window for unit in second.units] == [WINDOWS[1], WINDOWS[0], WINDOWS[2]]
    assert second.missing((slice(6, 9), slice(0, 9))) == []
    assert read == ["4-8_0-9.more.unit", "8-9_0-9.more.unit"]
    # It is found damaged by whoever asks for it, as by its own part and by assembly.
    assert second.missing((slice(2, 9), slice(0, 9))) == [(slice(2, 4), slice(0, 9))]
    assert len(read) == 3
    assert [unit.window for unit in second.units] == WINDOWS[1:]
    for part in ("1-of-3", None):
        opened = ScratchStore(destination, MINE, part)
        assert opened.damaged == 1
        assert opened.missing(WINDOWS[0]) == [WINDOWS[0]]
    second.add(WINDOWS[0], arrays(WINDOWS[0]))
    assert ScratchStore(destination, MINE).damaged == 0


def test_units_that_overlap_are_not_both_taken(tmp_path):
    destination = tmp_path / "a.tif"
    one, other = (ScratchStore(destination, MINE, part) for part in ("1-of-2", "1-of-3"))
    for store, window in ((one, WINDOWS[0]), (other, (slice(2, 6), slice(0, 9)))):
        store.add(window, arrays(window))
    both = ScratchStore(destination, MINE)
    assert [unit.window for unit in both.units] == [WINDOWS[0]]
    assert both.missing((slice(0, 6), slice(0, 9))) == [(slice(4, 6), slice(0, 9))]
