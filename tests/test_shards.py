"""Shards of a list of scans: together they leave what one run leaves."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from plain_scenes import Stub, write_scene

import segfocal as sf
from segfocal.cli import segfocal as command
from segfocal.engine import contexts, part_layout
from segfocal.errors import GeometryError, ModelError, OutputExistsError, SegfocalWarning
from segfocal.many_scans import predict_many
from segfocal.scan_lists import ScanInput
from segfocal.shards import ScanSize, divide, measure
from segfocal.summaries import Summary


@pytest.mark.parametrize("seed", range(30))
def test_every_scan_is_dealt_out_once_and_evenly(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 9)
    sizes: list[ScanSize | None] = [
        chance.choice([None, ScanSize(pixels, chance.randint(1, 12))])
        for pixels in np.random.default_rng(seed).lognormal(10, 2, 40).astype(int).tolist()
    ]
    shards = divide(sizes, count)
    assert len(shards) == count
    known = [size.pixels for size in sizes if size is not None]
    pixels = [sum(known) // len(known) if size is None else size.pixels for size in sizes]
    whole: Counter[int] = Counter()
    parts: dict[int, list] = {}
    loads, largest = [], 0.0
    for shares in shards:
        assert [share.scan for share in shares] == sorted({share.scan for share in shares})
        load = 0.0
        for share in shares:
            of = 1 if share.part is None else share.part.count
            load += pixels[share.scan] / of
            largest = max(largest, pixels[share.scan] / of)
            if share.part is None:
                whole[share.scan] += 1
            else:
                parts.setdefault(share.scan, []).append(share.part)
        loads.append(load)
    assert set(whole.values()) <= {1}
    assert {*whole} | {*parts} == {*range(40)}
    assert not {*whole} & {*parts}
    for scan, some in parts.items():
        assert sorted(one.number for one in some) == [*range(1, some[0].count + 1)]
        assert pixels[scan] > sum(pixels) / count
    assert math.isclose(sum(loads), sum(pixels))
    assert max(loads) - min(loads) <= largest * (1 + 1e-9)


def test_what_cannot_be_read_is_spread_too() -> None:
    assert [len(shares) for shares in divide([None] * 12, 4)] == [3] * 4
    assert divide([], 2) == [[], []]


def test_the_largest_scans_are_dealt_out_first() -> None:
    shards = divide([*map(ScanSize, (1, 1, 1, 1, 4))], 2)
    assert [[share.scan for share in shares] for shares in shards] == [[4], [0, 1, 2, 3]]
    loads = [sum((1, 1, 2, 3, 4, 7)[share.scan] for share in shares)
             for shares in divide([*map(ScanSize, (1, 1, 2, 3, 4, 7))], 2)]  # fmt: skip
    assert loads == [9, 9]


def test_only_a_long_scene_whose_files_tell_when_they_change_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_layout, "REGION_PIXELS", 10)
    scene = write_scene(tmp_path / "a.tif", (45, 30))
    volume = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((45, 30, 50), np.uint8), np.eye(4)), volume)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scene, "b.tif")
    remote = f"/vsizip/{tmp_path}/a.zip/b.tif"
    expected = {
        (str(scene),): ScanSize(45 * 30, 4),
        (str(volume),): ScanSize(45 * 30 * 50, 1),
        (remote,): ScanSize(45 * 30, 1),
        (str(scene), remote): ScanSize(45 * 30, 1),
    }
    for files, size in expected.items():
        assert measure(ScanInput(files, Path("a"))) == size
    assert measure(ScanInput((str(tmp_path / "gone.tif"),), Path("a"))) is None


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.tif"))
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five scenes of different sizes, the last of them long, and one that is broken."""
    place = tmp_path / "in"
    place.mkdir()
    for i, rows in enumerate((70, 90, 80, 120, 1500)):
        write_scene(place / f"{i}.tif", (rows, 60))
    (place / "bad.tif").write_text("no scan")
    return place


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_two_shards_leave_the_bytes_of_a_serial_run(
    order: tuple[int, int], folder: Path, tmp_path: Path
) -> None:
    serial = predict_many(Stub(), [folder], tmp_path / "serial")
    out = tmp_path / "out"
    summaries = [
        predict_many(Stub(), [folder], out, shard=f"{number}/2", uncertainty=False)
        for number in order
    ]
    assert digests(out) == digests(tmp_path / "serial")
    seen = sorted(one.input[0] for summary in summaries for one in summary.outcomes)
    assert seen == sorted(one.input[0] for one in serial.outcomes)
    assert sum(summary.count("done") for summary in summaries) == 5
    assert sum(summary.count("failed") for summary in summaries) == 1
    names = {path.name for path in out.iterdir() if path.name.startswith("summary")}
    assert names == {f"summary.{i}-of-2.{kind}" for i in (1, 2) for kind in ("json", "csv")}
    for summary, number in zip(summaries, order, strict=True):
        value = json.loads((out / f"summary.{number}-of-2.json").read_text())
        assert value == json.loads(json.dumps(summary.as_json()))
        with open(out / f"summary.{number}-of-2.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == len(summary.outcomes) > 0
    again = [predict_many(Stub(), [folder], out, shard=f"{i}/2") for i in (1, 2)]
    assert sum(summary.count("unchanged") for summary in again) == 5
    retried = predict_many(Stub(), [folder], out, shard=f"{order[0]}/2", retry_failed=True)
    assert retried.count("unchanged") + retried.count("failed") == len(retried.outcomes)
    assert predict_many(Stub(), [folder], out).count("unchanged") == 5


def test_a_scan_beyond_a_fair_share_is_done_in_parts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_layout, "REGION_PIXELS", 100)
    predict_many(Stub(), [folder], tmp_path / "serial", tile=64)
    out, statuses = tmp_path / "out", []
    for number in (3, 1, 2):
        summary = predict_many(Stub(), [folder], out, shard=f"{number}/3", tile=64)
        long = [one for one in summary.outcomes if one.input[0].endswith("4.tif")]
        statuses += [one.status for one in long]
        assert (out / "4.tif").exists() == (number == 2)
        assert all("not finished yet: rerun" in str(one.reason) for one in long if number != 2)
    assert statuses == ["part", "part", "done"]
    assert digests(out) == digests(tmp_path / "serial")
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    for number in (1, 2, 3):
        summary = predict_many(Stub(), [folder], out, shard=f"{number}/3", tile=64)
        assert summary.count("unchanged") + summary.count("failed") == len(summary.outcomes)
    other = Stub((1, 2, 3))
    other.hash = "other"
    before = digests(out)
    summary = predict_many(other, [folder], out, shard="1/3", tile=64)
    assert summary.count("failed") == len(summary.outcomes)  # nothing is computed in vain
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    for number in (1, 2, 3):
        predict_many(other, [folder], out, shard=f"{number}/3", tile=64, overwrite=True)
    assert not {*digests(out).values()} & {*before.values()}


def test_shards_that_do_not_fit_together_fail(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(part_layout, "REGION_PIXELS", 100)
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Stub())
    out = tmp_path / "out"

    def run(number: int, tile: int):
        return CliRunner().invoke(
            command,
            ["predict", "m.keras", str(folder / "4.tif"), str(folder / "0.tif"), "-o", str(out),
             "--tile", str(tile), "--shard", f"{number}/2"],
        )  # fmt: skip

    first = run(1, 64)
    assert first.exit_code == 0, first.output
    assert "1 in part" in first.stdout
    assert "not finished yet: rerun, or run without --shard" in first.stdout
    second = run(2, 96)
    assert second.exit_code == 1
    assert "part 1-of-2 is there and differs in the parameters" in second.stdout
    assert "tile [64, 64] there, [96, 96] here" in second.stdout
    assert not (out / "4.tif").exists()
    assert run(2, 64).exit_code == 0
    assert (out / "4.tif").exists()


def test_complete_parts_of_something_else_are_not_assembled(folder, tmp_path, monkeypatch):
    """A second run, of another model, over what a first one has left."""
    monkeypatch.setattr(part_layout, "REGION_PIXELS", 100)
    out, other = tmp_path / "out", Stub((1, 2, 3))
    other.hash = "other"
    out.mkdir()
    for part in ("1/2", "2/2"):
        sf.predict_part(Stub(), folder / "4.tif", out / "4.tif", part)
    with pytest.warns(SegfocalWarning, match="part 2-of-2 is there and differs in the model; run"):
        first = predict_many(other, [folder / "4.tif"], out, shard="1/2")
    assert [one.status for one in first.outcomes] == ["part"]
    second = predict_many(other, [folder / "4.tif"], out, shard="2/2")
    assert [one.status for one in second.outcomes] == ["done"]
    sf.predict(other, folder / "4.tif", tmp_path / "4.tif")
    assert digests(out)["4.tif"] == digests(tmp_path)["4.tif"]


def test_shards_of_different_lists_are_warned_of(folder, tmp_path):
    out = tmp_path / "out"
    names = [str(folder / f"{i}.tif") for i in range(5)]
    first = predict_many(Stub(), names, out, shard="1/2")
    assert first.run["list"]["scans"] == 5
    kept = json.loads((out / "summary.1-of-2.json").read_text())["run"]["list"]
    assert kept == first.run["list"]
    second = predict_many(Stub(), names, out, shard="2/2")  # no warning: it would be an error
    assert kept["list_sha256"] == second.run["list"]["list_sha256"]
    assert predict_many(Stub(), names, out, shard="2/2", retry_failed=True).failed == ()
    other = "summary.1-of-2.json: is of another list \\("
    with pytest.warns(SegfocalWarning, match=f"{other}5 scans, not 4"):
        predict_many(Stub(), names[:-1], out, shard="2/2")
    with pytest.warns(SegfocalWarning, match=f"{other}other names or sizes"):  # in another order
        predict_many(Stub(), names[::-1], out, shard="2/2")
    predict_many(Stub(), names[:-1], out, shard="2/3")  # of another number of shards
    write_scene(folder / "0.tif", (100, 60))  # so that they are dealt out in another way
    with pytest.warns(SegfocalWarning, match=f"{other}other names or sizes"):
        predict_many(Stub(), names, out, shard="2/2", overwrite=True)


def test_a_shard_without_a_scan_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Stub())
    done = CliRunner().invoke(
        command,
        ["predict", "m.keras", str(folder / "0.tif"), str(folder / "1.tif"),
         "-o", str(tmp_path / "out"), "--shard", "3/3"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("nothing for this shard; ")
    assert "summary.3-of-3.json" in done.stdout


def test_a_share_continues_only_with_units_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_layout, "REGION_PIXELS", 100)
    told: list[str] = []

    def run(number: int, **more) -> Summary:
        return predict_many(
            Stub(), [folder / "4.tif"], tmp_path / "out", shard=f"{number}/3", tile=64,
            notice=told.append, **more,
        )  # fmt: skip

    run(1)
    run(2)
    assert told == []

    class Stopped(Stub):
        calls = 0

        def __call__(self, values, valid):
            Stopped.calls += 1
            if Stopped.calls == 4:
                raise KeyboardInterrupt
            return super().__call__(values, valid)

    scratch = tmp_path / "out" / ".4.tif.scratch"
    before = len(list(scratch.glob("*.unit")))
    with pytest.raises(KeyboardInterrupt):
        predict_many(
            Stopped(), [folder / "4.tif"], tmp_path / "out", shard="3/3", tile=64, batch_size=1
        )
    own = len(list(scratch.glob("*.unit"))) - before
    assert own > 0
    assert run(3, batch_size=1).count("done") == 1
    name = tmp_path / "out" / "4.tif"
    assert told == [f"{name}: part 3-of-3 continues with {own} units kept"]


SHARD = """
import sys
from plain_scenes import Stub
from segfocal.engine import part_layout
from segfocal.many_scans import predict_many
part_layout.REGION_PIXELS = 100
summary = predict_many(Stub(), [sys.argv[1]], sys.argv[2], shard=sys.argv[3], tile=64)
print(*(one.status for one in summary.outcomes if one.input[0].endswith("4.tif")))
"""


def test_shards_at_the_same_time_assemble_once_all_is_there(folder: Path, tmp_path: Path) -> None:
    predict_many(Stub(), [folder], tmp_path / "serial", tile=64)
    fixtures = Path(__file__).parent / "fixtures"
    paths = os.pathsep.join((str(fixtures), str(Path(sf.__file__).parent.parent)))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SHARD, str(folder), str(tmp_path / "out"), f"{number}/3"],
            env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    statuses = [run.communicate()[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 3
    assert "done" in statuses
    assert {*statuses} <= {"done", "part", "unchanged"}
    assert digests(tmp_path / "out") == digests(tmp_path / "serial")


@pytest.mark.slow
def test_shards_of_real_scenes_by_the_command(exports, tmp_path: Path) -> None:
    """A real network over cuts of a real scene, two processes at a time."""
    source = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"
    (tmp_path / "in").mkdir()
    with rasterio.open(source) as scan:
        for i, rows in enumerate((100, 200, 150, 300)):
            window = rasterio.windows.Window(60, 40 * i, 300, rows)
            profile = {**scan.profile, "width": 300, "height": rows}
            with rasterio.open(tmp_path / "in" / f"{i}.tif", "w", **profile) as out:
                out.write(scan.read(window=window))

    def start(*more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "segfocal", "predict", str(exports.path("onnx")),
             str(tmp_path / "in"), "--tile", "64", *more],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    out = tmp_path / "out"
    runs = [start("-o", str(out), "--shard", f"{number}/2") for number in (1, 2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert start("-o", str(tmp_path / "serial") + "/").wait() == 0
    assert digests(out) == digests(tmp_path / "serial")
    assert len(digests(out)) == 4
    assert start("-o", str(out)).wait() == 0
    assert json.loads((out / "summary.json").read_text())["unchanged"] == 4


def test_shards_by_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Stub())

    def run(*more: str):
        return CliRunner().invoke(
            command, ["predict", "m.keras", str(folder), "-o", str(tmp_path / "out"), *more]
        )

    codes, scans = [], 0
    for number in (1, 2):
        done = run("--shard", f"{number}/2", "--json")
        codes.append(done.exit_code)
        scans += json.loads(done.stdout)["scans"]
    assert sorted(codes) == [0, 1]  # the broken one is of one shard
    assert scans == 6
    ray = run("--shard", "1/2", "--executor", "ray")
    assert ray.exit_code == 2
    assert "--shard goes with --executor serial" in ray.stderr
    assert run("--shard", "3/2").exit_code == 2


def test_what_is_no_shard(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="expected a number and how many"):
        predict_many(Stub(), [folder], tmp_path / "out", shard="0/2")
    with pytest.raises(ModelError, match="done by one process"):
        predict_many(Stub(), [folder], tmp_path / "out", shard="1/2", executor="ray")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "summary.1-of-2.csv"
    table.write_text("input\n")
    with pytest.raises(OutputExistsError, match="is no table"):
        predict_many(Stub(), [folder], tmp_path / "out", shard="1/2")
