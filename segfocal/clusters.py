"""Prediction on a Ray cluster: processes that hold the model, one per GPU where there are GPUs.

What they are given are the units of :mod:`segfocal.scan_units`; a serial run does the same units
in its own process.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segfocal.agenda import Agenda, ScanResult
from segfocal.cluster_connection import connected
from segfocal.engine.engines import in_engine
from segfocal.engine.provenance import provenance_path
from segfocal.engine.scratch import scratch_folder
from segfocal.errors import ModelError, OutputInUseError, ScanError, SegfocalError
from segfocal.io.destinations import check_is_on_file_system
from segfocal.io.network import is_network_forbidden
from segfocal.part_orders import absolute_options, absolute_paths
from segfocal.prediction import Prediction
from segfocal.prepared import ScanSource, name_of_model
from segfocal.scan_units import ScanTask, Unit, UnitResult, collected_warnings, run_unit, sendable
from segfocal.scheduling import Watch, dispatch

__all__ = ["predict_on_cluster", "scans_on_cluster"]

OF_THE_MODEL = ("engine", "precision", "global_context")
"""Arguments of :func:`~segfocal.predict` that loading the model needs."""

SECONDS_FOR_A_LOCK = 60
OUTPUTS_ASKED = 20

Report = Callable[[int, int], None]


def predict_on_cluster(
    model: Any,
    input: ScanSource,
    output: str | Path,
    *,
    workers: int | None = None,
    parts: int | None = None,
    address: str | None = None,
    progress: Report | None = None,
    tile_progress: Report | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Prediction:
    """Segment one scan with the processes of a Ray cluster; see :func:`~segfocal.predict`.

    The label map has the bytes of a serial run. A lost process or machine costs what it was at
    work on: whatever was finished stays, another takes over, and Ray restarts it. Calling the
    same again continues, after the calling process was lost too.

    Args:
        model: Path of the model, or a list of paths: each process loads it once.
        input: Path of the scan, which all machines see, as they see the output's folder.
        output: The label map.
        workers: Processes that hold the model. Left out: one per GPU of the cluster, or where
            it has none one per CPU. With GPUs never more than there are.
        parts: Parts that the scan is divided into. Left out: one per 8192 pixels of its
            length (of a scene its longer side), at least one; tiles at the borders of parts are
            run twice.
        address: Of a running cluster, such as ``"ray://head:10001"`` or ``"auto"``. Left out: a
            cluster of this machine, for the time of the call.
        progress: Called with units done and units known: one that looks at the scan, the parts,
            and one that assembles the output; or one in all for an undivided scan.
        tile_progress: Called every second with tiles done and tiles in all, of the parts that
            have been begun.
        notice: See :func:`~segfocal.predict`.
        options: Further arguments of :func:`~segfocal.predict`.

    Raises:
        ModelError: Ray is not installed, or ``model`` is no path.
        SegfocalError: As :func:`~segfocal.predict` does.
    """
    check_is_on_file_system(output)
    started = time.monotonic()
    results = scans_on_cluster(
        model,
        {0: ScanTask(input, Path(output), parts)},
        options,
        workers=workers,
        address=address,
        tell=notice,
        watch=Watch(progress, tile_progress),
    )
    (result,) = results
    if isinstance(result.value, Exception):
        raise result.value
    assert isinstance(result.value, Prediction)
    return replace(result.value, seconds=time.monotonic() - started)


def scans_on_cluster(
    model: Any,
    tasks: Mapping[int, ScanTask],
    options: Mapping[str, Any],
    *,
    workers: int | None,
    address: str | None,
    tell: Callable[[str], None] | None,
    watch: Watch,
    at_work: set[int] | None = None,
) -> Iterator[ScanResult]:
    """Yield what came of each scan, in the order in which that is known.

    Args:
        model: Path or paths of the model.
        tasks: The scans, by number.
        options: Further arguments of :func:`~segfocal.predict`.
        workers, address: See :func:`predict_on_cluster`.
        tell: Called with lines for the user.
        watch: Told of each unit.
        at_work: Kept up to date with the scans that are at work.

    Raises:
        ModelError: There is no cluster, or the model cannot be loaded.
    """
    if not tasks:
        return
    paths = absolute_paths(model)
    if paths is None:
        raise ModelError(
            "a cluster takes a model by its path, which each process loads; save it first"
        )
    agenda = Agenda({scan: _everywhere(task) for scan, task in tasks.items()}, at_work)
    with connected(address) as ray:
        most, chosen = actor_options(ray.cluster_resources(), workers)
        actor = ray.remote(**chosen)(_Worker)
        told = {"model_name": name_of_model(model), **absolute_options(options)}
        begun = _begun(task.output for task in agenda.tasks.values())
        actors: list[Any] = []

        def start() -> Any:
            actors.append(actor.remote(paths, told, begun))
            return actors[-1]

        try:
            yield from dispatch(ray, start, most, agenda, tell or (lambda text: None), watch)
        finally:
            for one in actors:
                ray.kill(one)


def actor_options(cluster: Mapping[str, float], workers: int | None) -> tuple[int, dict[str, Any]]:
    """Return how many processes are started at most, and what Ray is told of each.

    With GPUs each has one of its own: Ray starts it as a new process, never by a fork, and
    shows it no other (``CUDA_VISIBLE_DEVICES``).

    Args:
        cluster: What Ray says that it has.
        workers: How many are wanted; None: as many as is sensible.
    """
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 1))
    count = min(workers or gpus, gpus) if gpus else workers or cpus
    return max(1, count), {
        "num_cpus": 1,
        "num_gpus": 1 if gpus else 0,
        "max_restarts": -1,
        # Units that were lost go to another process; the question whether one is there waits.
        "max_task_retries": 0,
        "concurrency_groups": {"watch": 1},
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": _environment()},
    }


class _Worker:
    """A process with the model in memory."""

    def __init__(self, model: Any, options: dict[str, Any], outputs: list[Path]) -> None:
        self._options = dict(options)
        chosen = {name: self._options.pop(name) for name in OF_THE_MODEL if name in self._options}
        self._progress = (0, 0)
        self._error: SegfocalError | None = None
        with collected_warnings() as self._warned:
            try:
                self._model = in_engine(model, destinations=outputs, **chosen)
            except SegfocalError as error:
                self._error = error

    def ready(self) -> SegfocalError | None:
        """Answer once the model is loaded: what spoke against it, or None."""
        return self._error

    ready.__ray_max_task_retries__ = -1  # type: ignore[attr-defined]

    def run(self, task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        """Do a unit, which so many processes were lost at work on before."""
        until = time.monotonic() + (SECONDS_FOR_A_LOCK if losses else 0)
        while True:
            self._progress = (0, 0)
            with collected_warnings() as warned:
                result = run_unit(self._model, task, unit, self._options, progress=self._report)
            result = replace(result, warned=(*self._warned, *warned))
            # A machine that was lost from sight may go on for a while.
            if not isinstance(result.value, OutputInUseError) or time.monotonic() > until:
                return sendable(result)
            time.sleep(2)

    def tiles(self) -> tuple[int, int]:
        """Return tiles done and tiles in all of the unit at work."""
        return self._progress

    tiles.__ray_concurrency_group__ = "watch"  # type: ignore[attr-defined]

    def _report(self, done: int, total: int) -> None:
        self._progress = (done, total)


def _everywhere(task: ScanTask) -> ScanTask:
    """Return a task that means the same in every process."""
    source = absolute_paths(task.source)
    if source is None:
        raise ScanError("a cluster takes scans by their path, which each process opens")
    return ScanTask(source, Path(os.path.abspath(task.output)), task.parts)


def _begun(outputs: Iterable[Path]) -> list[Path]:
    """Return outputs that tell in which engine an earlier run began: some will do."""
    places = (
        output
        for output in outputs
        if provenance_path(output).exists() or scratch_folder(output).exists()
    )
    return list(itertools.islice(places, OUTPUTS_ASKED))


def _environment() -> dict[str, str]:
    """Return variables that make the processes of a cluster compute as this one would."""
    found = {name: value for name, value in os.environ.items() if name.startswith("SEGFOCAL_")}
    if "KERAS_BACKEND" in os.environ:
        found["KERAS_BACKEND"] = os.environ["KERAS_BACKEND"]
    if is_network_forbidden():
        found["SEGFOCAL_LOCAL_ONLY"] = "1"
    # Ray would give each process one thread, with which libraries may add otherwise.
    return {"OMP_NUM_THREADS": str(max(1, os.cpu_count() or 1)), **found}
