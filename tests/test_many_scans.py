"""Prediction over many scans."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import segfocal as sf
from segfocal import run_records
from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal as command
from segfocal.engine import contexts
from segfocal.errors import ModelError, OutputError, OutputInUseError, ScanNotFoundError
from segfocal.io import PendingOutput
from segfocal.many_scans import predict_many


class Stub:
    """Two classes by the sign of a wave of the first channel."""

    output_stride, engine, batch_matters, ndim = 1, "numpy", False, 2

    def __init__(self, name="stub", ndim=2):
        self.hash, self.ndim = name, ndim
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4)),
            tile=(64, 64) if ndim == 2 else (16, 16, 16),
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        wave = 0.5 + 0.5 * np.sin(values[..., :1])
        return np.concatenate([wave, 1 - wave], -1)


def scene(path: Path, seed: int, bands: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    with rasterio.open(
        path, "w", driver="GTiff", width=70, height=60, count=bands, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as out:  # fmt: skip
        out.write(rng.integers(0, 9, (bands, 60, 70), np.uint8))
    return path


def labels_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        values = source.read(1)
    wave = 0.5 + 0.5 * np.sin(values.astype(np.float32))
    return np.where(wave >= 1 - wave, 3, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six scenes, two of them broken."""
    for i in range(4):
        scene(tmp_path / f"good {i}.tif", i)
    scene(tmp_path / "bands.tif", 9, bands=3)
    (tmp_path / "text.tif").write_text("no scan")
    return tmp_path


def test_failures_do_not_stop_the_others(folder: Path) -> None:
    told: list[str] = []
    steps: list[tuple[int, int]] = []
    summary = predict_many(
        Stub(), [folder], folder / "out", notice=told.append,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert [Path(one.input[0]).name for one in summary.failed] == ["bands.tif", "text.tif"]
    assert "has 3 channels; the model expects 1" in str(summary.failed[0].reason)
    assert "not a raster" in str(summary.failed[1].reason)
    assert (summary.count("done"), summary.count("failed")) == (4, 2)
    assert steps == [(i, 6) for i in range(1, 7)]
    assert len(told) == 2
    for i in range(4):
        with rasterio.open(folder / "out" / f"good {i}.tif") as labels:
            np.testing.assert_array_equal(labels.read(1), labels_of(folder / f"good {i}.tif"))
    value = json.loads((folder / "out" / "summary.json").read_text())
    assert value == json.loads(json.dumps(summary.as_json()))
    assert (value["scans"], value["failed"], value["pixels"]) == (6, 2, 4 * 60 * 70)
    done = [one for one in value["outcomes"] if one["status"] == "done"]
    assert all(one["seconds"] > 0 and one["peak_bytes"] > 10**7 for one in done)
    names = {path.name for path in (folder / "out").iterdir()}
    assert not {name for name in names if name.startswith(".")}


def test_what_is_finished_and_undamaged_is_left_alone(folder: Path) -> None:
    first = predict_many(Stub(), [folder], folder / "out")
    times = {one.output: Path(one.output).stat().st_mtime_ns for one in first.outcomes[2:5]}
    damaged = Path(first.outcomes[3].output)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = predict_many(Stub(), [folder], folder / "out", overwrite=True)
    statuses = {Path(one.output).name: one.status for one in again.outcomes}
    assert statuses.pop(damaged.name) == "done"
    assert set(statuses.values()) == {"unchanged", "failed"}
    for output, time in times.items():
        assert (Path(output).stat().st_mtime_ns == time) == (output != str(damaged))
    other = predict_many(Stub("another"), [folder], folder / "out")
    assert other.count("failed") == 6  # of another model, and not to be replaced unasked
    assert "--overwrite" in str(other.outcomes[2].reason)


def test_what_cannot_be_read_fails_with_a_reason(tmp_path: Path) -> None:
    scene(tmp_path / "a.tif", 0)
    (tmp_path / "link.tif").symlink_to("annex/link.tif")
    (tmp_path / "v.nii.gz").symlink_to("annex/v.nii.gz")
    (tmp_path / "store.zarr").mkdir()
    summary = predict_many(Stub(), [tmp_path], tmp_path / "out")
    assert [one.status for one in summary.outcomes] == ["done", "failed", "failed", "failed"]
    reasons = {Path(one.input[0]).name: str(one.reason) for one in summary.failed}
    assert "is a link to annex/link.tif, which is not there" in reasons["link.tif"]
    assert "is a link to annex/v.nii.gz, which is not there" in reasons["v.nii.gz"]
    assert "store.zarr: " in reasons["store.zarr"]
    assert "Error:" not in "".join(reasons.values())


def test_a_layer_and_a_scan_of_its_name_are_both_kept(tmp_path: Path) -> None:
    scans = [
        scene(tmp_path / name, seed) for seed, name in enumerate(("a.tif", "a.uncertainty.tif"))
    ]
    for _ in range(2):
        summary = predict_many(
            Stub(), [tmp_path], tmp_path / "out", uncertainty=True, overwrite=True
        )
        for scan, one in zip(scans, summary.outcomes, strict=True):
            with rasterio.open(one.output) as labels:
                np.testing.assert_array_equal(labels.read(1), labels_of(scan))
    assert summary.count("unchanged") == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_the_peak_of_a_scan_is_its_own(folder: Path) -> None:
    class Hungry(Stub):
        scans = 0

        def __call__(self, values, valid):
            Hungry.scans += 1
            np.ones((1 if Hungry.scans != 2 else 400) * 10**6, np.uint8)
            return super().__call__(values, valid)

    summary = predict_many(
        Hungry(), sorted(folder.glob("good*.tif")), folder / "out", tile=128, overlap=0
    )
    assert Hungry.scans == 4  # a tile each
    before, hungry, *after = (one.peak_bytes for one in summary.outcomes)
    assert 350e6 < hungry - before < 450e6
    assert all(one < before + 50e6 for one in after)


def test_retrying_runs_what_failed_only(folder: Path) -> None:
    first = predict_many(Stub(), [folder], folder / "out")
    scene(folder / "text.tif", 7)
    calls: list[str] = []

    class Counting(Stub):
        def __call__(self, values, valid):
            calls.append("call")
            return super().__call__(values, valid)

    again = predict_many(Counting(), [folder], folder / "out", retry_failed=True)
    assert (again.count("done"), again.count("failed")) == (5, 1)
    assert len(calls) == 1
    assert again.outcomes[1:5] == first.outcomes[1:5]
    with pytest.raises(OutputError, match="without --retry-failed"):
        predict_many(Stub(), [folder], folder / "elsewhere", retry_failed=True)


def summary_in(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_run_leaves_no_older_summary(folder: Path, error: type) -> None:
    predict_many(Stub(), [folder], folder / "out")
    seen: list[dict] = []

    def stop(done: int, total: int) -> None:
        seen.append(summary_in(folder / "out"))
        if done == 2:
            raise error

    with pytest.raises(error):
        predict_many(Stub("new"), [folder], folder / "out", overwrite=True, progress=stop)
    assert seen[0]["pending"] == 6  # at the start, before any is written in between
    left = summary_in(folder / "out")
    assert (left["failed"], left["done"], left["pending"]) == (1, 1, 4)
    assert left["run"]["model_hashes"] == ["new"]
    again = predict_many(
        Stub("new"), [folder], folder / "out", overwrite=True, retry_failed=True, batch_size=1
    )
    assert (again.count("done"), again.count("failed")) == (4, 2)
    for i in range(4):
        model = json.loads((folder / "out" / f"good {i}.tif.json").read_text())["model"]
        assert model == "new"


def test_retrying_refuses_a_summary_of_another_run(folder: Path) -> None:
    predict_many(Stub(), [folder], folder / "out", blend="hann")
    before = (folder / "out" / "summary.json").read_bytes()
    for model, options, message in (
        (Stub("new"), {"blend": "hann"}, r"with another model \(Stub\)"),
        (Stub(), {}, "with other parameters: blend hann;"),
        (Stub(), {"blend": "hann", "halo": 8}, "with other parameters: halo 0;"),
    ):
        with pytest.raises(OutputError, match=message):
            predict_many(model, [folder], folder / "out", retry_failed=True, **options)
        assert (folder / "out" / "summary.json").read_bytes() == before
    # What the command gives as it is when left out is the same.
    again = predict_many(
        Stub(), [folder], folder / "out", retry_failed=True, blend="hann", fill_holes=(), halo=0
    )
    assert again.count("done") == 4


def test_retrying_does_what_is_not_there_any_more(folder: Path) -> None:
    first = predict_many(Stub(), [folder], folder / "out")
    lost = Path(first.outcomes[2].output)
    content = lost.read_bytes()
    lost.unlink()
    again = predict_many(Stub(), [folder], folder / "out", retry_failed=True, overwrite=True)
    assert again.count("done") == 4
    assert lost.read_bytes() == content


def test_a_summary_that_cannot_be_written_meanwhile_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_records, "SECONDS_BETWEEN_SUMMARIES", 0)
    monkeypatch.setattr(run_records, "TIMES_AS_LONG", 0)
    told: list[str] = []
    pending: list[int] = []
    place, aside = folder / "out" / "summary.json", folder / "aside.json"

    def step(done: int, total: int) -> None:
        if not place.is_dir():
            pending.append(summary_in(folder / "out")["pending"])
        if done == 2:  # nothing can be moved to its place
            place.rename(aside)
            place.mkdir()
        if done == 4:
            place.rmdir()

    summary = predict_many(Stub(), [folder], folder / "out", notice=told.append, progress=step)
    assert summary.count("done") == 4
    assert pending == [5, 4, 1, 0]
    assert summary_in(folder / "out")["done"] == 4
    (line,) = [one for one in told if one.startswith("goes on without")]
    assert "is a folder" in line
    assert "tried again later" in line


def test_a_summary_in_use_is_an_error_at_the_end_only(folder: Path) -> None:
    told: list[str] = []
    (folder / "out").mkdir()
    with (
        PendingOutput(folder / "out" / "summary.json"),
        pytest.raises(OutputInUseError, match="another run"),
    ):
        predict_many(Stub(), [folder], folder / "out", notice=told.append)
    assert len(list((folder / "out").glob("good*.tif"))) == 4
    assert sum(one.startswith("goes on without") for one in told) == 1


def test_a_bug_in_the_model_is_a_failure_of_its_scan(folder: Path) -> None:
    class Broken(Stub):
        def __call__(self, values, valid):
            if values.max() > 7.5:
                raise ZeroDivisionError("by zero")
            return super().__call__(values, valid)

    summary = predict_many(Broken(), [folder / "good 1.tif"], folder / "out")
    assert summary.failed[0].reason == "ZeroDivisionError: by zero"


def test_nothing_is_begun_when_it_cannot_be_finished(folder: Path) -> None:
    with pytest.raises(ScanNotFoundError):
        predict_many(Stub(), [folder / "*.jp2"], folder / "out")
    assert not (folder / "out").exists()
    with pytest.raises(OutputError, match="expected a folder"):
        predict_many(Stub(), [folder], folder / "text.tif")
    with pytest.raises(ModelError, match="expected serial or ray"):
        predict_many(Stub(), [folder], folder / "out", executor="spark")
    assert not (folder / "out").exists()


def test_volumes_and_lists_of_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.nii", "b.nii.gz"):
        voxels = rng.integers(0, 9, (12, 13, 14)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    summary = predict_many(Stub(ndim=3), [tmp_path], tmp_path / "out")
    assert summary.count("done") == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.gz")) == ["a.nii.gz", "b.nii.gz"]


def invoke(*arguments: object):
    return CliRunner().invoke(command, ["predict", *[str(argument) for argument in arguments]])


def test_the_command_tells_and_its_exit_code_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Stub())
    done = invoke("m.keras", folder, "-o", folder / "out")
    assert done.exit_code == 1, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"failed  {folder / 'bands.tif'}: ")
    assert lines[2].startswith("6 scans: 4 done, 2 failed; 0.0 Mpx in ")
    for name in ("bands.tif", "text.tif"):
        (folder / name).unlink()
    again = invoke("m.keras", f"{folder}/*.tif", "-o", f"{folder}/out/", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["unchanged"] == 4
    one = invoke("m.keras", folder / "good 1.tif", "-o", f"{folder}/single/")
    assert one.exit_code == 0
    assert (folder / "single" / "good 1.tif").is_file()
    two = invoke("m.keras", folder / "good 1.tif", folder / "good 2.tif", "-o", "labels.tif")
    assert two.exit_code == 2
    assert "folder as OUTPUT" in two.stderr
    assert invoke("m.keras", folder / "nothing*.tif", "-o", folder / "x").exit_code == 2


def test_a_shard_of_many_scans_goes_to_a_folder(folder: Path) -> None:
    (folder / "t.csv").write_text("input\ngood 1.tif\n")
    before = sorted(folder.iterdir())
    for many in (folder, folder / "good*.tif", folder / "t.csv"):
        done = invoke("m.keras", many, "-o", folder / "o.tif", "--shard", "1/2")
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert "expected a file as INPUT, or a folder as OUTPUT for many" in done.stderr
    assert sorted(folder.iterdir()) == before


def test_help_names_the_exit_codes() -> None:
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "0 done, 1 some scans failed or a check found faults, 2 bad input or usage" in text


@pytest.mark.slow
def test_two_hundred_scans_of_which_ten_are_broken(tmp_path: Path) -> None:
    """Real scenes, cut from the sample; memory must not grow from scan to scan."""
    source = Path(sf.__file__).parent / "samples" / "north_carolina" / "landsat.tif"
    rng = np.random.default_rng(1)
    broken = set(rng.choice(200, 10, replace=False).tolist())
    with rasterio.open(source) as scan:
        profile = {**scan.profile, "height": 120, "width": 130, "count": 1}
        for i in range(200):
            row, col = int(rng.integers(0, 300)), int(rng.integers(60, 350))
            window = rasterio.windows.Window(col, row, 130, 120)
            path = tmp_path / f"scene{i:03}.tif"
            with rasterio.open(path, "w", **profile) as out:
                out.write(scan.read([4], window=window))
            if i in broken:
                path.write_bytes(path.read_bytes()[: int(rng.integers(0, 900))])
    summary = predict_many(Stub(), [tmp_path], tmp_path / "out")
    assert (summary.count("done"), summary.count("failed")) == (190, 10)
    failed = {int(Path(one.input[0]).stem[-3:]) for one in summary.failed}
    assert failed == broken
    assert all(one.reason for one in summary.failed)
    for one in summary.outcomes:
        assert Path(one.output).is_file() == (one.status == "done")
        if one.status == "done":
            provenance = json.loads(Path(f"{one.output}.json").read_text())
            digest = hashlib.sha256(Path(one.output).read_bytes()).hexdigest()
            assert provenance["sha256"] == digest
    peaks = [one.peak_bytes for one in summary.outcomes if one.status == "done"]
    assert max(peaks[100:]) <= 1.02 * max(peaks[20:100])
    assert math.isclose(sum(one.pixels for one in summary.outcomes), 190 * 120 * 130)
