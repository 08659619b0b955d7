"""Cross-validation: each case is segmented by a model that was trained without it.

For each fold of the spec a model is trained on the others; its fold's scans are then segmented
as a whole, by the same tiled inference as any scan. The scores of all folds are put together
case by case, so that their intervals are over all cases of the dataset; where the spec has
``group_by``, over all groups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segfocal.data.plan import Plan
from segfocal.data.reading import open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.data.splits import as_entries
from segfocal.errors import SpecError
from segfocal.evaluation import Evaluation, by_case, evaluate, tolerance_of, write_scores
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.models import FocalUNet
from segfocal.planning import make_plan
from segfocal.planning.revision import revised
from segfocal.scores import number
from segfocal.training import TrainingRun, train
from segfocal.training.resuming import MODEL, Folder, kept_plan

__all__ = ["CrossValidation", "FoldResult", "cross_validate"]

VAL = "val"

MEANS = ("accuracy", "mean_iou", "mean_dice", "foreground_dice")


@dataclass(frozen=True)
class FoldResult:
    """A fold.

    Attributes:
        fold: Its number, from 0.
        run: The training run on the other folds.
        scores: Its cases' scores; None when the run is not finished.
    """

    fold: int
    run: TrainingRun
    scores: Evaluation | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        value: dict[str, Any] = {"fold": self.fold, "run": self.run.as_json()}
        if self.scores is not None:
            value["cases"] = [score.case for score in self.scores.cases]
            value |= {name: number(getattr(self.scores, name)) for name in MEANS}
        return value


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation left behind.

    Attributes:
        folder: Its folder.
        folds: The folds, as far as they were come to.
        scores: The scores of all cases, each by the model that was trained without it; None
            unless all folds of the spec are done.
    """

    folder: Path
    folds: tuple[FoldResult, ...]
    scores: Evaluation | None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value: that of the scores, with the folds."""
        scores = {} if self.scores is None else self.scores.as_json()
        return {**scores, "folds": [one.as_json() for one in self.folds]}


def cross_validate(
    spec: DatasetSpec,
    out: str | Path,
    *,
    folds: Sequence[int] | None = None,
    plan: Plan | None = None,
    planned: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    max_minutes: float | None = None,
    distances: bool = True,
    tiles: Callable[[int, int], None] | None = None,
    begin: Callable[[int], None] | None = None,
    **options: Any,
) -> CrossValidation:
    """Train and score a model for each fold of a spec's ``split_by: {folds: ...}``.

    Fold k has the folder ``fold_k`` in ``out``, as :func:`segfocal.train` fills it, with the
    scores of its cases in ``fold_k/val``. When all folds are done, ``out`` gets ``scores.json``,
    ``scores.csv`` and ``scores.html`` of all cases together, with 95 % bootstrap intervals from
    drawing cases, or groups of them where the spec has ``group_by``. Folds may be done one by
    one, by several machines too: ``resume`` goes on with what is there.

    The model that is scored is that of the last step: the best on ``val`` was chosen with the
    cases it would be scored on. So would be where ``patience`` stops: leave it out for scores
    that count.

    Args:
        spec: The dataset.
        out: Folder, created when missing.
        folds: Which folds to do. Left out: all, and they are put together.
        plan: The plan of all folds. Left out, one is made for each from its training cases.
        planned: Options of :func:`segfocal.make_plan` for these plans.
        overwrite, resume: See :func:`segfocal.train`. What is there of the chosen folds is given
            up when the first is begun anew.
        max_minutes: Stop training after this time in all.
        distances: Measure distances between boundaries, see :func:`segfocal.evaluate`.
        tiles: Called with tiles done and in all of each scan that is segmented.
        begin: Called with the number of each fold that is begun.
        **options: Of :func:`segfocal.train`.

    Raises:
        SpecError: The spec has no folds, or not the one asked for.
        SegfocalError: See :func:`segfocal.train` and :func:`segfocal.evaluate`.
    """
    if spec.folds is None:
        raise SpecError(
            f"spec {spec.name!r} has no folds; expected split_by: {{folds: 5}}, or the like"
        )
    folder = Path(out)
    chosen = range(spec.folds) if folds is None else folds
    specs = {fold: spec.with_fold(fold) for fold in chosen}
    whole = _of_all_folds(spec)
    tolerance = tolerance_of(whole, VAL) if distances else None
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    done: list[FoldResult] = []
    for fold, part in specs.items():
        if begin is not None:
            begin(fold)
        place = folder / f"fold_{fold}"
        own = plan or (kept_plan(place) if resume else None)
        if own is None:
            own = make_plan(part, **(planned or {}))
        elif plan is None:  # what is given takes its place there, so that a change is noticed
            own = revised(own, **(planned or {}))
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) / 60
        model = FocalUNet.from_plan(part, own)
        if overwrite and not done:
            _give_up([folder / f"fold_{fold}" for fold in specs])
        run = train(
            model,
            part,
            own,
            place,
            overwrite=overwrite,
            resume=resume,
            max_minutes=left,
            **options,
        )
        if not run.finished:
            done.append(FoldResult(fold, run))
            break
        scores = evaluate(
            run.model,
            part,
            VAL,
            out=place / VAL,
            distances=distances,
            tolerance=tolerance,
            overwrite=overwrite or resume,
            progress=tiles,
        )
        done.append(FoldResult(fold, run, scores))
    complete = folds is None and all(one.scores is not None for one in done)
    pooled = _put_together(folder, whole, done, overwrite or resume) if complete else None
    return CrossValidation(folder, tuple(done), pooled)


def _of_all_folds(spec: DatasetSpec) -> DatasetSpec:
    """Return the spec with the cases of all folds in one split."""
    regions = {VAL: [one for k in range(spec.folds or 0) for one in spec.with_fold(k).regions(VAL)]}
    return spec.model_copy(update={"splits": as_entries(regions)})


def _give_up(places: Sequence[Path]) -> None:
    """Have no fold resumed, or taken as finished, that is to be done anew.

    Raises:
        OutputInUseError: One of them is being trained.
    """
    for place in places:
        if place.is_dir():
            with writing(place), PendingOutput(place / MODEL, overwrite=True):
                Folder(place).give_up()


def _put_together(
    folder: Path, spec: DatasetSpec, done: Sequence[FoldResult], overwrite: bool
) -> Evaluation:
    scores = [one.scores for one in done if one.scores is not None]
    pooled = replace(
        scores[0],
        cases=tuple(case for one in scores for case in one.cases),
        labels={case: path for one in scores for case, path in one.labels.items()},
        notes=tuple(dict.fromkeys(note for one in scores for note in one.notes)),
    )
    with ExitStack() as stack, writing(folder):
        pending = stack.enter_context(PendingOutput(folder / "scores.json", overwrite=overwrite))
        cases = by_case(open_regions(spec, VAL, stack))
        write_scores(pending, pooled, spec, cases, {"folds": [one.as_json() for one in done]})
    return pooled
