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
from segfocal.card import Card, Channel, LabelClass
from segfocal.cli import segfocal as command
from segfocal.engine import contexts
from segfocal.engine.parts import Part, parse_part
from segfocal.errors import GeometryError, OutputError, OutputExistsError
from segfocal.scan_parts import REGION_PIXELS, count_parts


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

    options = {"area": (200, -1300, 900, -350), "probabilities": "uint8", "max_memory": "4GB"}
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


def test_parts_that_do_not_go_together_are_refused(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    sf.predict_part(Neighbours(), scene, output, "1/2")
    sf.predict_part(Neighbours(), scene, output, "1/3")
    with pytest.raises(OutputError, match="parts of 2 and of 3 are there"):
        sf.assemble(output, model=Neighbours())
    other = tmp_path / "other.tif"
    sf.predict_part(Neighbours(), scene, other, "1/2")
    sf.predict_part(Neighbours(name="another"), scene, other, "2/2")
    with pytest.raises(OutputError, match="not computed yet: part 2-of-2"):
        sf.assemble(other, model=Neighbours())


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
    assert run("predict", "m.keras", scene, scene, "-o", "x", "--shard", "1/2").exit_code == 2


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


def test_an_output_on_object_storage_is_not_assembled():
    with pytest.raises(OutputError, match="/vsis3/"):
        sf.assemble("/vsis3/bucket/labels.tif", model=Neighbours())
