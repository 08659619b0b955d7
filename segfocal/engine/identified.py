"""A job with its identity: what its result follows from, and whether that is there already."""

from __future__ import annotations

import secrets
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segfocal.card import Card
from segfocal.engine.fingerprint import Fingerprint
from segfocal.engine.identity import ModelIdentity, model_identity
from segfocal.engine.job import Job
from segfocal.engine.layers import Layers
from segfocal.engine.provenance import is_finished, read_provenance
from segfocal.engine.scratch import kept_digest
from segfocal.errors import SegfocalWarning
from segfocal.io.identity import scan_identity, unknown_files
from segfocal.io.labels import Layout, output_kind

__all__ = ["IdentifiedJob", "identified"]


@dataclass(frozen=True)
class IdentifiedJob:
    """A job and what identifies its result.

    Attributes:
        job: The job; with smaller batches where an earlier run had to go on with them.
        destination: Where its output goes.
        model: Identity of the predictor.
        source: Identity of the scan.
        outputs: Kinds of the files that are written.
        provenance: What stands beside an output that is there, or None.
        run: Where nothing tells whether the scan changed: what is like no other run's, so that
            none is continued by another or taken for it; else None.
    """

    job: Job
    destination: Path
    model: ModelIdentity
    source: dict[str, Any]
    outputs: dict[str, str]
    provenance: dict[str, Any] | None
    run: str | None = None

    def fingerprint_of(self, job: Job) -> Fingerprint:
        """Return the fingerprint of the job, or of one with another batch size."""
        source = self.source if self.run is None else {**self.source, "run": self.run}
        return job.fingerprint(self.model, source, self.outputs)

    def finished(self) -> dict[str, Any] | None:
        """Return the provenance of the output when it is finished, else None."""
        fingerprint = self.fingerprint_of(self.job)
        done = self.provenance is not None and is_finished(
            self.destination, self.provenance, fingerprint
        )
        return self.provenance if done else None


def identified(
    destination: Path, job: Job, card: Card, layers: Layers, layout: Layout
) -> IdentifiedJob:
    """Identify a job.

    Args:
        destination: Where its output goes.
        job: The job.
        card: Class values, names and colours.
        layers: What is to be written beside the labels.
        layout: Layout of a GeoTIFF.

    Warns:
        SegfocalWarning: Nothing tells whether the scan changed since another run.
    """
    model = model_identity(job.predictor)
    outputs = {"labels": output_kind(destination, layout), **layers.kinds()}
    source = scan_identity(job.scan)
    unknown = unknown_files(source)
    if unknown:
        warnings.warn(
            f"{unknown[0]}: nothing tells whether it changed since an earlier run, so that this "
            "one starts afresh and cannot be continued; expected files, or an address whose server "
            "sends an ETag",
            SegfocalWarning,
            stacklevel=2,
        )
    known = IdentifiedJob(
        replace(
            job,
            batch_matters=model.batch_matters,
            kept_bytes=layers.bytes_per_pixel(card.num_classes),
        ),
        destination,
        model,
        source,
        outputs,
        read_provenance(destination),
        secrets.token_hex(16) if unknown else None,
    )
    kept = kept_digest(destination)
    # An earlier run that ran out of memory went on with smaller batches; so does this one.
    for some in known.job.with_smaller_batches():
        smaller = replace(known, job=some)
        if smaller.finished() is not None or kept == known.fingerprint_of(some).digest:
            return smaller
    return known
