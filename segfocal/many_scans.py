"""Prediction over many scans: failures isolated, finished ones recognised, a summary."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from segfocal.agenda import Agenda, ScanResult
from segfocal.clusters import OF_THE_MODEL, scans_on_cluster
from segfocal.engine.engines import in_engine
from segfocal.engine.polygons import is_suffix
from segfocal.errors import ModelError, OutputError, SegfocalError
from segfocal.io.destinations import check_is_on_file_system
from segfocal.output_names import name_outputs
from segfocal.prediction import Prediction
from segfocal.prepared import name_of_model
from segfocal.run_descriptions import describe_run
from segfocal.scan_lists import list_scans
from segfocal.scan_units import ScanTask, run_unit
from segfocal.scheduling import Watch
from segfocal.summaries import (
    SUMMARY,
    Outcome,
    Record,
    Status,
    Summary,
    earlier_outcomes,
    write_summary,
)

__all__ = ["predict_many"]

Executor = Literal["serial", "ray"]


def predict_many(
    model: Any,
    inputs: Iterable[str | os.PathLike[str] | Sequence[str]],
    out: str | Path,
    *,
    retry_failed: bool = False,
    executor: Executor = "serial",
    workers: int | None = None,
    parts: int | None = None,
    address: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    tile_progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Summary:
    """Segment many scans into a folder.

    One scan that fails does not stop the others. A scan that an earlier call has finished, by
    the same model with the same parameters, is left as it is when its checksum is right; one
    that was interrupted continues. ``summary.json`` is there from the start, with every scan
    that is to be done as pending, and is brought up to date every ten seconds at first, less often
    where that takes long, and at an exception; a killed process leaves the last one.

    Args:
        model: See :func:`~segfocal.predict`; loaded once.
        inputs: Files, folders, patterns and tables of scans, see
            :func:`segfocal.scan_lists.list_scans`. Outputs keep the names of the inputs, with
            ``.tif`` for scenes and ``.nii.gz`` for volumes.
        out: Folder for the outputs and ``summary.json``; made when it is missing.
        retry_failed: Only run what the summary of an earlier call, of the same model with the
            same parameters, says has failed or was not reached, and what is not there any more.
        executor: ``"serial"``: one after the other in this process; ``"ray"``: by the processes
            of a Ray cluster, long scans in parts. The outputs have the same bytes.
        workers, parts, address, tile_progress: Of the cluster, see
            :func:`~segfocal.predict_on_cluster`.
        progress: Called with scans done and scans in all; raise in it to cancel.
        notice: Called with a line of text for what :func:`~segfocal.predict` has to say, and
            for scans that fail.
        options: Further arguments of :func:`~segfocal.predict`.

    Raises:
        ScanError, OutputError, ModelError: There are no scans, ``out`` cannot be written, its
            summary is of another run, or the model cannot be loaded: no scan was begun.
        OutputError: At the end: the summary cannot be written.
    """
    check_is_on_file_system(out)
    if executor not in get_args(Executor):
        raise ModelError(f"executor {executor!r} is unknown; expected serial or ray")
    folder, tell = Path(out), notice or (lambda text: None)
    polygons = options.get("polygons")
    if polygons is not None and not is_suffix(polygons):
        raise OutputError(
            f"polygons {polygons}: one file for many scans; expected a suffix such as .gpkg, for a "
            "file beside each label map"
        )
    scans = list_scans(inputs)
    places = [folder / name for name in name_outputs(scans, polygons)]
    _make_folder(folder)
    run = describe_run(model, options)
    outcomes = [Outcome(scan.files, str(place)) for scan, place in zip(scans, places, strict=True)]
    if retry_failed:
        outcomes = earlier_outcomes(folder / SUMMARY, outcomes, run)
    tasks = {
        number: ScanTask(scan.source, place, parts if executor == "ray" else 1)
        for number, (scan, place) in enumerate(zip(scans, places, strict=True))
        if outcomes[number].status not in ("done", "unchanged")
    }
    for parent in {task.output.parent for task in tasks.values()} - {folder}:
        with contextlib.suppress(OSError):  # an error of the scans that are to go there
            parent.mkdir(parents=True, exist_ok=True)
    if executor == "ray":
        watch = Watch(tiles=tile_progress)
        results = scans_on_cluster(
            model, tasks, options, workers=workers, address=address, tell=tell, watch=watch
        )
    else:
        results = _serially(_loaded(model, tasks, options, tell), tasks, options, tell)
    record = Record(folder / SUMMARY, run, outcomes, tell)
    try:
        done = len(scans) - len(tasks)
        if progress is not None and done:
            progress(done, len(scans))
        for result in results:
            record.note(result.scan, _outcome(outcomes[result.scan], result, tell))
            done += 1
            if progress is not None:
                progress(done, len(scans))
    except BaseException:
        record.interrupted()
        raise
    write_summary(record.summary)
    return record.summary


def _loaded(
    model: Any,
    tasks: Mapping[int, ScanTask],
    options: dict[str, Any],
    tell: Callable[[str], None],
) -> Any:
    """Return the model ready for all tasks; options lose what was for that."""
    options.setdefault("model_name", name_of_model(model))
    chosen = {name: options.pop(name) for name in OF_THE_MODEL if name in options}
    destinations = [task.output for task in tasks.values()]
    return in_engine(model, **chosen, destinations=destinations, tell=tell)


def _serially(
    model: Any,
    tasks: Mapping[int, ScanTask],
    options: dict[str, Any],
    tell: Callable[[str], None],
) -> Iterator[ScanResult]:
    """Yield what came of each scan, done in this process by one model."""
    agenda = Agenda(tasks)
    while (unit := agenda.next()) is not None:
        result = agenda.take(unit, run_unit(model, tasks[unit.scan], unit, options, tell=tell))
        if result is not None:
            yield result


def _outcome(pending: Outcome, result: ScanResult, tell: Callable[[str], None]) -> Outcome:
    reason, pixels = None, 0
    status: Status = "failed"
    if isinstance(result.value, Prediction):
        status = "unchanged" if result.value.unchanged else "done"
        pixels = math.prod(result.value.shape)
    else:
        text = " ".join(str(result.value).split())
        known = isinstance(result.value, SegfocalError)
        reason = text if known else f"{type(result.value).__name__}: {text}"
        tell(f"failed: {reason}")
    return replace(
        pending,
        status=status,
        reason=reason,
        seconds=round(result.seconds, 3),
        pixels=pixels,
        peak_bytes=result.peak_bytes,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made ({error}); expected a folder, or a place for one"
        ) from error
