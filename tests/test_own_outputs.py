"""Outputs of earlier runs are not taken for scans of the next."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from plain_scenes import Stub, write_scene

from segfocal.card import Card, Channel
from segfocal.errors import ScanNotFoundError
from segfocal.many_scans import predict_many


def names(summary) -> list[str]:
    return sorted(Path(one.input[0]).name for one in summary.outcomes)


def test_a_pattern_over_the_folder_of_outputs_may_be_run_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("a.tif", "b.uncertainty.tif", "deep/c.tif"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write_scene(data / name, (70, 60))
    pattern, out = f"{data}/**/*.tif", data / "out"
    told: list[str] = []
    first = predict_many(Stub(), [pattern], out, uncertainty=True, notice=told.append)
    assert names(first) == ["a.tif", "b.uncertainty.tif", "c.tif"]
    assert not told
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for folder in (out, tmp_path / "link"):  # by another name too
        if not folder.exists():
            folder.symlink_to(out)
        told.clear()
        again = predict_many(Stub(), [pattern], folder, uncertainty=True, notice=told.append)
        assert names(again) == names(first)
        assert again.count("unchanged") == 3
        line = f"{folder}: 6 outputs of earlier runs in it are not taken for scans"
        assert told[0] == line
        assert sorted(path for path in out.rglob("*") if path.is_file()) == files


def test_only_what_the_provenance_names_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_scene(tmp_path / "a.tif", (70, 60))
    predict_many(Stub(), [tmp_path], out)
    write_scene(out / "scan.tif", (80, 60))
    write_scene(out / "a.uncertainty.tif", (90, 60))  # the run wrote none of this name
    (out / "scan.tif.json").write_text('{"kind": "another"}')
    os.link(out / "a.tif.json", out / "moved.tif.json")
    write_scene(out / "moved.tif", (70, 60))
    summary = predict_many(Stub(), [out], out / "more")
    assert names(summary) == ["a.tif", "a.uncertainty.tif", "moved.tif", "scan.tif"]
    for path in (out / "more").iterdir():
        path.unlink()
    summary = predict_many(Stub(), [out], out)
    assert names(summary) == ["a.uncertainty.tif", "moved.tif", "scan.tif"]
    # Elsewhere, and by its name, an output is a scan like any other.
    assert names(predict_many(Stub(), [out / "a.tif"], out / "x")) == ["a.tif"]
    assert "a.tif" in names(predict_many(Stub(), [out], tmp_path / "y"))


def test_nothing_but_outputs_is_no_scan(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", (70, 60))
    predict_many(Stub(), [tmp_path], tmp_path / "out")
    with pytest.raises(ScanNotFoundError, match="nothing but outputs of segfocal"):
        predict_many(Stub(), [tmp_path / "out"], tmp_path / "out")


def test_volumes_beside_their_outputs(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (12, 13, 14)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    model = Stub()
    model.ndim = 3
    model.card = Card(
        ndim=3, channels=(Channel(name="a"),), classes=model.card.classes, tile=(16, 16, 16),
        orientation="RAS",
    )  # fmt: skip
    for status in ("done", "unchanged"):
        summary = predict_many(model, [tmp_path], tmp_path)
        assert [one.status for one in summary.outcomes] == [status]
    assert names(summary) == ["v.nii"]
