"""A run that was stopped ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import segfocal as sf
from segfocal.demonstration import bundled_spec
from segfocal.errors import (
    ModelError,
    OutputError,
    OutputExistsError,
    SegfocalError,
    SpecError,
)
from segfocal.training.checkpoint import read_checkpoint
from segfocal.training.resuming import Folder, kept_plan


def with_validation(spec):
    return spec.model_copy(update={"splits": {**spec.splits, "val": spec.splits["test"]}})


@pytest.fixture(scope="module")
def spec():
    return with_validation(sf.load_spec(bundled_spec("nc_landcover.yaml")))


@pytest.fixture(scope="module")
def plan(spec):
    # 13 epochs of 3 steps, and one of 2.
    return sf.make_plan(spec, steps=41, patch=(32, 32), batch_size=2)


def model_of(plan):
    """A small network with everything that draws random numbers."""
    keras.utils.set_random_seed(plan.seed)
    encoder = {"embed_dim": 8, "depths": (1, 1, 1, 1), "focal_levels": 1, "drop_path": 0.3}
    return sf.FocalUNet(card=plan.card, preset="nano", encoder=encoder, dropout=0.2)


def train(spec, plan, out, **options):
    return sf.train(model_of(plan), spec, plan, out, workers=1, **options)


def weights(path):
    return b"".join(np.asarray(weight).tobytes() for weight in sf.load_model(path).weights)


def log(run):
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def stop_at(step):
    def progress(done, total):
        if done == step:
            raise KeyboardInterrupt

    return progress


@pytest.fixture(scope="module")
def whole(spec, plan, tmp_path_factory):
    return train(spec, plan, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(spec, plan, tmp_path_factory):
    """A run that was stopped within an epoch, a step after its last checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(spec, plan, folder, checkpoint_steps=2, progress=stop_at(9))
    names = {"checkpoint", "class_index.npz", "class_index.val.npz"}
    assert {path.name for path in folder.iterdir()} == names
    return folder


@pytest.fixture
def copy(stopped, tmp_path):
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(spec, plan, whole, copy):
    assert read_checkpoint(Folder(copy).last, arrays=False).progress.step == 8
    assert kept_plan(copy) == plan
    with pytest.raises(KeyboardInterrupt):  # within the last epoch, which is shorter
        train(spec, plan, copy, resume=True, checkpoint_steps=2, progress=stop_at(41))
    assert read_checkpoint(Folder(copy).last, arrays=False).progress.step == 40
    steps = []
    last = train(spec, plan, copy, resume=True, progress=lambda *now: steps.append(now))
    assert steps == [(41, 41)]
    assert (last.finished, last.ended, last.steps) == (True, "steps", 41)
    assert weights(last.model) == weights(whole.model)
    assert log(last) == log(whole)
    assert [line["step"] for line in log(last)] == [*range(3, 40, 3), 41]
    assert weights(last.best) == weights(whole.best)
    assert last.best_score == max(line["val_mean_iou"] for line in log(last))
    assert not (copy / "checkpoint").exists()


@pytest.mark.slow
def test_a_time_budget_stops_and_nothing_else_changes(spec, plan, whole, tmp_path):
    plan = plan.model_copy(update={"deep_supervision": 1})
    uninterrupted = train(spec, plan, tmp_path / "whole")
    runs = [
        train(spec, plan, tmp_path / "run", resume=True, max_minutes=minutes)
        for minutes in (1e-6, 1e-6, 1e-6, 1e-6, None)
    ]
    assert [run.steps for run in runs] == [1, 2, 3, 4, 41]
    assert [run.finished for run in runs] == [False] * 4 + [True]
    assert weights(runs[-1].model) == weights(uninterrupted.model)
    assert weights(runs[-1].best) == weights(uninterrupted.best)
    assert log(runs[-1]) == log(uninterrupted)
    assert weights(whole.model) != weights(uninterrupted.model)


def test_the_log_is_a_table_too(whole):
    with (whole.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in whole.log.read_text().splitlines()]
    assert [{key: float(value) for key, value in row.items()} for row in rows] == lines


def test_the_best_model_is_the_one_that_was_scored(spec, plan, whole):
    """The score is that of the averaged weights, on the same patches each time."""
    from segfocal.data.sampling import PatchSampler
    from segfocal.metrics import MeanIoU

    model = sf.load_model(whole.best)
    metric = MeanIoU(plan.card.num_classes)
    with PatchSampler(spec, plan, "val", augment=False) as sampler:
        image, valid, labels = sampler.batch(0)
    metric.update_state(labels, model({"image": image, "valid": valid}, training=False))
    assert float(metric.result()) == pytest.approx(whole.best_score, abs=1e-6)


def test_a_finished_run_is_not_trained_again(spec, plan, whole):
    before = whole.model.stat().st_mtime_ns
    assert train(spec, plan, whole.folder, resume=True) == whole
    assert whole.model.stat().st_mtime_ns == before
    with pytest.raises(SpecError, match=r"finished run with another plan\.seed: 0, now 4"):
        train(spec, plan.model_copy(update={"seed": 4}), whole.folder, resume=True)
    with pytest.raises(OutputError, match="expected one of them"):
        train(spec, plan, whole.folder, resume=True, overwrite=True)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("earlier", ["whole", "stopped"])
def test_a_run_that_was_started_anew_and_killed_is_the_one_that_is_resumed(
    spec, plan, earlier, request, tmp_path
):
    found = request.getfixturevalue(earlier)
    folder = Path(shutil.copytree(getattr(found, "folder", found), tmp_path / "run"))
    before = files(folder)
    with pytest.raises(KeyboardInterrupt):
        train(spec, plan, folder, overwrite=True, progress=stop_at(1))
    assert files(folder) == before
    assert kept_plan(folder) is None
    if earlier == "whole":
        with pytest.raises(OutputExistsError, match=r"holds a run that was stopped.*--resume"):
            train(spec, plan, folder)
    steps = []
    short = plan.model_copy(update={"steps": 3, "seed": 1})
    run = train(spec, short, folder, resume=True, progress=lambda *now: steps.append(now))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [line["step"] for line in log(run)] == [1, 2, 3]
    assert (run.finished, run.steps) == (True, 3)
    assert not (folder / "checkpoint").exists()
    assert train(spec, short, folder, resume=True) == run


class Killed(BaseException):
    """As a kill: nothing catches it."""


def earlier_run(folder, *, summary, checkpoint):
    """A folder that looks like a run's."""
    folder.mkdir()
    if summary is not None:
        (folder / "model.keras").write_bytes(b"old")
        (folder / "run.json").write_text(json.dumps({"finished": summary}))
    if checkpoint:
        (folder / "checkpoint").mkdir()
        for name in ("last.safetensors", "best.keras"):
            (folder / "checkpoint" / name).write_bytes(b"old")
    return Folder(folder)


@pytest.mark.parametrize("call", ["give_up", "remove_checkpoint"])
@pytest.mark.parametrize(
    ("summary", "checkpoint"), [(True, False), (False, True), (None, True), (True, True)]
)
def test_killed_between_any_two_changes_of_the_folder(
    call, summary, checkpoint, tmp_path, monkeypatch
):
    """Before: all as it was. After: nothing of the earlier run is gone on with. No third."""
    changes = {"mkdir": os.mkdir, "rename": os.rename, "unlink": os.unlink, "rmdir": os.rmdir}
    seen = set()
    for survived in range(9):
        place = earlier_run(tmp_path / str(survived), summary=summary, checkpoint=checkpoint)
        left = survived

        def counted(name):
            def change(*given, **options):
                nonlocal left
                if not left:
                    raise Killed
                left -= 1
                return changes[name](*given, **options)

            return change

        with monkeypatch.context() as patched:
            for name in changes:
                patched.setattr(os, name, counted(name))
            try:
                getattr(place, call)()
                complete = True
            except Killed:
                complete = False
        state = (place.finished, place.last.exists(), place.best.exists())
        started = (bool(summary) and not checkpoint, checkpoint, checkpoint)
        if call == "give_up":
            # A checkpoint goes first; its best network alone is not looked at.
            assert state == started or state[:2] == (False, False)
            assert not complete or (state == (False, False, False) and place.begun)
        else:
            assert state in (started, (bool(summary), False, False))
            assert not complete or not place.begun
        seen.add(state[:2])
        if complete:
            break
    assert complete
    assert seen == {started[:2], (bool(summary) and call == "remove_checkpoint", False)}
    assert files(place.path).keys() == (set() if summary is None else {"model.keras", "run.json"})


def test_where_nothing_was_there_is_nothing_to_give_up(tmp_path):
    Folder(tmp_path).give_up()
    assert not list(tmp_path.iterdir())


def test_what_has_changed_is_named_and_refused(spec, plan, copy):
    with pytest.raises(OutputExistsError, match=r"holds a run that was stopped.*--resume"):
        train(spec, plan, copy)
    slower = plan.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(
        SpecError, match=r"another plan\.learning_rate: 0\.003, now 0\.0001, and .*all"
    ):
        train(spec, slower, copy, resume=True)
    fewer = spec.model_copy(update={"splits": {"train": spec.splits["train"]}})
    with pytest.raises(SpecError, match=r"another spec\.splits: sha256:.*, now .*--allow-changes"):
        train(fewer, plan, copy, resume=True)
    with pytest.raises(SpecError, match="another optimizer"):
        train(spec, plan, copy, resume=True, optimizer=keras.optimizers.SGD(0.1))
    with pytest.raises(SpecError, match="another model"):
        sf.train(sf.FocalUNet.from_plan(spec, plan), spec, plan, copy, resume=True)
    before = Folder(copy).last.read_bytes()
    with pytest.raises(
        ModelError, match=r"variables of the model; expected|in the checkpoint; exp"
    ):
        sf.train(
            sf.FocalUNet.from_plan(spec, plan), spec, plan, copy, resume=True, allow_changes=True
        )
    assert Folder(copy).last.read_bytes() == before


@pytest.mark.slow
def test_changes_may_be_allowed(spec, plan, copy):
    slower = plan.model_copy(update={"learning_rate": 1e-9})
    run = train(spec, slower, copy, resume=True, allow_changes=True, max_minutes=1e-6)
    assert (run.steps, run.finished) == (9, False)
    assert kept_plan(copy) == slower


def test_a_damaged_checkpoint_is_named(spec, plan, copy):
    path = Folder(copy).last
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"last\.safetensors: the checkpoint cannot be read"):
        train(spec, plan, copy, resume=True)


@pytest.mark.slow
def test_a_score_that_rises_no_more_stops_the_run(spec, plan, tmp_path):
    # Without learning the averaged weights stay, and so does the score.
    run = train(spec, plan, tmp_path, optimizer=keras.optimizers.SGD(0.0), patience=2)
    assert (run.finished, run.ended, run.steps) == (True, "patience", 9)
    alone = spec.model_copy(update={"splits": {"train": spec.splits["train"]}})
    with pytest.raises(SpecError, match="no regions in split 'val'"):
        train(alone, plan, tmp_path / "b", patience=2)


def test_curves_need_tensorboard(spec, plan, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(SegfocalError, match=r"need tensorboard.*segfocal\[tensorboard\]"):
        train(spec, plan, tmp_path / "run", curves=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_curves_are_those_of_the_log(spec, plan, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    run = train(spec, plan, tmp_path, curves=True, validation=False)
    (file,) = (tmp_path / "tensorboard" / "train").iterdir()
    losses = {
        event.step: float(
            value.tensor.float_val[0]
            if value.tensor.float_val
            else np.frombuffer(value.tensor.tensor_content, np.float32)[0]
        )
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == "epoch_loss"
    }
    expected = {epoch: line["loss"] for epoch, line in enumerate(log(run))}
    assert losses == pytest.approx(expected, rel=1e-6)


KILLED = """
import os, signal, sys
import segfocal as sf
from segfocal.quiet import load_keras
load_keras()
sys.path.insert(0, sys.argv[3])
from test_training_resumed import model_of, with_validation
from segfocal.data.plan import load_plan
from segfocal.demonstration import bundled_spec
spec = with_validation(sf.load_spec(bundled_spec("nc_landcover.yaml")))
plan = load_plan(sys.argv[1])
run = sf.train(
    model_of(plan), spec, plan, sys.argv[2], resume=True, checkpoint_steps=1, workers=1,
    progress=lambda done, total: print(done, flush=True),
)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_at_random_moments(spec, plan, tmp_path):
    plan = plan.model_copy(update={"steps": 59})  # the last epoch has 2 steps and not 3
    sf.save_plan(plan, tmp_path / "plan.yaml")
    uninterrupted = train(spec, plan, tmp_path / "whole")
    rng = np.random.default_rng()
    arguments = [tmp_path / "plan.yaml", tmp_path / "run", Path(__file__).parent]
    kills, ended = 0, False
    while not ended:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if kills < 6:
            process.stdout.readline()  # the first step is done: starting takes longer than they do
            time.sleep(float(rng.uniform(0, 0.6)))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        ended = process.returncode == 0
        assert ended or process.returncode == -signal.SIGKILL, errors
        kills += not ended
    assert kills >= 3
    last = train(spec, plan, tmp_path / "run", resume=True)
    assert weights(last.model) == weights(uninterrupted.model)
    assert weights(last.best) == weights(uninterrupted.best)
    assert log(last) == log(uninterrupted)


STARTED_ANEW = (
    KILLED.partition("run = ")[0]
    + """
def kill(done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
sf.train(
    model_of(plan), spec, plan, sys.argv[2], overwrite=True, checkpoint_minutes=None, workers=1,
    progress=kill,
)
"""
)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_that_was_started_anew_and_killed_ends_as_if_it_had_been_the_first(
    spec, plan, whole, stopped, tmp_path
):
    other = plan.model_copy(update={"seed": 3, "steps": 7})
    sf.save_plan(other, tmp_path / "plan.yaml")
    uninterrupted = train(spec, other, tmp_path / "new")
    for folder in (whole.folder, stopped):
        copied = shutil.copytree(folder, tmp_path / "run", dirs_exist_ok=True)
        before = files(copied)
        done = subprocess.run(
            [sys.executable, "-c", STARTED_ANEW, str(tmp_path / "plan.yaml"), str(copied),
             str(Path(__file__).parent)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        after = files(copied)  # the index of classes is drawn by the seed
        assert all(after[name] == before[name] for name in before if "index" not in name)
        last = train(spec, other, copied, resume=True)
        assert weights(last.model) == weights(uninterrupted.model)
        assert weights(last.best) == weights(uninterrupted.best)
        assert log(last) == log(uninterrupted)
        shutil.rmtree(copied)
