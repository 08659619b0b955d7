"""One scan over many processes: each computes a part, one of them assembles the output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.engine.identified import identified
from segfocal.engine.layers import Layers
from segfocal.engine.parts import Part, compute_part, parse_part, part_lock
from segfocal.engine.scratch import scratch_folder
from segfocal.engine.sweep import Progress
from segfocal.errors import GeometryError, OutputError
from segfocal.io import PendingOutput, Scan, open_scan
from segfocal.io.destinations import check_is_on_file_system
from segfocal.io.pending import writing
from segfocal.prediction import Prediction, predict
from segfocal.prepared import ScanSource, prepared_job

__all__ = [
    "REGION_PIXELS",
    "PartResult",
    "absolute_paths",
    "assemble",
    "count_parts",
    "predict_part",
]

ORDER = "order.json"
"""File in the scratch folder that says what the parts are made from."""

REGION_PIXELS = 8192
"""Least length of a part along the swept axis: tiles that are run twice stay below 10 %."""

_FOR_ASSEMBLY = ("polygons", "simplify", "min_area", "model_name", "overwrite")


@dataclass(frozen=True)
class PartResult:
    """What a process has done for a scan.

    Attributes:
        output: The label file that the part is of.
        part: Which part of how many: ``"3-of-8"``.
        units: Stretches of finished rows that it consists of.
        seconds: Wall time.
    """

    output: Path
    part: str
    units: int
    seconds: float


def predict_part(
    model: Any,
    input: ScanSource,
    output: str | Path,
    part: str | Part,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> PartResult:
    """Compute one of several parts of a scan; :func:`assemble` makes the output of them.

    The parts share the hidden folder ``.OUTPUT.scratch`` beside the output, on a file system
    that all processes see, and need neither each other nor a coordinator. A part that was
    stopped continues; one that is there already is left alone. The output has the bytes of an
    undivided run, for the fingerprint is the same; it holds the processor's instructions, so
    all parts need processors of one kind.

    Args:
        model: See :func:`~segfocal.predict`.
        input: See :func:`~segfocal.predict`.
        output: Where the label map is to go.
        part: ``"3/8"`` for the third of eight.
        progress: Called with tiles done and tiles in all, of those that this call runs.
        options: Further arguments of :func:`~segfocal.predict`, the same for all parts.

    Raises:
        GeometryError: ``part`` is no part.
        ScanError: Nothing tells whether all parts are of the same scan (``/vsis3/``), or it
            cannot be read.
        ModelError, ScanError, OutputError, MemoryError: See the messages.
    """
    started = time.monotonic()
    destination, one = Path(output), parse_part(part)
    computed, layers, layout = _divided(options)
    prepared = prepared_job(model, input, destinations=[destination], **computed)
    with part_lock(destination, one), prepared as (job, card):
        units = compute_part(
            destination,
            job,
            card,
            one,
            layers=layers,
            layout=layout,
            progress=None if progress is None else _of_this_part(progress),
        )
    _note_order(destination, model, input, options)
    return PartResult(destination, one.name, units, time.monotonic() - started)


def count_parts(
    model: Any,
    input: ScanSource,
    output: str | Path,
    *,
    parts: int | None = None,
    **options: Any,
) -> int:
    """Return how many parts a scan is to be computed in: 1 when it can be done at once.

    That is when it is short, or when its output is finished already.

    Args:
        model, input, output: See :func:`~segfocal.predict`.
        parts: How many they are to be. Left out: one per :data:`REGION_PIXELS` of the scan's
            length.
        options: Further arguments of :func:`~segfocal.predict`.

    Raises:
        OutputExistsError: The output is there, is not the one wanted, and is to stay.
        ModelError, ScanError, OutputError, GeometryError: As :func:`~segfocal.predict` raises.
    """
    if parts is not None and parts < 1:
        raise GeometryError(f"{parts} parts; expected 1 or more")
    destination = Path(output)
    # Normalization or a context may be measured by a pass over the scan: not for short ones.
    if parts == 1 or (parts is None and _is_short(input)):
        return 1
    computed, layers, layout = _divided(options)
    with prepared_job(model, input, destinations=[destination], **computed) as (job, card):
        side = job.covered[job.scan.slow_axis]
        known = identified(destination, job, card, layers, layout)
        if known.finished() is not None:
            return 1
    # Found now, and not when everything has been computed.
    PendingOutput(destination, overwrite=options.get("overwrite", False)).check_destination()
    return parts or max(1, (side.stop - side.start) // REGION_PIXELS)


def assemble(
    output: str | Path,
    *,
    model: Any = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Prediction:
    """Make the output of a scan whose parts have all been computed.

    Args:
        output: The label map that the parts are of.
        model: The model, where the parts were given an object and not a path.
        progress, notice: See :func:`~segfocal.predict`.

    Raises:
        OutputError: Parts are missing, which are named, or there are none.
    """
    check_is_on_file_system(output)
    destination = Path(output)
    place = scratch_folder(destination) / ORDER
    try:
        order = json.loads(place.read_text(encoding="utf-8"))
        source, options, known = order["input"], order["options"], order["model"]
    except FileNotFoundError:
        raise OutputError(
            f"{destination}: there are no parts of it; expected what `segfocal predict --shard` "
            f"leaves in {place.parent}"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{place}: cannot be read ({error}); compute a part again") from error
    if model is None and known is None:
        raise OutputError(
            f"{destination}: its parts were given a model in memory; pass it here too"
        )
    return predict(
        known if model is None else model,
        source,
        destination,
        assemble_only=True,
        progress=progress,
        notice=notice,
        **options,
    )


def _of_this_part(progress: Progress) -> Progress:
    """Return a progress callback that leaves out tiles of other parts.

    They count as done, and the first report is of them alone, as long as there are any.
    """
    before = last = 0
    total_before = None

    def report(done: int, total: int) -> None:
        nonlocal before, last, total_before
        if total != total_before or done < last:  # the first report of a pass over the scan
            before, total_before = done, total
        last = done
        progress(done - before, total - before)

    return report


def _divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], Layers, Any]:
    """Return what the parts are computed with, what is kept beside labels, and the layout."""
    computed = {name: options[name] for name in options if name not in _FOR_ASSEMBLY}
    layers = Layers(computed.pop("probabilities", None), computed.pop("uncertainty", False))
    return computed, layers, computed.pop("layout", "cog")


def _is_short(source: ScanSource) -> bool:
    with nullcontext(source) if isinstance(source, Scan) else open_scan(source) as scan:
        return max(scan.shape) < 2 * REGION_PIXELS


def _note_order(
    destination: Path, model: Any, source: ScanSource, options: Mapping[str, Any]
) -> None:
    """Note what the parts are made from; all of them would write the same."""
    folder = scratch_folder(destination)
    if not folder.is_dir():  # the output is finished
        return
    text = json.dumps(
        {"model": absolute_paths(model), "input": absolute_paths(source), "options": options},
        default=str,
        indent=1,
    )
    place = folder / ORDER
    begun = place.with_name(f"{ORDER}.{os.getpid()}.new")
    with writing(destination):
        begun.write_text(text + "\n", encoding="utf-8")
        os.replace(begun, place)


def absolute_paths(value: Any) -> Any:
    """Return paths as absolute text, for a process that is started elsewhere.

    Args:
        value: A path, or a list or mapping of some. Names that are none of existing files stay.

    Returns:
        The same with text; None of anything else.
    """
    if isinstance(value, str | os.PathLike):
        name = os.fspath(value)
        return os.path.abspath(name) if os.path.exists(name) else name
    if isinstance(value, list | tuple):
        found = [absolute_paths(one) for one in value]
        return None if None in found else found
    if isinstance(value, dict):
        return {key: absolute_paths(one) for key, one in value.items()}
    return None
