"""What a run leaves behind when it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from segfocal.data.plan import Plan, plan_text
from segfocal.data.spec import DatasetSpec
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.report import run_page
from segfocal.training.checkpoint import Progress
from segfocal.training.resuming import BEST, LOG, MODEL, PLAN, SUMMARY, Folder

__all__ = ["TrainingRun", "run_of", "save_model", "write_results"]

FORMAT = 1


@dataclass(frozen=True)
class TrainingRun:
    """What a training run left behind.

    Attributes:
        folder: The run's folder.
        model: Path of the trained model.
        log: Path of the log, one JSON document per line and epoch.
        seconds: Wall time of the fit, in all processes that took part.
        steps: Optimizer steps that were taken.
        finished: False when its time was over: it can be resumed.
        ended: Why it ended: ``"steps"``, ``"time"``, ``"patience"``, or a ``"callback"``.
        best: Path of the model with the best score on the split ``val``, or None.
        best_score: Its score: the mean IoU over patches of that split.
    """

    folder: Path
    model: Path
    log: Path
    seconds: float
    steps: int
    finished: bool = True
    ended: str = "steps"
    best: Path | None = None
    best_score: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "model": str(self.model),
            "log": str(self.log),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "finished": self.finished,
            "ended": self.ended,
            "best": None if self.best is None else str(self.best),
            "best_score": self.best_score,
        }


def write_results(
    pending: PendingOutput,
    place: Folder,
    model: keras.Model,
    spec: DatasetSpec,
    plan: Plan,
    progress: Progress,
    ended: str,
    identity: Mapping[str, str],
) -> None:
    """Write a run's files, the log aside, and move all of them to their places.

    Raises:
        OutputError: They cannot be written.
    """
    lines = [
        json.loads(line) for line in pending.path(LOG).read_text(encoding="utf-8").splitlines()
    ]
    pending.path(PLAN).write_text(plan_text(plan), encoding="utf-8")
    page = run_page(spec, plan, lines, seconds=progress.seconds)
    pending.path("report.html").write_text(page, encoding="utf-8")
    summary = {
        "format": FORMAT,
        "finished": ended != "time",
        "ended": ended,
        "steps": progress.step,
        "planned_steps": plan.steps,
        "seconds": round(progress.seconds, 3),
        "best_score": progress.best,
        "best_step": None if progress.best is None else progress.best_step,
        "identity": dict(identity),
    }
    pending.path(SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if progress.best is not None:
        shutil.copyfile(place.best, pending.path(BEST))
    model.save(pending.main)
    pending.commit()
    if progress.best is None:  # that of an earlier run
        (place.path / BEST).unlink(missing_ok=True)


def run_of(place: Folder) -> TrainingRun:
    """Return what a run that ended left in its folder."""
    summary = place.summary or {}
    best = place.path / BEST
    return TrainingRun(
        place.path,
        place.path / MODEL,
        place.path / LOG,
        seconds=summary["seconds"],
        steps=summary["steps"],
        finished=summary["finished"],
        ended=summary["ended"],
        best=best if best.exists() else None,
        best_score=summary["best_score"],
    )


def save_model(model: keras.Model, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a model so that the file is complete or not there.

    Raises:
        OutputError: It cannot be written, or is there already.
    """
    with PendingOutput(Path(path), overwrite=overwrite) as pending:
        with writing(path):
            model.save(pending.main)
        pending.commit()
