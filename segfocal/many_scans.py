"""Prediction over many scans: failures isolated, finished ones recognised, a summary."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from segfocal.engine.engines import in_engine
from segfocal.engine.memory import peak_bytes
from segfocal.engine.polygons import is_suffix
from segfocal.errors import OutputError, SegfocalError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.prediction import predict
from segfocal.scan_lists import ScanInput, list_scans, name_outputs

__all__ = ["SUMMARY", "Outcome", "Summary", "predict_many"]

SUMMARY = "summary.json"
"""Name of the summary in the folder of outputs."""

SECONDS_BETWEEN_SUMMARIES = 10

Status = Literal["done", "unchanged", "failed", "pending"]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        input: Its files.
        output: The label file.
        status: ``"done"``; ``"unchanged"``: finished by an earlier run, by the same model with
            the same parameters, and its checksum is right; ``"failed"``; ``"pending"``: not
            reached yet.
        reason: Why it failed, one line.
        seconds: Wall time.
        pixels: Pixels of the scan, 0 when it failed.
        peak_bytes: What the process held in memory at most meanwhile.
    """

    input: tuple[str, ...]
    output: str
    status: Status = "pending"
    reason: str | None = None
    seconds: float = 0.0
    pixels: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Summary:
    """What became of many scans.

    Attributes:
        outcomes: One per scan, in the order of the inputs.
        path: The JSON file that says the same.
    """

    outcomes: tuple[Outcome, ...]
    path: Path

    def count(self, status: Status) -> int:
        """Return how many scans have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Scans that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def as_json(self) -> dict[str, Any]:
        """Return the summary as a JSON value."""
        return {
            "scans": len(self.outcomes),
            **{status: self.count(status) for status in ("done", "unchanged", "failed", "pending")},
            "seconds": round(sum(outcome.seconds for outcome in self.outcomes), 3),
            "pixels": sum(outcome.pixels for outcome in self.outcomes),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }


def predict_many(
    model: Any,
    inputs: Iterable[str | os.PathLike[str] | Sequence[str]],
    out: str | Path,
    *,
    retry_failed: bool = False,
    global_context: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Summary:
    """Segment many scans into a folder.

    One scan that fails does not stop the others. A scan that an earlier call has finished, by
    the same model with the same parameters, is left as it is when its checksum is right; one
    that was interrupted continues.

    Args:
        model: See :func:`~segfocal.predict`; loaded once.
        inputs: Files, folders, patterns and tables of scans, see
            :func:`segfocal.scan_lists.list_scans`. Outputs keep the names of the inputs, with
            ``.tif`` for scenes and ``.nii.gz`` for volumes.
        out: Folder for the outputs and ``summary.json``; made when it is missing.
        retry_failed: Only run what the summary of an earlier call says has failed, or was not
            reached.
        global_context: See :func:`~segfocal.stream`.
        progress: Called with scans done and scans in all; raise in it to cancel.
        notice: Called with a line of text for what :func:`~segfocal.predict` has to say, and
            for scans that fail.
        options: Further arguments of :func:`~segfocal.predict`.

    Raises:
        ScanError, OutputError, ModelError: There are no scans, ``out`` cannot be written, or
            the model cannot be loaded: nothing was begun.
    """
    folder, tell = Path(out), notice or (lambda text: None)
    polygons = options.get("polygons")
    if polygons is not None and not is_suffix(polygons):
        raise OutputError(
            f"polygons {polygons}: one file for many scans; expected a suffix such as .gpkg, for a "
            "file beside each label map"
        )
    scans = list_scans(inputs)
    places = [folder / name for name in name_outputs(scans)]
    _make_folder(folder)
    summary = folder / SUMMARY
    outcomes = [Outcome(scan.files, str(place)) for scan, place in zip(scans, places, strict=True)]
    if retry_failed:
        outcomes = _earlier(summary, outcomes)
    model = in_engine(
        model,
        options.pop("engine", "auto"),
        precision=options.pop("precision", "float32"),
        global_context=global_context,
        destinations=places,
        tell=tell,
    )
    written = time.monotonic()
    for place, scan in enumerate(scans):
        if outcomes[place].status not in ("done", "unchanged"):
            outcomes[place] = _attempt(model, scan, places[place], tell, options)
            if time.monotonic() - written > SECONDS_BETWEEN_SUMMARIES:
                _write(Summary(tuple(outcomes), summary))
                written = time.monotonic()
        if progress is not None:
            progress(place + 1, len(scans))
    found = Summary(tuple(outcomes), summary)
    _write(found)
    return found


def _attempt(
    model: Any, scan: ScanInput, output: Path, tell: Callable[[str], None], options: dict[str, Any]
) -> Outcome:
    source = scan.name if len(scan.files) == 1 else list(scan.files)
    started = time.monotonic()

    def run() -> Outcome:
        try:
            _make_folder(output.parent)
            done = predict(model, source, output, notice=tell, **options)
        except Exception as error:  # whatever it is, the next scan may be fine
            text = " ".join(str(error).split())
            known = isinstance(error, SegfocalError)
            reason = text if known else f"{type(error).__name__}: {text}"
            tell(f"failed: {reason}")
            return Outcome(scan.files, str(output), "failed", reason)
        return Outcome(
            scan.files,
            str(output),
            "unchanged" if done.unchanged else "done",
            pixels=math.prod(done.shape),
        )

    outcome, peak = peak_bytes(run)
    seconds = round(time.monotonic() - started, 3)
    return Outcome(
        outcome.input,
        outcome.output,
        outcome.status,
        outcome.reason,
        seconds,
        outcome.pixels,
        peak,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made ({error}); expected a folder, or a place for one"
        ) from error


def _earlier(summary: Path, outcomes: list[Outcome]) -> list[Outcome]:
    """Return outcomes with those of an earlier summary filled in where a scan succeeded."""
    try:
        value = json.loads(summary.read_text(encoding="utf-8"))
        known = {
            (tuple(one["input"]), one["output"]): Outcome(**{**one, "input": tuple(one["input"])})
            for one in value["outcomes"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{summary}: no summary of an earlier run ({error}); run without --retry-failed"
        ) from error
    return [known.get((one.input, one.output), one) for one in outcomes]


def _write(summary: Summary) -> None:
    with PendingOutput(summary.path, overwrite=True) as pending:
        with writing(summary.path):
            text = json.dumps(summary.as_json(), indent=1, ensure_ascii=False)
            pending.main.write_text(text + "\n", encoding="utf-8")
        pending.commit()
