"""From a job to a finished output: continue what is there, compute the rest, assemble, describe."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segfocal.card import Card
from segfocal.engine.assembly import (
    assemble_labels,
    assemble_layer,
    compute_units,
    space_needed,
)
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.identity import model_identity
from segfocal.engine.job import Job
from segfocal.engine.layers import STEPS, Layers, layer_names
from segfocal.engine.provenance import (
    describe,
    file_digest,
    is_finished,
    provenance_path,
    read_provenance,
)
from segfocal.engine.scratch import ScratchStore, kept_bytes, kept_digest, remove_scratch
from segfocal.engine.sweep import Progress
from segfocal.errors import ScanError
from segfocal.io import PendingOutput, Scan, open_label_writer
from segfocal.io.identity import scan_identity
from segfocal.io.labels import Layout, output_kind
from segfocal.io.measure import pixel_measure
from segfocal.io.pending import writing
from segfocal.version import __version__

__all__ = ["produce"]

Tell = Callable[[str], None]


def produce(
    pending: PendingOutput,
    job: Job,
    card: Card,
    *,
    layers: Layers,
    layout: Layout,
    model_name: str | None,
    overwrite: bool,
    progress: Progress | None,
    tell: Tell,
) -> tuple[dict[str, Any], bool]:
    """Make the output of a job complete at its destination.

    Args:
        pending: The entered pending output.
        job: What to compute.
        card: Class values, names and colours.
        layers: What is to be written beside the labels.
        layout: Layout of a GeoTIFF.
        model_name: What to call the model in the provenance.
        overwrite: Replace an output that is not the one wanted.
        progress: Called with tiles done and tiles in all.
        tell: Called with a line of text when the run is no plain first run.

    Returns:
        The provenance, and whether the output was finished already.

    Raises:
        OutputExistsError: There is another output and ``overwrite`` is False.
        ModelError, ScanError, OutputError, MemoryError: See the messages.
    """
    destination, scan = pending.destination, job.scan
    model = model_identity(job.predictor)
    source = scan_identity(scan)
    outputs = {"labels": output_kind(destination, layout), **layers.kinds()}

    def fingerprint_of(some: Job) -> Fingerprint:
        return some.fingerprint(model, source, outputs)

    job = replace(
        job,
        batch_matters=model.batch_matters,
        kept_bytes=layers.bytes_per_pixel(card.num_classes),
    )
    provenance = read_provenance(destination)
    kept = kept_digest(destination)
    # An earlier run that ran out of memory went on with smaller batches; so does this one.
    for some in job.with_smaller_batches():
        fingerprint = fingerprint_of(some)
        if provenance is not None and is_finished(destination, provenance, fingerprint):
            tell(f"{destination}: finished already, by the same model with the same parameters")
            remove_scratch(destination)
            return provenance, True
        if kept == fingerprint.digest:
            job = some
            break
    pending.overwrite = overwrite
    pending.check_destination()
    layers.check(destination, scan.shape, overwrite=overwrite)
    layer_bytes = job.kept_bytes * math.prod(scan.shape)
    needed = space_needed(scan.shape, card.num_classes) + 3 * layer_bytes
    pending.require_space(needed - kept_bytes(destination))
    # Without the batch: where it matters, it may yet be made smaller.
    told = {name: value for name, value in job.parameters.items() if name != "batch_size"}
    tags = {
        "SEGFOCAL_VERSION": __version__,
        "SEGFOCAL_MODEL": model.hash,
        "SEGFOCAL_PARAMETERS": json.dumps(told, sort_keys=True),
    }
    writer = open_label_writer(pending, scan, card, layout=layout, tags=tags)
    while True:
        fingerprint = fingerprint_of(job)
        with ScratchStore(destination, fingerprint) as store:
            _tell_state(store, tell)
            try:
                compute_units(job, card, layers, store, progress)
                break
            except BatchTooLargeError:
                job = replace(job, batch_size=job.batch_size // 2)
                tell(f"{destination}: out of memory; goes on with batches of {job.batch_size}")
    if scan_identity(scan) != source:
        raise ScanError(
            f"{scan.name}: changed while it was read; expected a file that stays as it is: run "
            "again to start afresh"
        )
    result = {
        "shape": list(scan.shape),
        "tiles": len(job.grid),
        **assemble_labels(store, writer, card, scan.shape),
    }
    _add_areas(result, scan)
    result["layers"] = _assemble_layers(pending, scan, card, layers, store, layout, tags)
    with writing(destination):
        text = describe(destination, pending.main, fingerprint, result, model_name)
        pending.path(provenance_path(destination).name).write_text(text, encoding="utf-8")
    pending.commit()
    _remove_earlier_layers(destination, provenance, result["layers"])
    store.remove()
    return json.loads(text), False


def _tell_state(store: ScratchStore, tell: Tell) -> None:
    if store.replaced:
        tell(f"{store.destination}: starts afresh, as {' and '.join(store.replaced)} changed")
    elif store.units or store.damaged:
        damaged = f"; {store.damaged} were damaged and are computed anew" if store.damaged else ""
        tell(f"{store.destination}: continues with {len(store.units)} units kept{damaged}")


def _assemble_layers(
    pending: PendingOutput,
    scan: Scan,
    card: Card,
    layers: Layers,
    store: ScratchStore,
    layout: Layout,
    tags: dict[str, str],
) -> dict[str, dict[str, str]]:
    """Write the layers' files; return their names and checksums."""
    if not layers.wanted:
        return {}
    from segfocal.io.layers_writer import LayersWriter

    files = {}
    for name, kind in layers.kinds().items():
        file = layers.path(pending.destination, name).name
        writer = LayersWriter(
            pending,
            file,
            scan,
            layer_names(name, card),
            dtype=kind,
            scale=1 / STEPS if kind == "uint8" else 1.0,
            layout=layout,
            tags=tags,
        )
        assemble_layer(store, writer, name)
        files[name] = {"file": file, "sha256": file_digest(pending.path(file))}
    return files


def _remove_earlier_layers(
    destination: Path, provenance: dict[str, Any] | None, fresh: dict[str, Any]
) -> None:
    """Remove layers of the output that was replaced: they would be taken for the new one's."""
    earlier = (provenance or {}).get("result", {}).get("layers", {})
    for name, layer in earlier.items():
        if name not in fresh:
            with contextlib.suppress(OSError):
                destination.with_name(layer["file"]).unlink()


def _add_areas(result: dict[str, Any], scan: Scan) -> None:
    measure = pixel_measure(scan)
    if measure is not None:
        unit, size = measure
        for label in result["classes"]:
            label[unit] = round(label["pixels"] * size, 6)
