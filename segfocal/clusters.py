"""Prediction on a Ray cluster: actors that hold the model, and units of work that can be repeated.

A unit is a scan, or a part of one (:mod:`segfocal.scan_parts`): it follows from input, model
and parameters alone and is written so that doing it twice is the same as doing it once. Ray
may therefore restart actors and repeat units as it likes, when a process or a machine is lost.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segfocal.engine.engines import in_engine
from segfocal.errors import ModelError, SegfocalError
from segfocal.prediction import Prediction, predict
from segfocal.prepared import ScanSource, prepared_job
from segfocal.scan_parts import predict_part

__all__ = ["REGION_PIXELS", "default_parts", "map_on_cluster", "predict_on_cluster"]

REGION_PIXELS = 8192
"""Least length of a part along the swept axis: tiles that are run twice stay below 10 %."""

WAITING_PER_ACTOR = 2


def predict_on_cluster(
    model: Any,
    input: ScanSource,
    output: str | Path,
    *,
    workers: int | None = None,
    parts: int | None = None,
    address: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Prediction:
    """Segment one scan with the processes of a Ray cluster; see :func:`~segfocal.predict`.

    The label map has the bytes of a serial run. A cluster, its lost processes and its lost
    machines are Ray's business; whatever was finished stays, and calling the same again
    continues.

    Args:
        model: Path of the model, or a list of paths: each process loads it once.
        input: Path of the scan, which all machines see, as they see the output's folder.
        output: The label map.
        workers: Processes that hold the model. Left out: one per CPU of the cluster.
        parts: Parts that the scan is divided into. Left out: one per 8192 pixels of its length,
            at least one; tiles at the borders of parts are run twice.
        address: Of a running cluster, such as ``"ray://head:10001"`` or ``"auto"``. Left out: a
            cluster of this machine, for the time of the call.
        progress: Called with parts done and parts in all.
        notice: See :func:`~segfocal.predict`.
        options: Further arguments of :func:`~segfocal.predict`.

    Raises:
        ModelError: Ray is not installed, or ``model`` is no path.
        SegfocalError: As :func:`~segfocal.predict` does.
    """
    paths = _paths(model)
    if parts is None:
        parts = default_parts(model, input, options)
    work = [(input, str(output), f"{number}/{parts}") for number in range(1, parts + 1)]
    for done, outcome in enumerate(
        map_on_cluster(_compute_part, paths, work, options, workers=workers, address=address), 1
    ):
        if isinstance(outcome, SegfocalError):
            raise outcome
        if progress is not None:
            progress(done, parts)
    return predict(model, input, output, notice=notice, **options)


def default_parts(model: Any, input: ScanSource, options: dict[str, Any]) -> int:
    """Return how many parts of at least 8192 pixels a scan has."""
    beside = ("probabilities", "uncertainty", "layout", "polygons", "simplify", "min_area")
    computed = {
        name: value for name, value in options.items() if name not in (*beside, "overwrite")
    }
    with prepared_job(model, input, **computed) as (job, _):
        side = job.covered[job.scan.slow_axis]
    return max(1, (side.stop - side.start) // REGION_PIXELS)


def map_on_cluster(
    function: Callable[..., Any],
    model: Any,
    work: Sequence[tuple[Any, ...]],
    options: dict[str, Any],
    *,
    workers: int | None,
    address: str | None,
) -> Iterator[Any]:
    """Yield ``function(model, *item, **options)`` for each item, in the order they are done.

    At most two items per process are on their way at a time.

    Args:
        function: Of a module of segfocal; an exception of segfocal's is returned, not raised.
        model: Path or paths, loaded once by each process.
        work: The items.
        options: Keyword arguments.
        workers, address: See :func:`predict_on_cluster`.
    """
    with _cluster(address) as ray:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        count = max(1, min(workers or cpus, len(work)))
        threads = str(max(1, os.cpu_count() or 1))
        actor = ray.remote(
            num_cpus=max(1, cpus // count) if workers else 1,
            max_restarts=-1,
            max_task_retries=-1,
            # Ray would give each process one thread, with which libraries may add otherwise.
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
        )(_Worker)
        actors = [actor.remote(model, options) for _ in range(count)]
        left = list(enumerate(work))[::-1]
        running: dict[Any, Any] = {}
        while left or running:
            for one in actors:
                busy = sum(owner is one for owner in running.values())
                while left and busy < WAITING_PER_ACTOR:
                    _, item = left.pop()
                    running[one.run.remote(function, item)] = one
                    busy += 1
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                del running[reference]
                yield ray.get(reference)
        for one in actors:
            ray.kill(one)


class _Worker:
    """A process with the model in memory."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self._options = dict(options)
        chosen = {
            name: self._options.pop(name)
            for name in ("engine", "precision", "global_context")
            if name in self._options
        }
        self._model = in_engine(model, **chosen)

    def run(self, function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
        try:
            return function(self._model, *item, **self._options)
        except SegfocalError as error:
            return error


def _compute_part(model: Any, source: Any, output: str, part: str, **options: Any) -> int:
    return predict_part(model, source, output, part, **options).units


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one of this machine for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ModelError(
            f"Ray is not installed ({error}); install the extra: pip install 'segfocal[ray]'"
        ) from error
    mine = not ray.is_initialized()
    if mine:
        local: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            # Not None, with which Ray looks for one that somebody else may have left behind.
            ray.init(address or "local", logging_level="ERROR", log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"no Ray cluster at {address} ({error}); expected its address, or none"
            ) from error
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _paths(model: Any) -> Any:
    models = model if isinstance(model, list | tuple) else [model]
    if not all(isinstance(one, str | os.PathLike) for one in models):
        raise ModelError(
            "a cluster takes a model by its path, which each process loads; save it first"
        )
    found = [os.path.abspath(one) for one in models]
    return found if isinstance(model, list | tuple) else found[0]
