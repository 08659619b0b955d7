"""Units of work over scans: what any process can be given, and given again when it is lost.

A unit follows from input, model and parameters alone and writes in such a way that doing it
twice is the same as doing it once. One process *begins* a scan, and finishes it too when it
is short. A long one comes as *parts* (:mod:`segfocal.scan_parts`) after that, and when the last
is there, one process *finishes* it: makes the output of them.
"""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segfocal.engine.memory import peak_bytes
from segfocal.engine.sweep import Progress
from segfocal.errors import SegfocalError, SegfocalWarning
from segfocal.prediction import Prediction, predict
from segfocal.prepared import ScanSource
from segfocal.scan_parts import PartResult, count_parts, predict_part
from segfocal.scan_shares import predict_share

__all__ = ["ScanTask", "Unit", "UnitResult", "collected_warnings", "run_unit", "sendable"]


@dataclass(frozen=True)
class ScanTask:
    """A scan that is to be segmented.

    Attributes:
        source: What it is read from.
        output: The label file.
        parts: Parts that it is divided into; None: by its length.
        share: The part of it that is this process's, the others being those of processes that
            know nothing of this one; empty: all of it.
    """

    source: ScanSource
    output: Path
    parts: int | None = 1
    share: str = ""


@dataclass(frozen=True)
class Unit:
    """A piece of work for one process.

    Attributes:
        scan: Which scan.
        step: What is done with it.
        part: Of a part, which: ``"3/8"``.
    """

    scan: int
    step: Literal["begin", "part", "finish"] = "begin"
    part: str = ""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"part {self.part}" if self.part else self.step


@dataclass(frozen=True)
class UnitResult:
    """What came of a unit.

    Attributes:
        value: The finished prediction; how many parts are to be computed; None of a part; the
            share that was computed of a scan; or what went wrong.
        seconds: Wall time.
        peak_bytes: What the process held in memory at most meanwhile.
        tiles: Tiles that were run for it.
        told: Lines for the user.
        warned: What was warned of, of a process whose warnings nobody sees.
    """

    value: Prediction | PartResult | int | Exception | None
    seconds: float = 0.0
    peak_bytes: int = 0
    tiles: int = 0
    told: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()


def run_unit(
    model: Any,
    task: ScanTask,
    unit: Unit,
    options: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> UnitResult:
    """Do a unit; what goes wrong is returned, not raised.

    Args:
        model: The loaded model.
        task: The scan that the unit is of.
        unit: What to do.
        options: Further arguments of :func:`~segfocal.predict`.
        progress: Called with tiles done and tiles in all.
        tell: Called with lines for the user at once; left out, they are in the result.
    """
    told: list[str] = []
    tiles = 0
    started = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal tiles
        tiles = done
        if progress is not None:
            progress(done, total)

    def run() -> Prediction | PartResult | int | Exception | None:
        try:
            return _do(model, task, unit, options, count, tell or told.append)
        except Exception as error:  # whatever it is, the next scan may be fine
            return error

    value, peak = peak_bytes(run)
    return UnitResult(value, time.monotonic() - started, peak, tiles, tuple(told))


def _do(
    model: Any,
    task: ScanTask,
    unit: Unit,
    options: Mapping[str, Any],
    progress: Progress,
    tell: Callable[[str], None],
) -> Prediction | PartResult | int | None:
    places = (model, task.source, task.output)
    if task.share:
        return predict_share(*places, task.share, progress=progress, notice=tell, **options)
    if unit.step == "part":
        # All parts are done by this run, also those of which there are some of an earlier one.
        predict_part(*places, unit.part, restart=True, progress=progress, **options)
        return None
    if unit.step == "finish":
        return predict(*places, assemble_only=True, **options)
    count = 1 if task.parts == 1 else count_parts(*places, parts=task.parts, **options)
    if count > 1:
        return count
    return predict(*places, progress=progress, notice=tell, **options)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Yield a list that gets the texts of the block's own warnings; others are as ever."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SegfocalWarning)
        try:
            yield texts
        finally:
            own = [one for one in caught if issubclass(one.category, SegfocalWarning)]
            texts.extend(str(one.message) for one in own)
    for one in caught:
        if one not in own:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def sendable(result: UnitResult) -> UnitResult:
    """Return a result that can be sent to another process, whatever went wrong."""
    if isinstance(result.value, Exception) and not isinstance(result.value, SegfocalError):
        try:
            pickle.loads(pickle.dumps(result.value))
        except Exception:  # libraries raise what cannot be copied
            name = type(result.value).__name__
            return replace(result, value=RuntimeError(f"{name}: {result.value}"))
    return result
