"""The share that a process has of a scan, of which others, unknown to it, have theirs.

Whoever computes the last part makes the output; none waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segfocal.engine.fellow_parts import fitting_parts
from segfocal.engine.parts import Part, parse_part
from segfocal.engine.scratch import scratch_folder
from segfocal.errors import OutputInUseError
from segfocal.prediction import Prediction, predict
from segfocal.prepared import ScanSource
from segfocal.scan_parts import PartResult, count_parts, predict_part

__all__ = ["predict_share"]


def predict_share(
    model: Any,
    input: ScanSource,
    output: str | Path,
    part: str | Part,
    *,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> PartResult | Prediction:
    """Compute one of several parts of a scan, and the output where it was the last of them.

    Args:
        model, input, output, part, progress, options: See :func:`~segfocal.predict_part`.
        notice: Called with lines of both.

    Returns:
        The finished prediction; or the part, where others are not there yet or another process
        is making the output of them.

    Raises:
        SegfocalError: As :func:`~segfocal.predict_part` and :func:`~segfocal.predict` raise.
    """
    one, destination = parse_part(part), Path(output)
    found: PartResult | None = None
    # Finished already, or refused before anything is computed.
    if count_parts(model, input, output, parts=one.count, **options) > 1:
        found = predict_part(model, input, output, one, progress=progress, notice=notice, **options)
        # Without the lock, so that no process keeps the last one from it.
        there = fitting_parts(destination, one.name)
        names = {Part(number, one.count).name for number in range(1, one.count + 1)}
        if scratch_folder(destination).exists() and not names <= there:
            return found
    try:
        return predict(
            model, input, output,
            assemble_only=found is not None, progress=progress, notice=notice, **options,
        )  # fmt: skip
    except OutputInUseError:
        if found is None:
            raise
        return found
