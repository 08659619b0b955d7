"""Prediction over many scans: failures isolated, finished ones recognised, a summary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from segfocal import unfinished
from segfocal.agenda import Agenda, ScanResult
from segfocal.clusters import OF_THE_MODEL, scans_on_cluster
from segfocal.engine.engines import in_engine
from segfocal.engine.parts import Part, parse_part
from segfocal.engine.polygons import is_suffix
from segfocal.errors import ModelError, OutputError
from segfocal.io.destinations import check_is_on_file_system
from segfocal.output_names import name_outputs
from segfocal.own_outputs import OwnOutputs
from segfocal.prepared import name_of_model
from segfocal.run_descriptions import describe_run
from segfocal.run_records import Record
from segfocal.scan_lists import list_scans
from segfocal.scan_units import ScanTask, run_unit
from segfocal.scheduling import Watch
from segfocal.shards import describe_shard, divide, measure, summary_name, warn_of_other_list
from segfocal.summaries import Outcome, Summary
from segfocal.summary_files import (
    SUMMARY,
    earlier_outcomes,
    refuse_to_replace_stranger,
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
    shard: str | Part | None = None,
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
    where that takes long, at an exception, and at a signal that ends the command; a process that
    is killed leaves the last one. ``summary.csv`` beside it is a table of the same, a row per
    scan, in which ``'`` stands before what a spreadsheet would take for a formula.

    Args:
        model: See :func:`~segfocal.predict`; loaded once.
        inputs: Files, folders, patterns and tables of scans, see
            :func:`segfocal.scan_lists.list_scans`. Outputs keep the names of the inputs, with
            ``.tif`` for scenes and ``.nii.gz`` for volumes. What folders and patterns stand for
            is without the outputs of earlier runs that lie in ``out``.
        out: Folder for the outputs, ``summary.json`` and ``summary.csv``; made when it is missing.
        retry_failed: Only run what the summary of an earlier call, of the same model with the
            same parameters, says has failed or was not reached, and what is not there any more.
        shard: ``"3/8"``: only do what is the third of eight processes', each of which is given
            the same list. Scans are dealt out whole, balanced by their pixels; one that is larger
            than an eighth of all, and at least 16384 pixels long, in parts, of which the process
            that computes the last one makes the output. The summary is called
            ``summary.3-of-8.json`` and is of the scans that the shard has to do with; it has the
            length and a digest of the whole list.
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

    Warns:
        SegfocalWarning: The summary of another shard of as many is of another list.
    """
    check_is_on_file_system(out)
    if executor not in get_args(Executor):
        raise ModelError(f"executor {executor!r} is unknown; expected serial or ray")
    which = None if shard is None else parse_part(shard)
    if which is not None and executor == "ray":
        raise ModelError("a shard is done by one process; expected executor serial, or no shard")
    folder, tell = Path(out), notice or (lambda text: None)
    polygons = options.get("polygons")
    if polygons is not None and not is_suffix(polygons):
        raise OutputError(
            f"polygons {polygons}: one file for many scans; expected a suffix such as .gpkg, for a "
            "file beside each label map"
        )
    own = OwnOutputs(folder)
    scans = list_scans(inputs, left_out=own.hold)
    if own.found:
        tell(f"{folder}: {len(own.found)} outputs of earlier runs in it are not taken for scans")
    names = name_outputs(scans, polygons)
    places = [folder / name for name in names]
    _make_folder(folder)
    shares = {number: "" for number in range(len(scans))}
    summary, listed = folder / SUMMARY, {}
    if which is not None:
        sizes = [measure(scan) for scan in scans]
        listed = {"list": describe_shard(which, [str(name) for name in names], sizes)}
        warn_of_other_list(summary, which, listed["list"])
        mine = divide(sizes, which.count)[which.number - 1]
        scans = [scans[share.scan] for share in mine]
        places = [places[share.scan] for share in mine]
        shares = {i: share.part.text if share.part else "" for i, share in enumerate(mine)}
        summary = folder / summary_name(SUMMARY, which)
    refuse_to_replace_stranger(summary)
    run = {**describe_run(model, options), **listed}
    outcomes = [Outcome(scan.files, str(place)) for scan, place in zip(scans, places, strict=True)]
    if retry_failed:
        outcomes = earlier_outcomes(summary, outcomes, run)
    tasks = {
        number: ScanTask(scan.source, place, parts if executor == "ray" else 1, shares[number])
        for number, (scan, place) in enumerate(zip(scans, places, strict=True))
        if outcomes[number].status not in ("done", "unchanged")
    }
    for parent in {task.output.parent for task in tasks.values()} - {folder}:
        with contextlib.suppress(OSError):  # an error of the scans that are to go there
            parent.mkdir(parents=True, exist_ok=True)
    at_work: set[int] = set()
    if executor == "ray":
        watch = Watch(tiles=tile_progress)
        results = scans_on_cluster(
            model, tasks, options,
            workers=workers, address=address, tell=tell, watch=watch, at_work=at_work,
        )  # fmt: skip
    else:
        results = _serially(_loaded(model, tasks, options, tell), tasks, options, tell, at_work)
    record = Record(summary, run, outcomes, tell, at_work)
    with unfinished.before_end(record.interrupted):
        try:
            done = len(scans) - len(tasks)
            if progress is not None and done:
                progress(done, len(scans))
            for result in results:
                record.note(result)
                done += 1
                if progress is not None:
                    progress(done, len(scans))
        except BaseException as error:
            record.interrupted(type(error).__name__)
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
    at_work: set[int],
) -> Iterator[ScanResult]:
    """Yield what came of each scan, done in this process by one model."""
    agenda = Agenda(tasks, at_work)
    while (unit := agenda.next()) is not None:
        result = agenda.take(unit, run_unit(model, tasks[unit.scan], unit, options, tell=tell))
        if result is not None:
            yield result


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made ({error}); expected a folder, or a place for one"
        ) from error
