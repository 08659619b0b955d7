"""What an earlier run left in a folder, and how a run goes on from there.

A run that has begun where another one was has a folder ``checkpoint`` until its results are at
their places: as long as it is there, results beside it are not those of the run to go on with. It
comes, and goes, in one step.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segfocal import unfinished
from segfocal.data.plan import Plan, load_plan
from segfocal.engine.journal import sync_folder
from segfocal.errors import ModelError, OutputError, OutputExistsError, SpecError
from segfocal.training.checkpoint import Checkpoint, read_checkpoint
from segfocal.training.identity import check_identity

__all__ = ["BEST", "LOG", "MODEL", "PLAN", "SUMMARY", "Folder", "kept_plan"]

MODEL = "model.keras"
BEST = "best.keras"
SUMMARY = "run.json"
PLAN = "plan.yaml"
LOG = "log.jsonl"

_FOLDER = "checkpoint"
_LAST = "last.safetensors"


@dataclass(frozen=True)
class Folder:
    """The folder of a run.

    Attributes:
        path: Where it is.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which the run goes on."""
        return self.path / _FOLDER / _LAST

    @property
    def best(self) -> Path:
        """The best network of a run that is not finished."""
        return self.path / _FOLDER / BEST

    @property
    def summary(self) -> dict[str, Any] | None:
        """What ``run.json`` says of a run that ended; None without one."""
        try:
            found = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and (self.path / MODEL).exists() else None

    @property
    def begun(self) -> bool:
        """Whether a run has begun whose results are not yet here."""
        return self.last.parent.is_dir()

    @property
    def finished(self) -> bool:
        """Whether a run is complete here: nothing of it is left to do."""
        return not self.begun and bool((self.summary or {}).get("finished"))

    def check_free(self, *, overwrite: bool, resume: bool) -> None:
        """Refuse to replace what an earlier run left, unless that was asked for.

        Raises:
            OutputError: Both were asked for.
            OutputExistsError: There is a model, or a run that was stopped.
        """
        if overwrite and resume:
            raise OutputError(
                f"{self.path}: overwrite starts anew and resume goes on; expected one of them"
            )
        model = self.path / MODEL
        if overwrite or (resume and (self.begun or self.summary)):
            return
        if self.last.exists() or (self.begun and model.exists()):
            raise OutputExistsError(
                f"{self.path}: holds a run that was stopped; go on with resume=True (--resume), "
                "or start anew with overwrite=True (--overwrite)"
            )
        if model.exists():
            raise OutputExistsError(
                f"{model}: exists already; choose another folder, or pass overwrite=True "
                "(--overwrite) to replace it"
            )

    def checkpoint(self, identity: Mapping[str, str], *, allow_changes: bool) -> Checkpoint | None:
        """Return the checkpoint from which a run goes on; None when there is none.

        Raises:
            SpecError: The run was started with something else, and changes are not allowed.
            ModelError: It is damaged.
        """
        if not self.last.exists():
            return None
        found = read_checkpoint(self.last)
        if not allow_changes:
            check_identity(identity, found.identity, self.path)
        return found

    def check_finished(self, identity: Mapping[str, str]) -> None:
        """Refuse to take a finished run for another one.

        Raises:
            SpecError: It was of something else.
        """
        then = (self.summary or {}).get("identity", {})
        changed = [name for name in {**then, **identity} if identity.get(name) != then.get(name)]
        if changed:
            raise SpecError(
                f"{self.path}: holds a finished run with another {changed[0]}: "
                f"{then.get(changed[0], 'nothing')}, now {identity.get(changed[0], 'nothing')}; "
                "choose another folder, or train anew with overwrite=True (--overwrite)"
            )

    def give_up(self) -> None:
        """Have no run go on from what an earlier one left, whose results stay until others come.

        Raises:
            OSError: The folder cannot be written.
        """
        if not self.begun and not (self.path / MODEL).exists():
            return
        self.last.parent.mkdir(exist_ok=True)
        # First the checkpoint: its best network means nothing without it.
        self.last.unlink(missing_ok=True)
        self.best.unlink(missing_ok=True)
        sync_folder(self.last.parent)
        sync_folder(self.path)

    def remove_checkpoint(self) -> None:
        """Remove what a run needs to go on, in one step: what is left of it serves nobody."""
        gone = self.path / f".{_FOLDER}.old"
        shutil.rmtree(gone, ignore_errors=True)
        unfinished.note(gone)
        with contextlib.suppress(OSError):  # none was written
            self.last.parent.rename(gone)
        for folder in (gone, self.last.parent):
            shutil.rmtree(folder, ignore_errors=True)
        unfinished.forget(gone)


def kept_plan(folder: str | Path) -> Plan | None:
    """Return the plan of the run in a folder, stopped or finished; None when there is none.

    Raises:
        ModelError: Its checkpoint is damaged.
        SpecError: Its plan is.
    """
    place = Folder(Path(folder))
    if place.last.exists():
        try:
            return Plan.model_validate_json(read_checkpoint(place.last, arrays=False).plan)
        except ValidationError as error:
            raise ModelError(
                f"{place.last}: its plan is not one of this version "
                f"({error.errors()[0]['msg']}); resume with the version of segfocal that wrote it"
            ) from error
    if not place.begun and place.summary and (place.path / PLAN).exists():
        return load_plan(place.path / PLAN)
    return None
