"""One scan over several processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import segfocal as sf
from segfocal import part_orders
from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal as command
from segfocal.engine import contexts
from segfocal.engine.part_layout import REGION_PIXELS
from segfocal.engine.parts import Part, parse_part
from segfocal.engine.scratch import ScratchStore
from segfocal.errors import GeometryError, OutputError, OutputExistsError, SegfocalWarning
from segfocal.scan_parts import count_parts
from segfocal.scan_units import ScanTask, Unit, run_unit


class Neighbours:
    """Sees a pixel and those around it, so that seams between parts would show."""

    output_stride, engine, batch_matters = 1, "numpy", False

    def __init__(self, ndim=2, name="neighbours"):
        self.hash, self.ndim = name, ndim
        self.card = Card(
            ndim=ndim,
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4, 9)),
            tile=(32,) * ndim if ndim == 2 else (12, 12, 12),
            orientation="RAS" if ndim == 3 else None,
        )

    def __call__(self, values, valid):
        usable = np.where(valid[..., None], values, 0)
        total = sum(
            np.roll(usable, step, axis) for axis in range(1, self.ndim + 1) for step in (-1, 1)
        )
        scores = np.concatenate([np.sin(total), np.cos(usable), np.sin(usable / 3)], -1)
        expd = np.exp(scores)
        return (expd / expd.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 30, (150, 110)).astype(np.uint8)
    values[:40, :60] = 255
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=110, height=150, count=1, dtype="uint8",
        nodata=255, crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as out:  # fmt: skip
        out.write(values, 1)
    return tmp_path / "scene.tif"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 30, (20, 26, 47)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1, 2, 1])), tmp_path / "volume.nii")
    return tmp_path / "volume.nii"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_parts_of_a_scene_give_the_bytes_of_an_undivided_run(
    count: int, scene: Path, tmp_path: Path
) -> None:
    sf.predict(Neighbours(), scene, tmp_path / "whole.tif")
    order = np.random.default_rng(count).permutation(count) + 1
    output = tmp_path / "parts.tif"
    units = [
        sf.predict_part(Neighbours(), scene, output, f"{number}/{count}").units for number in order
    ]
    if count < 40:  # of so many, columns are cut too
        assert sum(units) == math.ceil((150 - 8) / 24)  # each row of tiles in one part
    assert not output.exists()
    done = sf.assemble(output, model=Neighbours())
    assert done.sha256 == digest(output) == digest(tmp_path / "whole.tif")
    assert not (tmp_path / ".parts.tif.scratch").exists()


def test_tiles_run_twice_are_below_a_tenth_for_parts_of_the_default_length(tmp_path: Path) -> None:
    """Tiles of 512 with the default overlap; the progress counts those that are run."""
    rows = 3 * REGION_PIXELS + 100
    with rasterio.open(
        tmp_path / "long.tif", "w", driver="GTiff", width=40, height=rows, count=1, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0), compress="deflate",
    ) as out:  # fmt: skip
        out.write(np.random.default_rng(0).integers(0, 30, (rows, 40), np.uint8), 1)
    output, options = tmp_path / "labels.tif", {"tile": 512, "overlap": 128}
    source = tmp_path / "long.tif"
    assert count_parts(Neighbours(), source, output, **options) == 3
    run = []
    for number in (1, 2, 3):
        steps: list[tuple[int, int]] = []
        sf.predict_part(
            Neighbours(), source, output, f"{number}/3", **options,
            progress=lambda *step, steps=steps: steps.append(step),
        )  # fmt: skip
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        run.append(steps[-1][1])
    done = sf.assemble(output, model=Neighbours())
    assert done.tiles == math.ceil((rows - 128) / 384)
    assert sum(run) == done.tiles + 2  # a row of tiles at each border
    assert sum(run) < 1.1 * done.tiles
    assert count_parts(Neighbours(), source, output, **options) == 1  # it is finished
    with pytest.raises(OutputExistsError):
        count_parts(Neighbours(name="another"), source, output, **options)
    again = {**options, "overwrite": True}
    assert count_parts(Neighbours(name="another"), source, output, **again) == 3
    assert count_parts(Neighbours(name="another"), source, output, parts=7, **again) == 7


def test_parts_of_a_volume_and_of_a_region_and_more_layers(
    volume: Path, scene: Path, tmp_path: Path
) -> None:
    sf.predict(Neighbours(3), volume, tmp_path / "whole.nii.gz")
    for number in (2, 1):
        sf.predict_part(Neighbours(3), volume, tmp_path / "parts.nii.gz", Part(number, 2))
    sf.assemble(tmp_path / "parts.nii.gz", model=Neighbours(3))
    assert digest(tmp_path / "parts.nii.gz") == digest(tmp_path / "whole.nii.gz")

    options = {"area": (200, -1300, 900, -350), "probabilities": "uint8", "max_memory": "64GB"}
    sf.predict(Neighbours(), scene, tmp_path / "whole.tif", **options)
    for number in (1, 2, 3):
        sf.predict_part(Neighbours(), scene, tmp_path / "parts.tif", f"{number}/3", **options)
    sf.assemble(tmp_path / "parts.tif", model=Neighbours())
    for name in ("{}.tif", "{}.probabilities.tif"):
        assert digest(tmp_path / name.format("parts")) == digest(tmp_path / name.format("whole"))


def test_what_is_missing_is_named(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    with pytest.raises(OutputError, match="there are no parts of it"):
        sf.assemble(output, model=Neighbours())
    for number in (1, 4):
        sf.predict_part(Neighbours(), scene, output, f"{number}/4")
    with pytest.raises(OutputError, match="not computed yet: part 2-of-4, 3-of-4; run what"):
        sf.assemble(output, model=Neighbours())
    with pytest.raises(OutputError, match="model in memory"):
        sf.assemble(output)
    sf.predict_part(Neighbours(), scene, output, "2/4")
    damaged = sorted((tmp_path / ".labels.tif.scratch").glob("*.unit"))[0]
    damaged.write_bytes(b"x")
    sf.predict_part(Neighbours(), scene, output, "3/4")
    with pytest.raises(OutputError, match="not computed yet: part 1-of-4;"):
        sf.assemble(output, model=Neighbours())
    assert not output.exists()
    sf.predict_part(Neighbours(), scene, output, "1/4")
    sf.assemble(output, model=Neighbours())
    assert sf.predict_part(Neighbours(), scene, output, "1/4").units == 0  # finished


def test_an_undivided_run_takes_over_what_parts_have_done(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    sf.predict_part(Neighbours(), scene, output, "2/3")
    told: list[str] = []
    sf.predict(Neighbours(), scene, output, notice=told.append)
    assert told == [f"{output}: continues with 2 units kept"]
    sf.predict(Neighbours(), scene, tmp_path / "whole.tif")
    assert digest(output) == digest(tmp_path / "whole.tif")


def test_a_damaged_unit_of_another_number_of_parts_is_computed_anew(scene, tmp_path):
    output = tmp_path / "labels.tif"
    for part in ("1/3", "2/3"):
        sf.predict_part(Neighbours(), scene, output, part)
    units = sorted((tmp_path / ".labels.tif.scratch").glob("*.unit"))
    before = units[0].read_bytes()
    times = [unit.stat().st_mtime_ns for unit in units]
    units[0].write_bytes(b"x")
    sf.predict_part(Neighbours(), scene, output, "1/2")
    assert units[0].read_bytes() == before
    assert [unit.stat().st_mtime_ns for unit in units[1:]] == times[1:]
    sf.predict(Neighbours(), scene, output)
    assert digest(output) == sf.predict(Neighbours(), scene, tmp_path / "whole.tif").sha256


def test_parts_that_do_not_go_together_are_refused(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    sf.predict_part(Neighbours(), scene, output, "1/2")
    sf.predict_part(Neighbours(), scene, output, "1/3")
    with pytest.raises(OutputError, match="parts of 2 and of 3 are there"):
        sf.assemble(output, model=Neighbours())
    other = tmp_path / "other.tif"
    sf.predict_part(Neighbours(), scene, other, "1/2")
    sf.predict_part(Neighbours(name="another"), scene, other, "2/2", restart=True)
    with pytest.raises(OutputError, match="not computed yet: part 2-of-2"):
        sf.assemble(other, model=Neighbours())


def test_a_part_of_something_else_is_refused_before_it_is_computed(scene, tmp_path, monkeypatch):
    output = tmp_path / "labels.tif"
    sf.predict_part(Neighbours(), scene, output, "1/2")
    before = sorted((tmp_path / ".labels.tif.scratch").iterdir())
    another = Neighbours(name="another")
    # Of a part that others have not computed yet, the first run finds that it does not fit.
    with pytest.raises(
        OutputError,
        match=r"part 1-of-2 is there and differs in the parameters "
        r"\(.*tile \[32, 32\] there, \[48, 48\] here\); expected the same for all",
    ):
        sf.predict_part(Neighbours(), scene, output, "2/2", tile=48)
    with pytest.raises(OutputError, match="part 1-of-2 is there and differs in the model;"):
        sf.predict_part(another, scene, output, "2/2")
    with monkeypatch.context() as patch:
        patch.setattr("segfocal.engine.job.processor", lambda: "another")
        with pytest.raises(OutputError, match="part 1-of-2 is there and differs in the processor;"):
            sf.predict_part(Neighbours(), scene, output, "2/2")
    assert sorted((tmp_path / ".labels.tif.scratch").iterdir()) == before
    sf.predict_part(Neighbours(), scene, output, "2/2", max_memory="64GB")  # makes no difference
    sf.assemble(output, model=Neighbours())


def test_of_two_different_parts_at_work_at_once_the_later_one_is_refused(scene, tmp_path):
    output, begun = tmp_path / "labels.tif", []

    def meanwhile(done: int, total: int) -> None:
        if not begun:
            begun.append(sf.predict_part(Neighbours(), scene, output, "1/2"))

    with pytest.raises(OutputError, match="part 1-of-2 is there and differs in the model;"):
        sf.predict_part(
            Neighbours(name="another"), scene, output, "2/2", progress=meanwhile
        )  # fmt: skip
    assert begun[0].units > 0
    sf.predict_part(Neighbours(), scene, output, "2/2")  # the way out that the message names
    sf.assemble(output, model=Neighbours())


def test_all_parts_are_computed_anew_one_after_the_other(scene, tmp_path):
    output, another = tmp_path / "labels.tif", Neighbours(name="another")
    for part in ("1/3", "2/3", "3/3"):
        sf.predict_part(Neighbours(), scene, output, part)
    for part in ("1/3", "2/3"):
        with pytest.warns(SegfocalWarning, match="differs in the model; run that one again too"):
            sf.predict_part(another, scene, output, part)
    with pytest.raises(OutputError, match="part 3-of-3 is there and differs in the model;"):
        sf.predict_part(another, scene, output, "1/3")
    sf.predict_part(another, scene, output, "3/3")
    done = sf.assemble(output, model=another)
    assert done.sha256 == sf.predict(another, scene, tmp_path / "whole.tif").sha256


def test_a_run_that_computes_all_parts_replaces_older_ones(scene, tmp_path):
    """As one on a cluster does, which was started again with another model."""
    output, another = tmp_path / "labels.tif", Neighbours(name="another")
    sf.predict_part(Neighbours(), scene, output, "2/2", polygons=".gpkg")
    task = ScanTask(scene, output, 2)
    for part in ("1/2", "2/2"):
        assert run_unit(another, task, Unit(0, "part", part), {}).value is None
    done = run_unit(another, task, Unit(0, "finish"), {}).value
    assert done.sha256 == sf.predict(another, scene, tmp_path / "whole.tif").sha256


def test_a_part_that_is_to_become_something_else_is_refused(scene, tmp_path):
    output = tmp_path / "labels.tif"
    sf.predict_part(Neighbours(), scene, output, "1/2", polygons=".gpkg", min_area=3)
    with pytest.raises(OutputError, match=r"\(polygons .gpkg there, none here; min_area 3 there,"):
        sf.predict_part(Neighbours(), scene, output, "2/2")
    with pytest.raises(OutputError, match=r"\(min_area 3 there, 4 here\)"):
        sf.predict_part(Neighbours(), scene, output, "2/2", polygons=".gpkg", min_area=4)
    sf.predict_part(Neighbours(), scene, output, "2/2", polygons=".gpkg", min_area=3)
    sf.predict_part(Neighbours(), scene, output, "2/2")  # there already: what it is told now counts
    assert sf.assemble(output, model=Neighbours()).polygons is None


def test_parts_are_assembled_from_another_folder(scene, tmp_path, monkeypatch):
    ring = [[100, -1400], [900, -1400], [900, -100], [100, -1400]]
    area = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "area.geojson").write_text(json.dumps(area))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"area": "area.geojson", "area_crs": "EPSG:32633", "polygons": "outlines.gpkg"}
    monkeypatch.setattr(contexts, "load_model", lambda path: Neighbours())
    (tmp_path / "m.keras").write_text("")
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.chdir(tmp_path)
    for part in ("1/2", "2/2"):
        sf.predict_part("m.keras", "scene.tif", "labels.tif", part, **options)
    monkeypatch.chdir(elsewhere)
    done = sf.assemble("../labels.tif")
    assert done.polygons == sf.predict(
        Neighbours(), scene, tmp_path / "whole.tif",
        **{**options, "area": tmp_path / "area.geojson", "polygons": ".gpkg"},
    ).polygons  # fmt: skip
    assert (tmp_path / "outlines.gpkg").exists()
    assert digest(tmp_path / "labels.tif") == digest(tmp_path / "whole.tif")
    assert [*elsewhere.iterdir()] == []


def test_what_parts_are_made_from_is_there_once_they_are(scene, tmp_path, monkeypatch):
    """So that another process may assemble as soon as it sees the last of them."""
    output, seen = tmp_path / "labels.tif", []
    mark = ScratchStore.mark_complete

    def spy(store: ScratchStore) -> None:
        seen.append((store.folder / "order.json").exists())
        mark(store)

    monkeypatch.setattr(ScratchStore, "mark_complete", spy)
    sf.predict_part(Neighbours(), scene, output, "1/2")
    assert seen == [True]


def test_a_part_does_not_fail_when_another_process_assembles_meanwhile(
    scene, tmp_path, monkeypatch
):
    output = tmp_path / "labels.tif"
    for part in ("1/2", "2/2"):
        sf.predict_part(Neighbours(), scene, output, part)
    known, done = part_orders.absolute_options, []

    def meanwhile(options):  # while the order is made
        done.append(sf.assemble(output, model=Neighbours()))
        return known(options)

    monkeypatch.setattr(part_orders, "absolute_options", meanwhile)
    assert sf.predict_part(Neighbours(), scene, output, "1/2").units > 0
    assert [one.sha256 for one in done] == [digest(output)]
    assert not (tmp_path / ".labels.tif.scratch").exists()
    folder = tmp_path / ".other.tif.scratch"
    folder.mkdir()
    (folder / "order.json").mkdir()  # cannot be replaced, and the folder is there
    monkeypatch.setattr(part_orders, "absolute_options", known)
    with pytest.raises(OutputError):
        sf.predict_part(Neighbours(), scene, tmp_path / "other.tif", "1/2")


def test_an_output_that_is_assembled_already_is_left(scene, tmp_path):
    output, told = tmp_path / "labels.tif", []
    for part in ("1/2", "2/2"):
        sf.predict_part(Neighbours(), scene, output, part, uncertainty=True)
    done = sf.assemble(output, model=Neighbours())
    before = digest(output)
    again = sf.assemble(output, notice=told.append)
    assert told == [f"{output}: finished already"]
    assert again.unchanged
    assert (again.sha256, again.classes) == (done.sha256, done.classes)
    assert digest(output) == before
    by_command = CliRunner().invoke(command, ["assemble", str(output)])
    assert by_command.exit_code == 0
    assert "finished already" in by_command.stderr
    assert "150 x 110 pixels" in by_command.stdout
    layer = tmp_path / "labels.uncertainty.tif"
    for path in (layer, output):  # something else by now
        with open(path, "ab") as file:
            file.write(b"x")
        with pytest.raises(OutputError, match="there are no parts of it"):
            sf.assemble(output)


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "1", "1/0", "-1/2"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(GeometryError, match="expected a number and how many"):
        parse_part(text)


def test_shards_by_the_command(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Neighbours())
    output = tmp_path / "labels.tif"

    def run(*arguments: object):
        return CliRunner().invoke(command, [str(argument) for argument in arguments])

    common = ("predict", "m.keras", scene, "-o", output, "--min-size", "5")
    assert "part 1-of-2" in run(*common, "--shard", "1/2").stdout
    early = run("assemble", output)
    assert early.exit_code == 2
    assert "not computed yet: part 2-of-2" in early.stderr
    assert json.loads(run(*common, "--shard", "2/2", "--json").stdout)["part"] == "2-of-2"
    done = run("assemble", output)
    assert done.exit_code == 0, done.output
    assert "150 x 110 pixels" in done.stdout
    sf.predict(Neighbours(), scene, tmp_path / "whole.tif", min_size="5")
    assert digest(output) == digest(tmp_path / "whole.tif")
    assert run("predict", "m.keras", scene, scene, "-o", "x.tif", "--shard", "1/2").exit_code == 2


def test_another_processor_may_assemble(scene, tmp_path, monkeypatch):
    whole = sf.predict(Neighbours(), scene, tmp_path / "whole.tif")
    output = tmp_path / "labels.tif"
    for part in ("1/2", "2/2"):
        sf.predict_part(Neighbours(), scene, output, part)
    there = json.loads((tmp_path / "whole.tif.json").read_text())["processor"]
    monkeypatch.setattr("segfocal.engine.job.processor", lambda: "another")
    done = sf.assemble(output, model=Neighbours())
    assert done.sha256 == whole.sha256
    assert json.loads((tmp_path / "labels.tif.json").read_text())["processor"] == there


def test_parts_of_something_else_are_not_removed(scene, tmp_path):
    output = tmp_path / "labels.tif"
    for part in ("1/2", "2/2"):
        sf.predict_part(Neighbours(), scene, output, part)
    kept = {path.name: path.read_bytes() for path in (tmp_path / ".labels.tif.scratch").iterdir()}
    assert len(kept) > 3
    with pytest.raises(OutputError, match="before the model changed"):
        sf.assemble(output, model=Neighbours(name="other"))
    before = scene.stat()
    os.utime(scene, (1, 1))
    with pytest.raises(OutputError, match="before the input changed"):
        sf.assemble(output, model=Neighbours())
    after = {path.name: path.read_bytes() for path in (tmp_path / ".labels.tif.scratch").iterdir()}
    assert after == kept
    os.utime(scene, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sf.assemble(output, model=Neighbours()).sha256


def test_an_output_of_another_model_is_replaced_when_asked(scene, tmp_path, monkeypatch):
    output, other = tmp_path / "labels.tif", Neighbours(name="other")
    sf.predict(other, scene, output, uncertainty=True)
    before = {path: path.read_bytes() for path in tmp_path.glob("labels.*")}
    assert len(before) == 4
    for part in ("1/2", "2/2"):
        sf.predict_part(Neighbours(), scene, output, part)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        sf.assemble(output, model=Neighbours())
    assert {path: path.read_bytes() for path in tmp_path.glob("labels.*")} == before
    done = sf.assemble(output, model=Neighbours(), overwrite=True)
    assert done.sha256 == digest(output)
    assert done.sha256 == sf.predict(Neighbours(), scene, tmp_path / "whole.tif").sha256
    assert not (tmp_path / "labels.uncertainty.tif").exists()  # it was the other's
    # What the parts were told holds too; and by the command.
    for part in ("1/2", "2/2"):
        sf.predict_part(other, scene, output, part, overwrite=True)
    assert sf.assemble(output, model=other).sha256 == digest(output)
    monkeypatch.setenv("SEGFOCAL_ENGINE", "keras")
    monkeypatch.setattr(contexts, "load_model", lambda path: Neighbours())
    for part in ("1/2", "2/2"):
        sf.predict_part("m.keras", scene, output, part)
    refused = CliRunner().invoke(command, ["assemble", str(output)])
    assert refused.exit_code == 2
    assert "exists already" in refused.stderr
    replaced = CliRunner().invoke(command, ["assemble", str(output), "--overwrite"])
    assert replaced.exit_code == 0, replaced.output
    assert digest(output) == done.sha256


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_is_read_is_not_replaced_by_assembling(link, scene, tmp_path):
    output, mosaic = tmp_path / "labels.tif", tmp_path / "mosaic.vrt"
    with rasterio.open(scene) as source, rasterio.vrt.WarpedVRT(source) as view:
        rasterio.shutil.copy(view, mosaic, driver="VRT")
    before = scene.read_bytes()
    for source in (scene, mosaic):
        for part in ("1/2", "2/2"):
            sf.predict_part(Neighbours(), source, output, part)
        link(scene, output)
        with pytest.raises(OutputError, match=r"is the scan itself|is read for this very output"):
            sf.assemble(output, model=Neighbours(), overwrite=True)
        assert output.samefile(scene)
        assert scene.read_bytes() == before
        output.unlink()
        sf.assemble(output, model=Neighbours(), overwrite=True)
        output.unlink()


def test_an_output_on_object_storage_is_not_assembled():
    with pytest.raises(OutputError, match="/vsis3/"):
        sf.assemble("/vsis3/bucket/labels.tif", model=Neighbours())
