"""From a job to a finished output: continue what is there, compute the rest, assemble, describe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
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
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.identified import identified
from segfocal.engine.job import Job
from segfocal.engine.layers import STEPS, Layers, layer_names
from segfocal.engine.parts import clear_parts, fingerprint_of_parts, missing_parts
from segfocal.engine.polygons import Polygons, add_polygons
from segfocal.engine.provenance import (
    describe,
    file_digest,
    provenance_path,
)
from segfocal.engine.replacing import refuse_to_replace_inputs, remove_outdated
from segfocal.engine.scratch import (
    ScratchStore,
    kept_bytes,
    kept_parts,
    remove_scratch,
    scratch_folder,
)
from segfocal.engine.sweep import Progress
from segfocal.errors import OutputError, ScanError
from segfocal.io import PendingOutput, Scan, open_label_writer
from segfocal.io.identity import scan_identity
from segfocal.io.labels import Layout
from segfocal.io.layers import open_layers_writer
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
    polygons: Polygons | None = None,
    layout: Layout,
    model_name: str | None,
    overwrite: bool,
    assemble_only: bool = False,
    read_too: Sequence[str | Path] = (),
    progress: Progress | None,
    tell: Tell,
) -> tuple[dict[str, Any], bool]:
    """Make the output of a job complete at its destination.

    Args:
        pending: The entered pending output.
        job: What to compute.
        card: Class values, names and colours.
        layers: What is to be written beside the labels.
        polygons: Polygons of the labels that are wanted, or None.
        layout: Layout of a GeoTIFF.
        model_name: What to call the model in the provenance.
        overwrite: Replace an output that is not the one wanted.
        read_too: Files that are read besides the scan's: no output may replace them.
        assemble_only: Compute nothing: other processes have, part by part.
        progress: Called with tiles done and tiles in all.
        tell: Called with a line of text when the run is no plain first run.

    Returns:
        The provenance, and whether the output was finished already.

    Raises:
        OutputExistsError: There is another output and ``overwrite`` is False.
        ModelError, ScanError, OutputError, MemoryError: See the messages.
    """
    destination, scan, target = pending.destination, job.scan, job.target
    known = identified(destination, job, card, layers, layout)
    job, model, provenance = known.job, known.model, known.provenance
    files = [destination, provenance_path(destination)]
    files += [layers.path(destination, name) for name in layers.wanted]
    files += [] if polygons is None else [polygons.path]
    refuse_to_replace_inputs(files, known.source, read_too)
    if known.finished() is not None and provenance is not None:
        tell(f"{destination}: finished already, by the same model with the same parameters")
        remove_scratch(destination)
        if polygons is None:
            return provenance, True
        amended = add_polygons(
            polygons, pending, card, target, provenance,
            overwrite=overwrite, max_memory=job.max_memory,
        )  # fmt: skip
        return amended, amended is provenance
    pending.overwrite = overwrite
    pending.check_destination()
    layers.check(destination, overwrite=overwrite)
    scratch = scratch_folder(destination)
    vector = None
    if polygons is not None:
        polygons.check(target, scratch, overwrite=overwrite)
        vector = polygons.begin(pending, scratch, overwrite=overwrite)
    layer_bytes = job.kept_bytes * math.prod(target.shape)
    needed = space_needed(target.shape, card.num_classes, cleaned=bool(job.cleaning))
    needed += 3 * layer_bytes
    pending.require_space(needed - kept_bytes(destination))
    # Without the batch: where it matters, it may yet be made smaller.
    told = {name: value for name, value in job.parameters.items() if name != "batch_size"}
    tags = {
        "SEGFOCAL_VERSION": __version__,
        "SEGFOCAL_MODEL": model.hash,
        "SEGFOCAL_PARAMETERS": json.dumps(told, sort_keys=True),
    }
    writer = open_label_writer(pending, target, card, layout=layout, tags=tags)
    while True:
        fingerprint = known.fingerprint_of(job)
        if assemble_only:
            fingerprint = fingerprint_of_parts(destination, fingerprint)
        with ScratchStore(destination, fingerprint) as store:
            if assemble_only:
                _refuse_missing(destination, job, store)
            else:
                _tell_state(store, tell)
            try:
                compute_units(job, card, layers, store, progress)
                break
            except BatchTooLargeError:
                job = replace(job, batch_size=job.batch_size // 2)
                tell(f"{destination}: out of memory; goes on with batches of {job.batch_size}")
    if scan_identity(scan) != known.source:
        raise ScanError(
            f"{scan.name}: changed while it was read; expected a file that stays as it is: run "
            "again to start afresh"
        )
    result = {
        "shape": list(target.shape),
        "tiles": job.tiles,
        **assemble_labels(store, pending, writer, card, job),
    }
    if result["invalid_pixels"] == math.prod(target.shape):
        store.remove()
        where = "" if job.region is None and job.mask is None else " of the area"
        raise ScanError(
            f"{scan.name}: no pixel{where} is valid: all are nodata, masked or NaN; expected data: "
            "check the file and its nodata value"
        )
    _add_areas(result, target)
    result["layers"] = _assemble_layers(pending, job, card, layers, store, layout, tags)
    if polygons is not None and vector is not None:
        about = polygons.make(pending.main, destination, card, vector, job.max_memory)
        result["polygons"] = about
        polygons.note(scratch, about["sha256"])
    with writing(destination):
        result["beside"] = _files_beside(pending)
        text = describe(destination, pending.main, fingerprint, result, model_name)
        pending.path(provenance_path(destination).name).write_text(text, encoding="utf-8")
    if vector is not None:
        vector.commit()
    pending.commit()
    remove_outdated(destination, provenance, result, tell)
    if kept_parts(destination):
        clear_parts(destination)
    store.remove()
    return json.loads(text), False


def _refuse_missing(destination: Path, job: Job, store: ScratchStore) -> None:
    missing = missing_parts(destination, job, store)
    if missing:
        parts = ", ".join(missing[:10]) + (" and others" if len(missing) > 10 else "")
        raise OutputError(
            f"{destination}: not computed yet: part {parts}; run what is missing, then assemble"
        )


def _tell_state(store: ScratchStore, tell: Tell) -> None:
    if store.replaced:
        tell(f"{store.destination}: starts afresh, as {' and '.join(store.replaced)} changed")
    elif store.units or store.damaged:
        damaged = f"; {store.damaged} were damaged and are computed anew" if store.damaged else ""
        tell(f"{store.destination}: continues with {len(store.units)} units kept{damaged}")


def _assemble_layers(
    pending: PendingOutput,
    job: Job,
    card: Card,
    layers: Layers,
    store: ScratchStore,
    layout: Layout,
    tags: dict[str, str],
) -> dict[str, dict[str, str]]:
    """Write the layers' files; return their names and checksums."""
    files = {}
    for name, kind in layers.kinds().items():
        file = layers.path(pending.destination, name).name
        writer = open_layers_writer(
            pending,
            file,
            job.target,
            layer_names(name, card),
            dtype=kind,
            scale=1 / STEPS if kind == "uint8" else 1.0,
            layout=layout,
            tags=tags,
        )
        assemble_layer(store, writer, name, job.covered)
        files[name] = {"file": file, "sha256": file_digest(pending.path(file))}
    return files


def _files_beside(pending: PendingOutput) -> list[str]:
    """Return names of what comes beside the output with names and colours of its classes."""
    files = (path.name for path in pending.folder.iterdir() if path.is_file())
    return sorted(name for name in files if name.endswith((".aux.xml", ".itksnap.txt", ".ctbl")))


def _add_areas(result: dict[str, Any], scan: Scan) -> None:
    measure = pixel_measure(scan)
    if measure is not None:
        unit, size = measure
        for label in result["classes"]:
            label[unit] = round(label["pixels"] * size, 6)
