"""The summary of many scans on disk: JSON, a table, and what a stopped run leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from plain_scenes import Stub, write_scene

import segfocal as sf
from segfocal.errors import OutputExistsError
from segfocal.many_scans import predict_many
from segfocal.summaries import Outcome, Summary
from segfocal.summary_files import write_summary


def rows_in(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_says_what_the_summary_says(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", (70, 60))
    write_scene(tmp_path / "b, c.tif", (80, 60))
    (tmp_path / "d.tif").write_text("no scan")
    summary = predict_many(Stub(), [tmp_path], tmp_path / "out")
    rows = rows_in(tmp_path / "out" / "summary.csv")
    assert [*rows[0]] == ["scan", "outcome", "reason", "seconds", "pixels", "peak_bytes", "output"]
    assert [row["outcome"] for row in rows] == ["done", "done", "failed"]
    for row, one in zip(rows, summary.outcomes, strict=True):
        assert row["scan"] == one.input[0]
        assert row["output"] == one.output
        assert row["reason"] == (one.reason or "")
        assert float(row["seconds"]) == one.seconds
        assert (int(row["pixels"]), int(row["peak_bytes"])) == (one.pixels, one.peak_bytes)
    assert int(rows[1]["pixels"]) == 80 * 60


@pytest.mark.parametrize("name", ["=1+2.tif", "+a.tif", "-a.tif", "@SUM(A1).tif", "\ta", "\ra"])
def test_no_cell_is_a_formula(name: str, tmp_path: Path) -> None:
    outcome = Outcome((name, "b.tif"), name, "failed", reason='=HYPERLINK("x"), "y"\nz')
    write_summary(Summary((outcome,), tmp_path / "summary.json"))
    (row,) = rows_in(tmp_path / "summary.csv")
    assert row["scan"] == f"'{name};b.tif"
    assert row["output"] == f"'{name}"
    assert row["reason"] == '\'=HYPERLINK("x"), "y"\nz'
    (known,) = json.loads((tmp_path / "summary.json").read_text())["outcomes"]
    assert known["input"] == [name, "b.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_a_name_that_is_no_text_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_scene(folder / "a.tif", (70, 60))
    odd = os.fsdecode(b"\xff.tif")
    (folder / odd).write_bytes((folder / "a.tif").read_bytes())
    summary = predict_many(Stub(), [folder], tmp_path / "out")
    assert sorted(one.status for one in summary.outcomes) == ["done", "failed"]
    value = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [one["input"] for one in value["outcomes"]] == [[*one.input] for one in summary.outcomes]
    assert any("\\udcff.tif" in row["scan"] for row in rows_in(tmp_path / "out" / "summary.csv"))
    again = predict_many(Stub(), [folder], tmp_path / "out", retry_failed=True)
    assert again.count("done") == 1


def test_a_list_of_the_tables_name_is_not_replaced(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", (70, 60))
    table = tmp_path / "summary.csv"
    table.write_text("input\na.tif\n")
    with pytest.raises(OutputExistsError, match=r"summary\.csv: exists already and is no table"):
        predict_many(Stub(), [table], tmp_path, overwrite=True)
    assert table.read_text() == "input\na.tif\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "summary.csv"]
    for _ in range(2):  # an earlier table goes
        predict_many(Stub(), [tmp_path / "a.tif"], tmp_path / "out")
    table = tmp_path / "out" / "summary.csv"
    table.write_text(table.read_text().replace(",", ";"))  # by a spreadsheet
    assert predict_many(Stub(), [tmp_path / "a.tif"], tmp_path / "out").count("unchanged") == 1


@pytest.mark.parametrize("content", ["", "[]", '{"scans": 3, "outcomes": []}', "\x00\x01"])
def test_a_strangers_summary_is_not_replaced(content: str, tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", (70, 60))
    out = tmp_path / "out"
    out.mkdir()
    for name, shard in (("summary.json", None), ("summary.1-of-1.json", "1/1")):
        (out / name).write_text(content)
        with pytest.raises(OutputExistsError, match=rf"{name}: exists already and is no summary"):
            predict_many(Stub(), [tmp_path / "a.tif"], out, overwrite=True, shard=shard)
        assert (out / name).read_text() == content
        assert [path.name for path in out.iterdir()] == [name]
        (out / name).unlink()
    run = {"models": ["a" * 5000]}  # a long description stands behind what tells
    write_summary(Summary((), out / "summary.json", run))
    for written in (
        (out / "summary.json").read_text(),
        json.dumps(json.loads((out / "summary.json").read_text()), sort_keys=True),
    ):
        (out / "summary.json").write_text(written, encoding="utf-8-sig")
        assert predict_many(Stub(), [tmp_path / "a.tif"], out, overwrite=True).path.exists()


STOPPED = """
import os, signal, sys
from plain_scenes import Stub
from segfocal import run_records, summary_files
from segfocal.cli.stopping import catch_signals
from segfocal.many_scans import predict_many
catch_signals()
number, where = int(sys.argv[1]), sys.argv[2]

class Model(Stub):
    calls = 0
    def __call__(self, values, valid):
        Model.calls += 1
        if where == "network" and Model.calls == 3:
            os.kill(os.getpid(), number)
        return super().__call__(values, valid)

def in_between(done, total):
    if where == "between" and done == 2:
        os.kill(os.getpid(), number)

real = summary_files.PendingOutput.commit
def commit(self):
    real(self)
    if where == "summary" and self.destination.name == "summary.json" and Model.calls == 2:
        os.kill(os.getpid(), number)
summary_files.PendingOutput.commit = commit
run_records.SECONDS_BETWEEN_SUMMARIES = 0 if where == "summary" else 1000
run_records.TIMES_AS_LONG = 0

predict_many(Model(), sys.argv[3:4], sys.argv[4], tile=256, overlap=0, progress=in_between)
sys.exit(1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking")
@pytest.mark.parametrize("where", ["network", "between", "summary"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_summary_of_that_moment(
    number: signal.Signals, where: str, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(5):
        write_scene(folder / f"{i}.tif", (70, 60 + i))
    fixtures = Path(__file__).parent / "fixtures"
    paths = os.pathsep.join((str(fixtures), str(Path(sf.__file__).parent.parent)))
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(int(number)), where, str(folder), str(out)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.startswith("segfocal: stopped; ")
    value = json.loads((out / "summary.json").read_text())
    at_work = 1 if where == "network" else 0
    assert value["stopped"] == number.name
    assert (value["done"], value["interrupted"], value["pending"]) == (2, at_work, 3 - at_work)
    rows = rows_in(out / "summary.csv")
    assert [Path(row["scan"]).name for row in rows] == [f"{i}.tif" for i in range(5)]
    expected = ["done"] * 2 + ["interrupted"] * at_work + ["not started"] * (3 - at_work)
    assert [row["outcome"] for row in rows] == expected
    assert all(number.name in row["reason"] for row in rows[2:])
    names = {path.name for path in out.iterdir()} - {".2.tif.scratch"}
    assert not {name for name in names if name.startswith(".")}
    again = predict_many(Stub(), [folder], out, tile=256, overlap=0, retry_failed=True)
    assert again.count("done") == 5
    left = json.loads((out / "summary.json").read_text())
    assert (left["stopped"], left["interrupted"]) == (None, 0)


STOPPED_UNDIVIDED = """
import os, signal, sys
from pathlib import Path
from segfocal import unfinished
from segfocal.cli.stopping import catch_signals
from segfocal.io import pending
from segfocal.run_records import Record
from segfocal.summaries import Outcome
from segfocal.summary_files import write_summary
catch_signals()
output, place, armed = Path(sys.argv[1]), Path(sys.argv[2]), []
replace = os.replace
def counted(source, target):
    replace(source, target)
    if Path(target) == place:
        os.write(1, b"summary\\n")
    if Path(target) == output and armed:
        armed.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        os.write(1, b"goes on\\n")
os.replace = counted
record = Record(place, {}, [Outcome(("a",), "b")], print)
armed.append(True)
with unfinished.before_end(record.interrupted):
    if output == place:
        write_summary(record.summary)
    else:
        with pending.PendingOutput(output) as one:
            one.main.write_text("whole")
            one.commit()
sys.exit(1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking")
@pytest.mark.parametrize("name", ["labels.tif", "summary.json"])
def test_a_signal_in_an_undivided_write_brings_one_last_summary(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_UNDIVIDED, tmp_path / name, tmp_path / "summary.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    before = ["summary", "summary"] if name == "summary.json" else ["summary"]
    assert done.stdout.split("\n") == [*before, "goes on", "summary", ""]
    assert done.stderr == "segfocal: stopped; nothing is left half-written\n"
    assert json.loads((tmp_path / "summary.json").read_text())["stopped"] == "SIGTERM"
    assert {path.name for path in tmp_path.iterdir()} == {name, "summary.json", "summary.csv"}
