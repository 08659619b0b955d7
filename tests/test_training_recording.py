"""What a run tells of its steps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segfocal.batches import PatchBatches
from segfocal.training import recording
from segfocal.training.checkpoint import Progress
from segfocal.training.epochs import Epochs
from segfocal.training.recording import Recorder, StepReport


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(recording.time, "monotonic", clock.monotonic)
    return clock


def run(clock, tmp_path, wait, work, steps=60):
    """Steps of a network that works after waiting; batches are given a step ahead or late."""
    source = PatchBatches(lambda epoch, number: (np.zeros(1),) * 3, 30)
    told = []
    recorder = Recorder(
        Progress(), source, epochs=Epochs(steps, 30), log=tmp_path / "log.jsonl", tell=told.append
    )
    for epoch in range(2):
        recorder.on_epoch_begin(epoch)
        for number in range(30):
            clock.now += wait
            source[number]
            clock.now += work
            recorder.on_train_batch_end(number, {"loss": 2.0, "logits_mean_iou": 0.25})
        recorder.on_epoch_end(epoch, {"loss": 2.0, "val_mean_iou": 0.5})
    return told


@pytest.mark.parametrize(("wait", "work"), [(0.3, 0.1), (0.0, 0.4), (1.0, 1.0)])
def test_the_wait_for_data_is_the_share_of_time_without_a_batch(clock, tmp_path, wait, work):
    told = run(clock, tmp_path, wait, work)
    assert told[-1].data_wait == pytest.approx(wait / (wait + work), abs=0.01)
    assert [report.step for report in told if not report.complete] == list(range(1, 61))


def test_a_batch_that_was_there_before_the_last_step_ended_is_not_waited_for(clock, tmp_path):
    source = PatchBatches(lambda epoch, number: (np.zeros(1),) * 3, 30)
    told = []
    recorder = Recorder(
        Progress(), source, epochs=Epochs(30, 30), log=tmp_path / "log.jsonl", tell=told.append
    )
    recorder.on_epoch_begin(0)
    source[0]
    for number in range(29):
        source[number + 1]  # ahead of the step that needs it
        clock.now += 1
        recorder.on_train_batch_end(number)
    assert told[-1].data_wait == 0


def test_the_log_has_complete_epochs_and_the_time_of_all_processes(clock, tmp_path):
    told = run(clock, tmp_path, 0.5, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 30, "seconds": 30.0, "loss": 2.0, "val_mean_iou": 0.5},
        {"step": 60, "seconds": 60.0, "loss": 2.0, "val_mean_iou": 0.5},
    ]
    assert (tmp_path / "log.csv").read_text() == (
        "step,seconds,loss,val_mean_iou\n30,30.0,2.0,0.5\n60,60.0,2.0,0.5\n"
    )
    assert str(told[0]) == "loss 2.000, mIoU 0.250, data wait 5%"
    assert [report.epoch for report in told if report.complete] == [1, 2]


def test_a_line_names_what_people_look_for():
    values = {"loss": 1.0, "logits_p1_loss": 3.0, "val_loss": 1.5, "val_logits_mean_iou": 0.5}
    report = StepReport(1, 2, 1, 1, values, 0.123)
    assert str(report) == "loss 1.000, val loss 1.500, val mIoU 0.500, data wait 12%"
