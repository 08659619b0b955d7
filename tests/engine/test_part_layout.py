"""Parts in columns: the bytes of an undivided run, and few tiles that are run twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.job import prepare
from segfocal.engine.part_layout import REGION_PIXELS, PartLayout, lay_out
from segfocal.errors import OutputError
from segfocal.scan_parts import count_parts


class Neighbours:
    """Sees a pixel and those around it, so that seams between parts would show."""

    output_stride, engine, batch_matters, ndim, hash = 1, "numpy", False, 2, "neighbours"

    def __init__(self, resolution=None):
        self.card = Card(
            channels=(Channel(name="a"),),
            classes=tuple(LabelClass(value=v, name=f"c{v}", color=(v, 0, 0)) for v in (3, 4, 9)),
            tile=(32, 32),
            resolution=resolution,
        )

    def __call__(self, values, valid):
        usable = np.where(valid[..., None], values, 0)
        total = sum(np.roll(usable, step, axis) for axis in (1, 2) for step in (-1, 1))
        scores = np.concatenate([np.sin(total), np.cos(usable), np.sin(usable / 3)], -1)
        expd = np.exp(scores)
        return (expd / expd.sum(-1, keepdims=True)).astype(np.float32)


def scene(path: Path, rows: int, cols: int, *, holes: bool = True) -> Path:
    values = np.random.default_rng(0).integers(0, 30, (rows, cols)).astype(np.uint8)
    if holes:
        values[: rows // 3, : cols // 2] = 255
    with rasterio.open(
        path, "w", driver="GTiff", width=cols, height=rows, count=1, dtype="uint8",
        nodata=255, crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        compress="deflate",
    ) as out:  # fmt: skip
        out.write(values, 1)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def layout(path: Path, count: int, **options) -> PartLayout:
    known = {"tile": None, "overlap": None, "halo": 0, "blend": "gaussian", "batch_size": 1}
    with sf.open_scan(path) as scan:
        return lay_out(prepare(Neighbours(), scan, **{**known, **options}), count)


@pytest.mark.parametrize(
    ("sides", "count", "expected"),
    [
        ((60, 500), 2, (1, 2)),
        ((60, 500), 7, (1, 7)),
        ((140, 300), 6, (2, 3)),
        ((300, 140), 6, (3, 2)),
        ((150, 110), 3, (3, 1)),
        ((500, 60), 5, (5, 1)),
    ],
)
def test_parts_in_columns_give_the_bytes_of_an_undivided_run(
    sides: tuple[int, int], count: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    source = scene(tmp_path / "scene.tif", *sides)
    found = layout(source, count)
    assert (found.rows, len(found.columns)) == expected
    # Every pixel lies in one column of one row, and each part has some.
    lengths = [column.stop - column.start for column in found.columns]
    assert sum(lengths) == sides[1]
    assert min(lengths) >= 0.5 * max(lengths)
    owners = [
        found.owners((slice(row, row + 1), slice(col, col + 1)))
        for row, col in itertools.product(range(0, sides[0], 7), range(0, sides[1], 7))
    ]
    assert {len(some) for some in owners} == {1}
    assert {number for some in owners for number in some} == {*range(1, count + 1)}
    whole = sf.predict(Neighbours(), source, tmp_path / "whole.tif", probabilities="uint8")
    output = tmp_path / "parts.tif"
    for number in (np.random.default_rng(count).permutation(count) + 1).tolist():
        sf.predict_part(
            Neighbours(), source, output, f"{number}/{count}", probabilities="uint8",
            # Memory for narrow strips in one, for wide ones in another.
            max_memory="64GB" if number % 2 else None, batch_size=1 + number % 3,
        )  # fmt: skip
    done = sf.assemble(output, model=Neighbours())
    assert done.sha256 == whole.sha256 == digest(output)
    beside = "{}.probabilities.tif"
    assert digest(tmp_path / beside.format("parts")) == digest(tmp_path / beside.format("whole"))


def test_an_area_of_a_scene_in_columns(tmp_path: Path) -> None:
    source, area = scene(tmp_path / "scene.tif", 90, 400), (205, -705, 3895, -105)
    sf.predict(Neighbours(), source, tmp_path / "whole.tif", area=area)
    for number in (3, 1, 2):
        sf.predict_part(Neighbours(), source, tmp_path / "parts.tif", f"{number}/3", area=area)
    sf.assemble(tmp_path / "parts.tif", model=Neighbours())
    assert digest(tmp_path / "parts.tif") == digest(tmp_path / "whole.tif")


def test_what_is_missing_of_columns_is_named_and_taken_over(tmp_path: Path) -> None:
    source, output = scene(tmp_path / "scene.tif", 60, 500), tmp_path / "labels.tif"
    for number in (1, 3):
        sf.predict_part(Neighbours(), source, output, f"{number}/3")
    with pytest.raises(OutputError, match="not computed yet: part 2-of-3; run what"):
        sf.assemble(output, model=Neighbours())
    sf.predict_part(Neighbours(), source, output, "2/3")
    scratch = tmp_path / ".labels.tif.scratch"
    journal = (scratch / "journal.3-of-3").read_text().splitlines()
    unit = next(line for line in journal if "window" in line)
    entry = json.loads(unit.split(" ", 1)[1])
    assert entry["window"][1][0] > 300
    (scratch / entry["labels"]["file"]).write_bytes(b"x")
    with pytest.raises(OutputError, match="not computed yet: part 3-of-3;"):
        sf.assemble(output, model=Neighbours())
    sf.predict(Neighbours(), source, output)  # an undivided run goes on from there
    assert digest(output) == sf.predict(Neighbours(), source, tmp_path / "whole.tif").sha256


def test_tiles_run_twice_are_below_a_tenth_for_a_wide_scene(tmp_path: Path) -> None:
    class Counting(Neighbours):
        tiles = 0

        def __call__(self, values, valid):
            Counting.tiles += len(values)
            return super().__call__(values, valid)

    cols = 3 * REGION_PIXELS + 100
    source = scene(tmp_path / "wide.tif", 600, cols, holes=False)
    output, options = tmp_path / "labels.tif", {"tile": 512, "overlap": 128, "batch_size": 1}
    assert count_parts(Neighbours(), source, output, **options) == 3
    for number in (1, 2, 3):
        sf.predict_part(Counting(), source, output, f"{number}/3", **options)
    done = sf.assemble(output, model=Neighbours())
    assert done.tiles == 2 * math.ceil((cols - 128) / 384)
    assert Counting.tiles == done.tiles + 2 * 2  # a column of two tiles at each seam
    assert Counting.tiles < 1.1 * done.tiles


@pytest.mark.parametrize("count", [2, 3, 8, 200])
@pytest.mark.parametrize("resolution", [15.0, 7.0])
def test_parts_of_a_resampled_scene(resolution: float, count: int, tmp_path: Path) -> None:
    source, model = scene(tmp_path / "scene.tif", 130, 90), Neighbours((resolution, resolution))
    whole = sf.predict(model, source, tmp_path / "whole.tif", resample="always")
    output = tmp_path / "parts.tif"
    for number in range(1, count + 1):
        sf.predict_part(model, source, output, f"{number}/{count}", resample="always")
    assert sf.assemble(output, model=model).sha256 == whole.sha256 == digest(output)


def test_parts_of_a_resampled_volume_at_a_seam(tmp_path: Path) -> None:
    model = Neighbours()
    model.ndim = 3
    model.card = Card(
        ndim=3, channels=model.card.channels, classes=model.card.classes, tile=(12, 12, 12),
        orientation="RAS", resolution=(1.0, 1.0, 1.5),
    )  # fmt: skip
    values = np.random.default_rng(0).integers(0, 30, (20, 26, 47)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1, 2, 1])), tmp_path / "volume.nii")
    whole = sf.predict(model, tmp_path / "volume.nii", tmp_path / "whole.nii.gz")
    output = tmp_path / "parts.nii.gz"
    for number in (3, 1, 2):
        sf.predict_part(model, tmp_path / "volume.nii", output, f"{number}/3")
    assert sf.assemble(output, model=model).sha256 == whole.sha256 == digest(output)
