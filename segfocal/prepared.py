"""From arguments to a job: the model in its context, the scan open, the parameters settled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segfocal.blending import Blend
from segfocal.card import Card
from segfocal.engine.averaging import TTA
from segfocal.engine.contexts import prepare_calibrated
from segfocal.engine.engines import Engine, in_engine
from segfocal.engine.expected_values import unlike_training
from segfocal.engine.job import DEFAULT_BATCH, Job, Sides
from segfocal.engine.openvino_predictor import Precision
from segfocal.engine.piece_options import Classes, piece_steps
from segfocal.engine.predictors import Predictor, as_predictor
from segfocal.engine.region import Mask
from segfocal.engine.resolution import DEFAULT_INTERPOLATION, Resample
from segfocal.engine.sieve import sieve_of
from segfocal.engine.slices import SliceAxis
from segfocal.errors import ModelError, ScanError, SegfocalWarning
from segfocal.io import Scan, ScanPath, open_scan
from segfocal.io.base import grid_of
from segfocal.io.resampling import Interpolation
from segfocal.types import Window

if TYPE_CHECKING:
    from segfocal.io.area import Area

__all__ = ["ScanSource", "name_of_model", "prepared_job"]

ScanSource = Scan | ScanPath | Sequence[ScanPath] | Mapping[str, ScanPath]
"""What a scan is read from: a path, several that make up one, or an open scan."""


@contextmanager
def prepared_job(
    model: Any,
    source: ScanSource,
    *,
    tile: Sides | None = None,
    overlap: Sides | None = None,
    halo: Sides = 0,
    blend: Blend = "gaussian",
    batch_size: int = DEFAULT_BATCH,
    max_memory: int | str | None = None,
    global_context: str | None = None,
    exact_context: bool = False,
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
    tta: TTA | None = None,
    slice_axis: SliceAxis | int | None = None,
    min_size: int | str | None = None,
    area: Area | None = None,
    area_crs: str | None = None,
    largest_component: Classes | None = None,
    fill_holes: Classes | None = None,
    min_volume: float | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    destinations: Sequence[Path] = (),
    tell: Callable[[str], None] | None = None,
) -> Iterator[tuple[Job, Card]]:
    """Yield the job of a model on a scan, and the model's card; see :func:`segfocal.predict`.

    ``destinations`` are outputs of which earlier runs tell in which engine to continue, ``tell``
    is called with a line of text when a model is converted.

    Raises:
        ModelError, ScanError, ChannelError, GeometryError: Model, scan and numbers do not go
            together.
    """
    model = in_engine(
        model,
        engine,
        precision=precision,
        global_context=global_context,
        destinations=destinations,
        tell=tell or (lambda text: None),
    )
    card = _card_of(as_predictor(model))
    with _opened(source, card.orientation or "RAS") as scan:
        region, mask = _part(scan, area, area_crs)
        job = prepare_calibrated(
            model,
            scan,
            exact_context=exact_context,
            tta=tta,
            slice_axis=slice_axis,
            tile=tile,
            overlap=overlap,
            halo=halo,
            blend=blend,
            batch_size=batch_size,
            max_memory=max_memory,
            region=region,
            mask=mask,
            resample=resample,
            interpolation=interpolation,
        )
        for note in getattr(grid_of(scan), "notes", ()):
            warnings.warn(note, SegfocalWarning, stacklevel=2)
        unlike = unlike_training(job, card)
        if unlike:
            warnings.warn(unlike, SegfocalWarning, stacklevel=2)
        if min_size is not None:
            job = replace(job, cleaning=(*job.cleaning, sieve_of(min_size, scan)))
        pieces = piece_steps(
            card,
            job.target,
            largest_component=largest_component,
            fill_holes=fill_holes,
            min_volume=min_volume,
            max_memory=job.max_memory,
        )
        yield replace(job, cleaning=(*job.cleaning, *pieces)), card


def name_of_model(model: Any) -> str | None:
    """Return what to call a model in the provenance: the names of its files."""
    models = model if isinstance(model, list | tuple) else [model]
    names = [Path(one).name for one in models if isinstance(one, str | Path)]
    return " + ".join(names) if names and len(names) == len(models) else None


def _part(scan: Scan, area: Area | None, area_crs: str | None) -> tuple[Window | None, Mask | None]:
    """Return the region of an area of interest, and its mask; None for all of the scan."""
    if area is None:
        if area_crs is not None:
            raise ScanError("area_crs is the CRS of an area; give the area too")
        return None, None
    from segfocal.io.area import area_of_interest

    return area_of_interest(area, scan, area_crs)


def _opened(source: ScanSource, orientation: str) -> AbstractContextManager[Scan]:
    if isinstance(source, Scan):
        return nullcontext(source)
    return open_scan(source, orientation=orientation)


def _card_of(predictor: Predictor) -> Card:
    if predictor.card is None:
        raise ModelError(
            "a plain function has no class values to write; expected a segfocal model, or use "
            "segfocal.stream and write its probabilities yourself"
        )
    return predictor.card
