"""Training and evaluation on the real samples, briefly."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import segfocal as sf
from segfocal.batches import PatchBatches
from segfocal.demonstration import bundled_spec
from segfocal.errors import ModelError, OutputError, OutputExistsError, SpecError
from segfocal.io import open_scan, read_labels
from segfocal.training.epochs import epochs_of, patches_numbered_in


@pytest.fixture(scope="module")
def spec():
    return sf.load_spec(bundled_spec("nc_landcover.yaml"))


def short_plan(spec, steps=8, **options):
    return sf.make_plan(spec, steps=steps, patch=(64, 64), batch_size=2, **options)


def run(spec, plan, out, **options):
    model = sf.FocalUNet.from_plan(spec, plan)
    return model, sf.train(model, spec, plan, out, **options)


@pytest.fixture(scope="module")
def trained(spec, tmp_path_factory):
    """Forty steps on the Landsat scene."""
    return run(spec, short_plan(spec, 40), tmp_path_factory.mktemp("run"))


def test_the_loss_falls_on_real_data(trained):
    _, result = trained
    lines = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 41, 2))
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:3], lines[-3:]))
    assert last < 0.8 * first


def test_additional_heads_are_trained_with_and_not_saved(spec, tmp_path):
    plan = short_plan(spec, 12).model_copy(update={"deep_supervision": 2})
    model, result = run(spec, plan, tmp_path)
    lines = [json.loads(line) for line in result.log.read_text().splitlines()]
    heads = {"logits_loss", "logits_p1_loss", "logits_p2_loss"}
    assert heads <= set(lines[-1])
    # One half, a quarter, an eighth, made to add up to one.
    parts = (lines[0][name] for name in sorted(heads))
    weighted = sum(part * share / 7 for part, share in zip(parts, (4, 2, 1), strict=True))
    assert lines[0]["loss"] == pytest.approx(weighted, rel=1e-3)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert sf.load_plan(result.folder / "plan.yaml").deep_supervision == 2
    again = sf.load_model(result.model)
    for saved, weight in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(weight))


def test_the_saved_model_is_the_trained_one(trained, spec):
    model, result = trained
    again = sf.load_model(result.model)
    for saved, weight in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(weight))
    assert again.card == sf.load_plan(result.folder / "plan.yaml").card
    assert [channel.name for channel in again.card.channels] == list(spec.channels)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(spec, tmp_path):
    weights = []
    for number, (seed, workers) in enumerate(((5, 0), (5, 3), (6, 2))):
        plan = short_plan(spec, 3, seed=seed)
        model, _ = run(spec, plan, tmp_path / str(number), workers=workers)
        weights.append(np.concatenate([np.ravel(w) for w in model.trainable_weights]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-3


def test_scores_are_those_of_the_label_map_on_the_held_out_columns(trained, spec, tmp_path):
    _, result = trained
    scores = sf.evaluate(result.model, spec, "test", out=tmp_path)
    case = spec.cases[0]
    window = (slice(0, 443), slice(252, 489))
    with open_scan(tmp_path / "wake.tif") as found, open_scan(spec.path(case.labels)) as truth:
        (found, scored), (truth, labelled) = read_labels(found, window), read_labels(truth, window)
    counted = scored & labelled
    assert scores.matrix.sum() == counted.sum()
    assert scores.accuracy == pytest.approx((found == truth)[counted].mean())
    water = counted & (truth == 6) & (found == 6), counted & ((truth == 6) | (found == 6))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["classes"][5]["name"] == "water"
    assert written["classes"][5]["iou"] == pytest.approx(water[0].sum() / water[1].sum(), abs=1e-6)
    assert written["accuracy"] == pytest.approx(scores.accuracy, abs=1e-6)
    assert scores.accuracy > 0.4, "worse than always answering the commonest class"


def test_a_time_budget_stops_the_run_and_still_saves(spec, tmp_path):
    _, result = run(spec, short_plan(spec, 1000), tmp_path, max_minutes=1e-6)
    assert result.steps < 5
    assert sf.load_model(result.model).card.num_classes == 7


def test_progress_and_keras_objects_pass_through(spec, tmp_path):
    class Seen(keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch, logs=None):
            Seen.batches += 1

    reports = []
    plan = short_plan(spec, 4)
    model, _ = run(
        spec, plan, tmp_path, callbacks=[Seen()], optimizer=keras.optimizers.SGD(0.0),
        progress=lambda *now: reports.append(now),
    )  # fmt: skip
    assert Seen.batches == 4
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    untouched = sf.FocalUNet.from_plan(spec, plan)
    for weight, start in zip(model.trainable_weights, untouched.trainable_weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(start))


def test_an_earlier_model_is_kept_unless_overwriting(trained, spec):
    _, result = trained
    before = result.model.read_bytes()
    with pytest.raises(OutputExistsError, match=r"model\.keras: exists already"):
        run(spec, short_plan(spec), result.folder)
    assert result.model.read_bytes() == before


def test_a_model_for_other_classes_is_refused(spec, tmp_path):
    plan = short_plan(spec)
    other = sf.FocalUNet(num_classes=7, in_channels=5, preset="nano")
    with pytest.raises(ModelError, match=r"FocalUNet\.from_plan"):
        sf.train(other, spec, plan, tmp_path / "run")
    with pytest.raises(ModelError, match=r"spec 'nc_landcover' has \[1, 2"):
        sf.evaluate(other, spec, out=tmp_path / "run")
    with pytest.raises(SpecError, match="no regions in split 'val'; it has train, test"):
        sf.evaluate(sf.FocalUNet.from_plan(spec, plan), spec, "val", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_start_leaves_an_earlier_one_untouched(trained, spec, tmp_path):
    _, result = trained
    log = result.log.read_bytes()
    plan = sf.load_plan(result.folder / "plan.yaml")
    elsewhere = spec.model_copy(update={"splits": {"test": spec.splits["test"]}})
    for folder in (result.folder, tmp_path / "new"):
        with pytest.raises(SpecError, match="no regions in split 'train'"):
            sf.train(sf.FocalUNet.from_plan(spec, plan), elsewhere, plan, folder, overwrite=True)
    assert result.log.read_bytes() == log
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("steps", "count", "last"),
    [(1, 1, 1), (8, 8, 1), (21, 11, 1), (150, 19, 6), (1000, 20, 50), (1009, 20, 40)],
)
def test_epochs_leave_no_planned_step_over(steps, count, last):
    epochs = epochs_of(steps)
    ends = [step for step in range(1, steps + 1) if epochs.end_at(step)]
    lengths = np.diff([0, *ends])
    assert len(lengths) == epochs.count == count
    assert set(lengths[:-1]) <= {epochs.length}
    assert (lengths[-1], lengths.sum()) == (last, steps)


def test_there_are_about_twenty_epochs_whatever_the_number_of_steps():
    assert {epochs_of(steps).count for steps in range(1000, 100_001)} == {20}
    assert min(epochs_of(steps).count for steps in range(20, 1000)) == 11


def test_what_a_step_is_trained_on_does_not_follow_from_the_epochs():
    """The numbers of a first version, whose seeds give the same weights as ever."""
    found = {steps: patches_numbered_in(steps) for steps in (1, 8, 21, 150, 1000, 1009)}
    assert found == {1: 1, 8: 1, 21: 3, 150: 10, 1000: 50, 1009: 1009}


def test_the_bundled_specs_are_found():
    assert {path.name for path in Path(bundled_spec("spine_ct.yaml")).parent.iterdir()} >= {
        "nc_landcover.yaml",
        "spine_ct.yaml",
    }


def test_a_stopped_run_keeps_plan_and_log_of_the_earlier_one(trained, spec):
    _, result = trained
    before = {path.name: path.read_bytes() for path in result.folder.iterdir()}
    names = {"model.keras", "plan.yaml", "log.jsonl", "log.csv", "run.json", "class_index.npz"}
    assert set(before) == {*names, "report.html"}

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, short_plan(spec), result.folder, overwrite=True, progress=stop, workers=0)
    files = [path for path in result.folder.iterdir() if path.is_file()]
    assert {path.name: path.read_bytes() for path in files} == before
    # A run has begun there: --resume does not take the earlier one for it.
    assert not any((result.folder / "checkpoint").iterdir())


@pytest.mark.parametrize("what", ["channels", "class_entries"])
def test_a_plan_in_another_order_than_the_spec_is_refused(spec, tmp_path, what):
    plan = short_plan(spec)
    turned = spec.model_copy(update={what: tuple(reversed(getattr(spec, what)))})
    with pytest.raises(SpecError, match="make a new plan for this spec"):
        run(turned, plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_not_saved(spec, tmp_path):
    with pytest.raises(ModelError, match="training diverged"):
        run(spec, short_plan(spec, 2), tmp_path / "run",
            optimizer=keras.optimizers.SGD(1e38))  # fmt: skip
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["class_index.npz"]


def test_evaluation_does_not_write_over_the_dataset(trained, spec, tmp_path):
    model, _ = trained
    case = spec.cases[0]
    labels = tmp_path / f"{case.id}.tif"
    labels.write_bytes(Path(spec.path(case.labels)).read_bytes())
    before = labels.read_bytes()
    moved = case.model_copy(
        update={"image": str(spec.path(case.image)), "labels": str(labels.absolute())}
    )
    dangerous = spec.model_copy(update={"cases": (moved,)})
    with pytest.raises(OutputError, match="is part of the dataset itself"):
        sf.evaluate(model, dangerous, out=tmp_path, overwrite=True)
    assert labels.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [labels.name]


def test_every_backends_data_source_gives_each_batch_once_and_in_order():
    def make(epoch, number):
        made.append((epoch, number))
        place = 10 * epoch + number
        return np.full((1, 2, 2, 1), place, np.float32), np.ones((1, 2, 2), bool), np.zeros(1)

    made = []
    source = PatchBatches(make, 3, ["logits", "logits_p1"])
    for epoch in (2, 3):
        source.epoch, source.start = epoch, 3 - epoch
        assert source.num_batches == epoch
        for number in range(epoch):
            inputs, targets = source[number]
            assert inputs["image"][0, 0, 0, 0] == 10 * epoch + source.start + number
            assert set(targets) == {"logits", "logits_p1"}
    assert made == [(2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
