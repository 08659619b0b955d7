"""One scan over many processes: each computes a part, one of them assembles the output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.engine import part_layout
from segfocal.engine.identified import identified
from segfocal.engine.layers import Layers
from segfocal.engine.part_layout import default_count
from segfocal.engine.parts import Part, compute_part, parse_part, part_lock
from segfocal.engine.provenance import is_as_written, read_provenance
from segfocal.engine.scratch import scratch_folder
from segfocal.engine.sweep import Progress
from segfocal.errors import GeometryError, OutputError
from segfocal.io import PendingOutput, Scan, open_scan
from segfocal.io.destinations import check_is_on_file_system
from segfocal.part_orders import OF_POLYGONS, ORDER, note_order, refuse_other_order
from segfocal.prediction import Prediction, predict, prediction_of
from segfocal.prepared import ScanSource, prepared_job

__all__ = [
    "PartResult",
    "assemble",
    "count_parts",
    "predict_part",
]

_FOR_ASSEMBLY = (*OF_POLYGONS, "model_name", "overwrite")


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
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> PartResult:
    """Compute one of several parts of a scan; :func:`assemble` makes the output of them.

    The parts share the hidden folder ``.OUTPUT.scratch`` beside the output, on a file system
    that all processes see, and need neither each other nor a coordinator. A part that was
    stopped continues; one that is there already is left alone. The output has the bytes of an
    undivided run, for the fingerprint is the same; it holds the processor's instructions, so
    all parts need processors of one kind. A part that finds complete ones of something else
    refuses, before it computes anything, and says what differs. One that was computed itself with
    something else is computed anew; the others are to follow.

    Args:
        model: See :func:`~segfocal.predict`.
        input: See :func:`~segfocal.predict`.
        output: Where the label map is to go.
        part: ``"3/8"`` for the third of eight.
        restart: The caller computes all parts: what others are there already is no matter.
        progress: Called with tiles done and tiles in all, of those that this call runs.
        notice: Called with a line of text when the part was begun before.
        options: Further arguments of :func:`~segfocal.predict`, the same for all parts.

    Raises:
        GeometryError: ``part`` is no part.
        ScanError: Nothing tells whether all parts are of the same scan (``/vsis3/``), or it
            cannot be read.
        OutputError: Other parts are there that were computed with something else, or were told
            to make other polygons.
        ModelError, ScanError, OutputError, MemoryError: See the messages.

    Warns:
        SegfocalWarning: This part replaces one of something else, and others are still as it was.
    """
    started = time.monotonic()
    destination, one = Path(output), parse_part(part)
    computed, layers, layout = _divided(options)
    if not restart:
        refuse_other_order(destination, one, options)
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
            note=lambda: note_order(destination, one, model, input, options),
            restart=restart,
            tell=notice or (lambda text: None),
        )
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
        parts: How many they are to be. Left out: see
            :func:`segfocal.engine.part_layout.default_count`.
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
        count = parts or default_count(job)
        known = identified(destination, job, card, layers, layout)
        if known.finished() is not None:
            return 1
    # Found now, and not when everything has been computed.
    PendingOutput(destination, overwrite=options.get("overwrite", False)).check_destination()
    return count


def assemble(
    output: str | Path,
    *,
    model: Any = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Prediction:
    """Make the output of a scan whose parts have all been computed.

    An output that is finished already, with no parts left, is left as it is.

    Args:
        output: The label map that the parts are of.
        model: The model, where the parts were given an object and not a path.
        overwrite: Replace an existing output, as all parts that were computed with it do. What
            is read for this one, scan, model or area, is never replaced.
        progress, notice: See :func:`~segfocal.predict`.

    Raises:
        OutputExistsError: There is another output, and it is to stay.
        OutputError: Parts are missing, which are named, or there are none.
    """
    check_is_on_file_system(output)
    destination, started = Path(output), time.monotonic()
    place = scratch_folder(destination) / ORDER
    try:
        order = json.loads(place.read_text(encoding="utf-8"))
        source, options, known = order["input"], {**order["options"]}, order["model"]
    except FileNotFoundError:
        provenance = read_provenance(destination)
        if provenance is not None and is_as_written(destination, provenance):
            if notice is not None:
                notice(f"{destination}: finished already")
            seconds = time.monotonic() - started
            return prediction_of(destination, provenance, seconds, unchanged=True)
        raise OutputError(
            f"{destination}: there are no parts of it; expected what `segfocal predict --shard` "
            f"leaves in {place.parent}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{place}: cannot be read ({error}); compute a part again") from error
    if model is None and known is None:
        raise OutputError(
            f"{destination}: its parts were given a model in memory; pass it here too"
        )
    asked = options.pop("overwrite", False)
    return predict(
        known if model is None else model,
        source,
        destination,
        assemble_only=True,
        overwrite=overwrite or asked,
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
        return max(scan.shape) < 2 * part_layout.REGION_PIXELS
