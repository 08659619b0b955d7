"""Which unit is done next, and by whom, when processes fail, are lost and answer in any order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from segfocal.agenda import Agenda
from segfocal.errors import ModelError, ScanError, SegfocalWarning
from segfocal.prediction import Prediction
from segfocal.scan_units import ScanTask, Unit, UnitResult
from segfocal.scheduling import LOST_AT_MOST, Watch, dispatch


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Ray:
    """Answers in random order; what is asked is computed when the answer is fetched."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.most = 0

    def wait(self, references, num_returns, timeout):
        self.most = max(self.most, sum(one.is_unit for one in references))
        if num_returns > 1:
            return [one for one in references if one.is_due], []
        chosen = self.random.choice(references)
        chosen.is_due = True
        return [chosen], []

    def get(self, reference):
        return reference.call()


class Reference:
    def __init__(self, call, is_unit: bool = False) -> None:
        self.call, self.is_unit, self.is_due = call, is_unit, False


class Worker:
    """Does units by a function; ``lost`` says which calls end without an answer."""

    def __init__(self, do) -> None:
        self.ready = SimpleNamespace(remote=lambda: Reference(lambda: None))
        self.run = SimpleNamespace(remote=lambda *work: Reference(lambda: do(*work), True))
        self.tiles = SimpleNamespace(remote=lambda: Reference(lambda: (0, 0)))


def finished(task: ScanTask) -> Prediction:
    return Prediction(task.output, (1, 1), 1, 0.0, (1,), 0, (), "", "", False)


def run(agenda: Agenda, do, seed: int, most: int = 3):
    ray, workers, told, steps = Ray(seed), [], [], []

    def start():
        workers.append(Worker(do))
        return workers[-1]

    watch = Watch(lambda *step: steps.append(step))
    results = list(dispatch(ray, start, most, agenda, told.append, watch))
    return results, ray, workers, told, steps


@pytest.mark.parametrize("seed", range(20))
def test_every_unit_is_done_once_and_parts_before_the_end(seed: int, tmp_path: Path) -> None:
    parts = {0: 1, 1: 4, 2: 1, 3: 7, 4: 2}
    tasks = {scan: ScanTask("scan", tmp_path / f"{scan}.tif", None) for scan in parts}
    done: list[Unit] = []

    def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        done.append(unit)
        if unit.step == "part":
            return UnitResult(None, seconds=1.0, peak_bytes=int(unit.part[0]))
        if unit.step == "begin" and parts[unit.scan] > 1:
            return UnitResult(parts[unit.scan], seconds=0.5)
        return UnitResult(finished(task), seconds=0.25)

    results, ray, workers, _, steps = run(Agenda(tasks), do, seed)
    expected = Counter(Unit(scan) for scan in parts)
    for scan, count in parts.items():
        if count > 1:
            expected += Counter(Unit(scan, "part", f"{i}/{count}") for i in range(1, count + 1))
            expected[Unit(scan, "finish")] += 1
            end = done.index(Unit(scan, "finish"))
            assert end > max(i for i, unit in enumerate(done) if unit.scan == scan and unit.part)
    assert Counter(done) == expected
    assert steps[-1] == (len(done), len(done))
    assert ray.most <= len(workers) == 3  # no process has a second unit waiting
    by_scan = {one.scan: one for one in results}
    assert len(results) == len(parts)
    for scan, count in parts.items():
        assert by_scan[scan].value == finished(tasks[scan])
        assert by_scan[scan].seconds == (0.25 if count == 1 else 0.75 + count)
        assert by_scan[scan].peak_bytes == (0 if count == 1 else count)


@pytest.mark.parametrize("seed", range(20))
def test_lost_units_are_done_again_until_they_are_taken_for_the_cause(
    seed: int, tmp_path: Path
) -> None:
    tasks = {scan: ScanTask("scan", tmp_path / f"{scan}.tif", None) for scan in range(6)}
    chance, tries, seen = random.Random(seed), Counter(), []

    def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        seen.append((unit, losses))
        tries[unit] += 1
        if unit.scan == 2 or (tries[unit] < LOST_AT_MOST and chance.random() < 0.5):
            raise RayError("the process is gone")
        return UnitResult(finished(task))

    results, _, workers, told, _ = run(Agenda(tasks), do, seed)
    values = {one.scan: one.value for one in results}
    assert sorted(values) == [*tasks]
    assert isinstance(values.pop(2), ModelError)
    assert all(isinstance(value, Prediction) for value in values.values())
    assert tries[Unit(2)] == LOST_AT_MOST
    assert len(told) == sum(tries.values()) - 6  # of the last one the result tells
    assert len(workers) == 3
    for unit in tries:
        assert [losses for one, losses in seen if one == unit] == [*range(tries[unit])]


@pytest.mark.parametrize("seed", range(20))
def test_a_part_that_fails_decides_its_scan_and_no_other(seed: int, tmp_path: Path) -> None:
    tasks = {scan: ScanTask("scan", tmp_path / f"{scan}.tif", None) for scan in range(3)}
    done: list[Unit] = []

    def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        done.append(unit)
        if unit.step == "begin":
            return UnitResult(9)
        if unit == Unit(1, "part", "3/9"):
            return UnitResult(ScanError("damaged"))
        return UnitResult(finished(task) if unit.step == "finish" else None)

    results, _, _, _, steps = run(Agenda(tasks), do, seed)
    values = {one.scan: one.value for one in results}
    assert len(results) == 3
    assert isinstance(values.pop(1), ScanError)
    assert all(isinstance(value, Prediction) for value in values.values())
    assert Unit(1, "finish") not in done
    after = done[done.index(Unit(1, "part", "3/9")) + 1 :]
    assert sum(unit.scan == 1 for unit in after) <= 2  # what the other two were at
    assert steps[-1][0] == steps[-1][1]


def test_warnings_of_processes_are_given_once(tmp_path: Path) -> None:
    tasks = {scan: ScanTask("scan", tmp_path / f"{scan}.tif", None) for scan in range(2)}

    def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        text = f"{task.output.name}: is unlike what the model has seen"
        value = {"begin": 4, "part": None, "finish": finished(task)}[unit.step]
        return UnitResult(value, warned=(text,))

    with pytest.warns(SegfocalWarning) as caught:
        run(Agenda(tasks), do, 0)
    assert sorted(str(one.message) for one in caught) == [
        f"{scan}.tif: is unlike what the model has seen" for scan in range(2)
    ]


def test_no_more_processes_than_units_and_none_for_nothing(tmp_path: Path) -> None:
    def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
        return UnitResult(finished(task))

    one = {0: ScanTask("scan", tmp_path / "0.tif", None)}
    assert len(run(Agenda(one), do, 0, most=8)[2]) == 1
    assert run(Agenda({}), do, 0, most=8)[2] == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("able", [0, 1, 2])
def test_one_process_with_the_model_is_enough(seed: int, able: int, tmp_path: Path) -> None:
    tasks = {scan: ScanTask("scan", tmp_path / f"{scan}.tif") for scan in range(9)}
    chances = random.Random(seed).sample([True] * able + [False] * (3 - able), 3)
    told: list[str] = []

    def start() -> Worker:
        def do(task: ScanTask, unit: Unit, losses: int) -> UnitResult:
            assert loads, "a process without the model was given work"
            return UnitResult(finished(task))

        loads = chances.pop()
        worker = Worker(do)
        if not loads:
            answer = Reference(lambda: ModelError("m.onnx: no such file"))
            worker.ready = SimpleNamespace(remote=lambda: answer)
        return worker

    results = dispatch(Ray(seed), start, 3, Agenda(tasks), told.append, Watch())
    if able:
        assert {one.scan: one.value for one in results} == {
            scan: finished(task) for scan, task in tasks.items()
        }
        line = "a process cannot load the model, the others go on without it: m.onnx: no such file"
        assert set(told) <= {line}
    else:
        with pytest.raises(ModelError, match="no such file"):
            list(results)
        assert len(told) == 2


def test_a_single_process_without_the_model_ends_the_run(tmp_path: Path) -> None:
    tasks = {0: ScanTask("scan", tmp_path / "0.tif")}

    def refuse() -> None:
        raise RayError("no module named segfocal")

    for answer, message in ((lambda: ModelError("no such file"), "no such file"),
                            (refuse, "no process of the cluster could be started")):  # fmt: skip
        worker = Worker(None)
        worker.ready = SimpleNamespace(remote=lambda answer=answer: Reference(answer))
        with pytest.raises(ModelError, match=message):
            list(dispatch(Ray(0), lambda worker=worker: worker, 1, Agenda(tasks), print, Watch()))
