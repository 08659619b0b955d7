"""Handing units of work to the processes of a Ray cluster, one at a time each.

Ray starts processes, restarts those that are lost, and moves them to other machines. What they
were at work on goes to the next that is free meanwhile: a unit can be done twice. Memory stays
bounded, for no process has more than one unit waiting, and results are small.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from segfocal import unfinished
from segfocal.agenda import Agenda, ScanResult
from segfocal.engine.scratch import scratch_folder
from segfocal.errors import ModelError, SegfocalWarning
from segfocal.scan_units import Unit, UnitResult

__all__ = ["LOST_AT_MOST", "Watch", "dispatch"]

LOST_AT_MOST = 5
"""How many processes a unit may lose until it is taken for the cause."""

SECONDS_UNTIL_TOLD = 30
POLLS_PER_SECOND = 200

Tell = Callable[[str], None]


def dispatch(
    ray: Any, start: Callable[[], Any], most: int, agenda: Agenda, tell: Tell, watch: Watch
) -> Iterator[ScanResult]:
    """Have processes do all units of an agenda; yield what came of scans as that is known.

    Args:
        ray: The module.
        start: Starts an actor with ``ready()``, ``run(task, unit, losses)`` and ``tiles()``, and
            returns its handle.
        most: How many may be started; no more are than there are units.
        agenda: The units.
        tell: Called with lines for the user.
        watch: Told of each unit that is done.

    Raises:
        ModelError: No process can load the model, or none can be started.
    """
    waking: dict[Any, Any] = {}
    idle: list[Any] = []
    running: dict[Any, tuple[Any, Unit]] = {}
    losses: Counter[Unit] = Counter()
    warned: set[str] = set()
    slow_since: float | None = time.monotonic()
    expected, started = sum(task.parts or 1 for task in agenda.tasks.values()), 0
    while running or agenda.waiting:
        while started < min(most, max(expected, agenda.units_known - agenda.units_done)):
            worker = start()
            waking[worker.ready.remote()] = worker
            started += 1
        while idle and (unit := agenda.next()) is not None:
            worker = idle.pop()
            unfinished.keep(scratch_folder(agenda.tasks[unit.scan].output))
            reference = worker.run.remote(agenda.tasks[unit.scan], unit, losses[unit])
            running[reference] = (worker, unit)
        watch.poll(ray, running)
        if slow_since is not None and time.monotonic() - slow_since > SECONDS_UNTIL_TOLD:
            tell(f"waits for the cluster: none of {started} processes could be started yet")
            slow_since = None
        for reference in _finished(ray, [*running, *waking], watch.seconds):
            if reference in waking:
                worker = waking.pop(reference)
                if _is_ready(ray, reference, bool(waking or idle or running), tell):
                    idle.append(worker)
                    slow_since = None
                continue
            worker, done = running.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise  # the process is there and does not do what it should
            except ray.exceptions.RayError:
                waking[worker.ready.remote()] = worker  # answers once Ray has restarted it
                losses[done] += 1
                result = _lost(done, losses[done], agenda, tell)
            else:
                idle.append(worker)
            if result is None:
                agenda.again(done)
                continue
            for line in result.told:
                tell(line)
            for text in result.warned:
                if text not in warned:  # each part of a scan has the same to say
                    warned.add(text)
                    warnings.warn(text, SegfocalWarning, stacklevel=2)
            found = agenda.take(done, result)
            watch.note(done, result.tiles, agenda)
            if found is not None:
                scratch = scratch_folder(agenda.tasks[found.scan].output)
                if not scratch.exists():
                    unfinished.release(scratch)
                yield found


class Watch:
    """How far the units are, for whoever waits.

    Args:
        units: Called with units done and units known.
        tiles: Called with tiles done and tiles in all, of the units that have been begun.
    """

    def __init__(
        self,
        units: Callable[[int, int], None] | None = None,
        tiles: Callable[[int, int], None] | None = None,
    ) -> None:
        self._units, self._tiles = units, tiles
        self._asked: dict[Any, Unit] = {}
        self._seen: dict[Unit, tuple[int, int]] = {}
        self._before = 0
        self._next = 0.0
        self.seconds = 1.0 if tiles is not None else float(SECONDS_UNTIL_TOLD)

    def note(self, unit: Unit, tiles: int, agenda: Agenda) -> None:
        """Note that a unit is done, of so many tiles."""
        self._seen.pop(unit, None)
        self._before += tiles
        self._report_tiles()
        if self._units is not None:
            self._units(agenda.units_done, agenda.units_known)

    def poll(self, ray: Any, running: dict[Any, tuple[Any, Unit]]) -> None:
        """Take the answers to the last questions, and ask again; nothing is waited for."""
        if self._tiles is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + max(self.seconds, len(running) / POLLS_PER_SECOND)
        at_work = {unit for _, unit in running.values()}
        asked = list(self._asked)
        ready = ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else []
        for reference in ready:
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError:  # it was lost
                continue
            if self._asked[reference] in at_work:
                self._seen[self._asked[reference]] = answer
        self._asked = {worker.tiles.remote(): unit for worker, unit in running.values()}
        self._report_tiles()

    def _report_tiles(self) -> None:
        done, total = (sum(column) for column in zip((0, 0), *self._seen.values(), strict=True))
        if self._tiles is not None and self._before + total:
            self._tiles(self._before + done, self._before + total)


def _finished(ray: Any, references: list[Any], seconds: float) -> list[Any]:
    if not references:  # what was waiting belonged to scans that have failed
        return []
    ready, _ = ray.wait(references, num_returns=1, timeout=seconds)
    if ready and len(references) > 1:  # all that are done by now, at the cost of one
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
    return list(ready)


def _is_ready(ray: Any, reference: Any, others: bool, tell: Tell) -> bool:
    try:
        error = ray.get(reference)
    except ray.exceptions.RayError as lost:
        if others:  # they can do its work
            return False
        text = " ".join(str(lost).split())
        raise ModelError(
            f"no process of the cluster could be started ({text}); expected segfocal and the "
            "model on every machine of it"
        ) from lost
    if error is not None:
        if not others:
            raise error
        tell(f"a process cannot load the model, the others go on without it: {error}")
    return error is None


def _lost(unit: Unit, times: int, agenda: Agenda, tell: Tell) -> UnitResult | None:
    """Return None when a unit is to be done again, else that it cannot be."""
    task = agenda.tasks[unit.scan]
    if times < LOST_AT_MOST:
        tell(f"{task.output}: a process was lost at work on {unit.name}; another does it")
        return None
    return UnitResult(
        ModelError(
            f"{task.output}: {times} processes were lost at work on {unit.name}; expected memory "
            "for one per process: use fewer --workers or --max-memory"
        )
    )
