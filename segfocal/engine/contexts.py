"""Choosing what a network's last focal level averages, and measuring it where it is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.engine.averaging import TTA, AugmentedPredictor
from segfocal.engine.calibration import measure_context
from segfocal.engine.forward import BatchTooLargeError
from segfocal.engine.job import (
    DEFAULT_BATCH,
    DEFAULT_TILE,
    Job,
    Sides,
    axis_sides,
    prepare,
)
from segfocal.engine.predictors import Predictor, as_predictor, load_model
from segfocal.engine.region import Mask
from segfocal.engine.resolution import DEFAULT_INTERPOLATION, Resample, at_model_resolution
from segfocal.engine.slices import SliceAxis, SlicePredictor
from segfocal.engine.sweep import Progress
from segfocal.errors import ModelError
from segfocal.io.base import Scan
from segfocal.io.resampling import Interpolation, ResampledScan
from segfocal.types import Window

__all__ = ["calibrate", "in_context", "prepare_calibrated"]

_TWINS: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def in_context(model: Any, global_context: str | None) -> Any:
    """Return a model whose last focal level averages something else.

    Args:
        model: Anything that :func:`~segfocal.stream` takes.
        global_context: ``"tile"``, ``"local"``, ``"frozen"`` or ``"none"``; None: as it is.

    Raises:
        ModelError: The model cannot be changed so.
    """
    if isinstance(model, list | tuple):
        return [in_context(one, global_context) for one in model]
    if isinstance(model, str | Path):
        model = load_model(model)
    if global_context is None or getattr(model, "global_context", None) == global_context:
        return model
    if not hasattr(model, "with_global_context"):
        raise ModelError(
            f"global_context {global_context!r} asks for a model whose context can be changed; "
            "expected a segfocal.FocalUNet or its .keras file (an exported model keeps the one "
            "it was exported with)"
        )
    # Kept as long as the model lives, as its predictor is: it would be compiled again.
    twins = _TWINS.setdefault(model, {})
    if global_context not in twins:
        try:
            twins[global_context] = model.with_global_context(global_context)
        except ValueError as error:
            raise ModelError(str(error)) from error
    return twins[global_context]


def prepare_calibrated(
    model: Any,
    scan: Scan,
    *,
    exact_context: bool,
    tile: Sides | None,
    overlap: Sides | None,
    halo: Sides,
    blend: Blend,
    batch_size: int,
    max_memory: int | str | None = None,
    region: Window | None = None,
    mask: Mask | None = None,
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
    tta: TTA | None = None,
    slice_axis: SliceAxis | int | None = None,
) -> Job:
    """Return the job of a model on a scan; it measures frozen means before its first tile.

    Args:
        model: Anything that :func:`~segfocal.stream` takes, loaded.
        scan: An open scan.
        exact_context: See ``exact`` of :func:`calibrate`.
        tile, overlap, halo, blend, batch_size, max_memory, tta, slice_axis: See
            :func:`~segfocal.stream`.
        region, mask: See :func:`~segfocal.engine.job.prepare`. Frozen means are those of the
            whole scan.
        resample, interpolation: See :func:`~segfocal.stream`.

    Raises:
        ModelError: ``exact_context`` is asked for where nothing is frozen, or with a limit of
            memory.
        ScanError, ChannelError, GeometryError: Model, scan and numbers do not go together.
    """
    predictor = as_predictor(model)
    frozen = getattr(model, "global_context", None) == "frozen"
    if exact_context and not frozen:
        raise ModelError(
            "an exact context is a frozen one; ask for the global context frozen as well "
            '(global_context="frozen", --global-context frozen)'
        )
    if exact_context and max_memory is not None:
        raise ModelError(
            "an exact context takes tiles with the network's whole receptive field, whatever "
            "max_memory says; leave one of the two out"
        )
    resampled = at_model_resolution(predictor.card, scan, resample, interpolation)
    job = prepare(
        predictor,
        scan,
        tile=tile,
        overlap=overlap,
        halo=halo,
        blend=blend,
        batch_size=batch_size,
        max_memory=max_memory,
        slice_axis=slice_axis,
        region=region,
        mask=mask,
        resampled=resampled,
    )

    def augmented(predictor: Predictor) -> Predictor:
        if tta is None:
            return predictor
        if not isinstance(predictor, SlicePredictor):
            return AugmentedPredictor(predictor, tta, job.grid.tile)
        plane = job.grid.tile[: predictor.slice_axis] + job.grid.tile[predictor.slice_axis + 1 :]
        return predictor.mapped(lambda model: AugmentedPredictor(model, tta, plane))

    if not frozen or not hasattr(model, "predict_on_batch"):
        return replace(job, predictor=augmented(job.predictor))

    def settle(batch_size: int, shrink: bool, progress: Progress | None) -> Predictor:
        while True:
            try:
                context = _calibrated(
                    model,
                    job.source,
                    exact=exact_context,
                    tile=tile,
                    halo=halo,
                    batch_size=batch_size,
                    progress=progress,
                )
                break
            except BatchTooLargeError:
                if not shrink:
                    raise
            batch_size //= 2
        return augmented(predictor.with_context(context))  # type: ignore[attr-defined]

    return replace(
        job, predictor=augmented(job.predictor), exact_context=exact_context, settle=settle
    )


def calibrate(
    model: Any,
    scan: Scan,
    *,
    exact: bool = False,
    tile: Sides | None = None,
    halo: Sides = 0,
    batch_size: int = DEFAULT_BATCH,
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Measure what a model with frozen context takes as its input ``context``.

    Streams the scan through the network, once for all blocks. :func:`~segfocal.predict` does
    it by itself for ``global_context="frozen"``.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one; its context is frozen for
            this if it is not yet.
        scan: An open scan.
        exact: Measure block after block, a pass for each, with a halo of the receptive field:
            the result then does not depend on the tiles. Otherwise each block's mean is taken
            while the blocks before it use the mean of their tile.
        tile: Side lengths of a tile in pixels, halo included; with ``exact`` without the halo.
            Left out: what the model was trained on, else 512 for scenes and 96 for volumes.
        halo: Pixels at each side of a tile that do not count; with ``exact`` it is known.
        batch_size: Tiles per call of the network.
        resample, interpolation: See :func:`~segfocal.stream`.
        progress: Called with tiles done and tiles in all, over all passes.

    Returns:
        ``(context_size,)`` float32: for each block the mean of its last context, over the valid
        positions of the scan.

    Raises:
        ModelError, ChannelError, GeometryError: The model does not fit the scan, or the tile
            does not fit the model.
        MemoryError: A batch does not fit into memory.
    """
    model = in_context(model, "frozen")
    source = at_model_resolution(model.card, scan, resample, interpolation) or scan
    return _calibrated(
        model,
        source,
        exact=exact,
        tile=tile,
        halo=halo,
        batch_size=batch_size,
        progress=progress,
    )


def _calibrated(
    model: Any,
    scan: Scan,
    *,
    exact: bool,
    tile: Sides | None,
    halo: Sides,
    batch_size: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    """Measure a model with frozen context on a scan, in the scan's own pixels."""
    if exact and model.card.ndim == len(scan.shape):
        tile, halo = _exact_tiles(model, scan, tile)
        batch_size = 1
    job = prepare(
        as_predictor(model),
        scan,
        tile=tile,
        overlap=0,
        halo=halo,
        blend="constant",
        batch_size=batch_size,
    )
    # By the numbers of the scan itself, as its tiles are.
    original = scan.scan if isinstance(scan, ResampledScan) else scan
    return measure_context(
        model,
        scan,
        job.grid,
        exact=exact,
        channels=job.channels,
        valid_when=job.valid_when,
        fill=job.fill,
        normalize=replace(job, scan=original).measured_normalization(),
        batch_size=batch_size,
        progress=progress,
    )


def _exact_tiles(model: Any, scan: Scan, tile: Sides | None) -> tuple[list[int], list[int]]:
    """Return tile and halo per axis with which the means do not depend on the tile.

    An axis that a tile with its halo would cover mostly is taken as a whole, without a halo.
    Which axes these are depends on scan and model alone.
    """
    from segfocal.models.receptive_field import receptive_field

    ndim, stride = len(scan.shape), model.output_stride
    kept = axis_sides(tile or model.card.tile or DEFAULT_TILE[ndim], ndim, "tile")
    tiles, halos = [], []
    for side, reach, length in zip(kept, receptive_field(model), scan.shape, strict=True):
        halo, whole = stride * -(-reach // stride), stride * -(-length // stride)
        small = whole <= 4 * halo
        tiles.append(whole if small else side + 2 * halo)
        halos.append(0 if small else halo)
    return tiles, halos
