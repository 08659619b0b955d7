"""Cross-validation over made scenes: who trained on what, and how scores are put together."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from sklearn.metrics import accuracy_score, jaccard_score

import segfocal as sf
from segfocal import cross_validation
from segfocal.cli.folds import train_folds
from segfocal.demonstration import bundled_spec
from segfocal.errors import OutputExistsError, SpecError
from segfocal.io import read_labels
from segfocal.training.resuming import Folder

SPEC = """
name: made
ndim: 2
channels: [a]
classes: [{value: 0, name: ground, color: [0, 0, 0]}, {value: 1, name: thing, color: [255, 0, 0]}]
pairing: {image: "{name:s.}.tif", labels: "{name}_labels.tif"}
splits: {test: [{case: s5}]}
split_by: {folds: 3, seed: 1}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for number in range(6):
        truth = np.zeros((64, 64), np.uint8)
        row, col = rng.integers(8, 40, 2)
        truth[row : row + 16, col : col + 16] = 1
        image = (rng.normal(0, 0.3, truth.shape) + truth).astype(np.float32)
        for name, array in ((f"s{number}", image), (f"s{number}_labels", truth)):
            with rasterio.open(
                folder / f"{name}.tif", "w", driver="GTiff", height=64, width=64, count=1,
                dtype=array.dtype, crs="EPSG:32633",
                transform=rasterio.Affine(10, 0, 5e5 + 2000 * number, 0, -10, 5e6),
            ) as file:  # fmt: skip
                file.write(array, 1)
    (folder / "spec.yaml").write_text(SPEC)
    return sf.load_spec(folder / "spec.yaml")


def cases(spec, split):
    return {region.case for region in spec.regions(split)}


def test_each_case_is_left_out_once_and_never_trained_on_then(spec):
    assert spec.folds == 3
    parts = [spec.with_fold(fold) for fold in range(3)]
    left_out = [cases(part, "val") for part in parts]
    assert sorted(name for names in left_out for name in names) == ["s0", "s1", "s2", "s3", "s4"]
    for part, names in zip(parts, left_out, strict=True):
        assert cases(part, "train") == {"s0", "s1", "s2", "s3", "s4"} - names
        assert cases(part, "test") == {"s5"}
        assert part.with_fold(1).all_regions == parts[1].all_regions
    assert parts[0].all_regions == spec.all_regions


def test_folds_that_are_not_there_are_refused(spec, tmp_path):
    with pytest.raises(SpecError, match="fold 3 of spec 'made'; expected 0 to 2"):
        sf.cross_validate(spec, tmp_path, folds=[3])
    alone = sf.load_spec(bundled_spec("nc_landcover.yaml"))
    with pytest.raises(SpecError, match=r"has no folds; expected split_by: \{folds: 5\}"):
        sf.cross_validate(alone, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def untrained(spec, tmp_path, monkeypatch):
    """Folds whose training ends at once with a model that reads the scan."""
    card = sf.Card(
        ndim=2, channels=({"name": "a"},), classes=tuple(one.model_dump() for one in spec.classes),
        tile=(32, 32),
    )  # fmt: skip

    class Threshold:
        output_stride, engine, hash, ndim = 1, "test", "threshold", 2

        def __call__(self, values, valid):
            above = 1 / (1 + np.exp(-8 * (values - 0.5)))
            return np.concatenate([1 - above, above], -1).astype(np.float32)

    def train(model, part, plan, folder, **rest):
        predictor = Threshold()
        predictor.card = card
        return SimpleNamespace(
            model=predictor, finished=True, steps=1, seconds=0.0, as_json=lambda: {}
        )

    monkeypatch.setattr(cross_validation, "train", train)
    monkeypatch.setattr(cross_validation, "make_plan", lambda *rest, **more: None)
    monkeypatch.setattr(cross_validation.FocalUNet, "from_plan", lambda *rest: None)


def test_groups_of_the_spec_are_drawn_and_notes_are_printed(
    spec, untrained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("segfocal.evaluation.DEFAULT_POINT_BYTES", 2_000)
    lines = "\n".join(
        f"  - {{id: s{k}, image: s{k}.tif, labels: s{k}_labels.tif, groups: {{site: t{k // 2}}}}}"
        for k in (0, 1, 2, 3, 5)
    )
    text = SPEC.replace("folds: 3", "folds: 2").splitlines()
    text = [line for line in text if not line.startswith("pairing")]
    path = spec.path("grouped.yaml")
    path.write_text("\n".join([*text, "group_by: site", "cases:", lines, ""]))
    grouped = sf.load_spec(path)
    train_folds(grouped, tmp_path / "all", None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    said = "intervals: from drawing 2 groups of cases (group_by: site) again and again"
    assert said in lines
    notes = [line for line in lines if line.startswith("note: ")]
    assert sorted(notes) == sorted(set(notes))
    assert {line.split(":")[1] for line in notes} == {f" distances of s{k}" for k in range(4)}
    written = json.loads((tmp_path / "all" / "scores.json").read_text())
    assert (written["group_by"], written["groups"]) == ("site", 2)
    assert len(written["cases"]) == 4
    one = [case["group"] for case in written["cases"]]
    assert sorted(one) == ["t0", "t0", "t1", "t1"]

    train_folds(grouped, tmp_path / "one", [1], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    left_out = sorted(cases(grouped.with_fold(1), "val"))
    assert [
        line.split(":")[1].split()[-1] for line in lines if line.startswith("note: ")
    ] == left_out


def found_and_true(spec, folder, names):
    pairs = []
    for name in names:
        window = (slice(0, 64), slice(0, 64))
        with sf.open_scan(folder / f"{name}.tif") as found:
            pairs.append([read_labels(found, window)[0]])
        with sf.open_scan(spec.path(f"{name}_labels.tif")) as truth:
            pairs[-1].append(read_labels(truth, window)[0])
    return (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))


def test_options_of_the_plan_are_those_of_the_run_that_is_resumed(spec, tmp_path):
    planned = {"steps": 1, "patch": [32, 32], "batch_size": 1, "preset": None}
    planned |= {"augmentation": "light", "device": "cpu", "memory": "4GB"}
    first = sf.cross_validate(spec, tmp_path, folds=[0], planned=planned)
    model = first.folds[0].run.model
    before = model.stat().st_mtime_ns
    again = sf.cross_validate(spec, tmp_path, folds=[0], planned=planned, resume=True)
    assert model.stat().st_mtime_ns == before
    assert again.folds[0].scores.accuracy == first.folds[0].scores.accuracy
    for changed, said in (
        ({"augmentation": "none"}, r"another plan\.mirror_axes"),
        ({"augmentation": "default"}, r"another plan\.augmentation"),
        ({"augmentation": "some"}, "augmentation 'some'; expected one of default, light, none"),
        ({"patch": (32,)}, r"patch \(32,\) has 1 numbers; expected 2"),
    ):
        with pytest.raises(SpecError, match=said):
            sf.cross_validate(spec, tmp_path, folds=[0], planned=planned | changed, resume=True)


def test_folds_that_are_to_be_done_anew_are_given_up_before_the_first(spec, tmp_path, monkeypatch):
    for fold in range(3):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "model.keras").write_bytes(b"old")
        (tmp_path / f"fold_{fold}" / "run.json").write_text('{"finished": true}')

    def stop(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "train", stop)
    planned = {"steps": 1, "patch": (32, 32), "batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        sf.cross_validate(spec, tmp_path, folds=[0, 2], planned=planned, overwrite=True)
    finished = [Folder(tmp_path / f"fold_{fold}").finished for fold in range(3)]
    assert finished == [False, True, False]
    assert all((tmp_path / f"fold_{fold}" / "model.keras").exists() for fold in range(3))


@pytest.mark.slow
def test_scores_are_those_of_all_cases_by_models_that_did_not_see_them(spec, tmp_path):
    planned = {"steps": 60, "patch": (32, 32), "batch_size": 4}
    one = sf.cross_validate(spec, tmp_path, folds=[1], planned=planned)
    assert one.scores is None
    assert [result.fold for result in one.folds] == [1]
    before = one.folds[0].run.model.stat().st_mtime_ns
    with pytest.raises(OutputExistsError):
        sf.cross_validate(spec, tmp_path, folds=[1], planned=planned)
    part = sf.cross_validate(spec, tmp_path, planned=planned, resume=True, max_minutes=0)
    assert (part.scores, [result.scores for result in part.folds]) == (None, [None])
    assert not (tmp_path / "scores.json").exists()
    begun = []
    result = sf.cross_validate(spec, tmp_path, planned=planned, resume=True, begin=begun.append)
    assert begun == [0, 1, 2]
    assert one.folds[0].run.model.stat().st_mtime_ns == before, "a finished fold is kept"
    found, true = [], []
    for fold in result.folds:
        names = sorted(cases(spec.with_fold(fold.fold), "val"))
        assert sorted(score.case for score in fold.scores.cases) == names
        parts = found_and_true(spec, tmp_path / f"fold_{fold.fold}" / "val", names)
        for whole, array in zip((found, true), parts, strict=True):
            whole.append(array)
    found, true = np.concatenate(found), np.concatenate(true)
    assert len(true) == 5 * 64 * 64
    assert result.scores.accuracy == pytest.approx(accuracy_score(true, found))
    assert result.scores.mean_iou == pytest.approx(jaccard_score(true, found, average="macro"))
    assert result.scores.mean_iou > 0.8
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["accuracy"] == pytest.approx(result.scores.accuracy, abs=1e-6)
    low, high = written["intervals"]["mean_iou"]
    assert low < written["mean_iou"] < high
    assert [fold["fold"] for fold in written["folds"]] == [0, 1, 2]
    assert sum(len(fold["cases"]) for fold in written["folds"]) == 5
    page = (tmp_path / "scores.html").read_text()
    assert all(f"s{number}" in page for number in range(5))
