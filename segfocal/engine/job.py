"""A job: everything that is settled before the first tile is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.card import Normalization
from segfocal.data.channels import match_channels
from segfocal.data.normalize import ScanNormalization, measure_normalization
from segfocal.engine.cleaning import Cleaning, cleaning_parameters
from segfocal.engine.fingerprint import Fingerprint, library_versions, processor
from segfocal.engine.forward import Forward
from segfocal.engine.identity import ModelIdentity
from segfocal.engine.memory import parse_bytes, peak_bytes
from segfocal.engine.model_grid import MODEL_GRID_BYTES, ModelGrid, output_strips
from segfocal.engine.predictors import Predictor
from segfocal.engine.region import Mask, checked_region, needed_in
from segfocal.engine.slices import SliceAxis, SlicePredictor, slice_axis_of
from segfocal.engine.strips import NEVER_CUT_BELOW, plan_strips, strip_bytes
from segfocal.engine.sweep import Progress, Stretches, sweep
from segfocal.engine.tiles import read_tile
from segfocal.errors import GeometryError, ScanError
from segfocal.io import crop
from segfocal.io.base import Scan
from segfocal.io.identity import format_versions
from segfocal.io.resampling import ResampledScan
from segfocal.tiling import TileGrid, TileIndex
from segfocal.types import Window, full_window

__all__ = ["DEFAULT_BATCH", "DEFAULT_TILE", "Job", "Sides", "TileReader", "axis_sides", "prepare"]

DEFAULT_TILE = {2: 512, 3: 96}
DEFAULT_BATCH = 4
MANY_CLASSES = 256

OTHER_BYTES = 160 * 2**20
"""What reading and writing take besides: GDAL's block cache, blocks of the output, chunks."""

Sides = int | Sequence[int]

Settle = Callable[[int, bool, Progress | None], Predictor]
"""Makes a predictor ready: batch size, whether it may be made smaller, progress."""

TileReader = Callable[[TileIndex], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""Reads a tile: values ``(*tile, channels)`` and valid ``(*tile,)``."""


@dataclass(frozen=True)
class Job:
    """A predictor, a scan and how to go over it.

    Attributes:
        predictor: The model.
        scan: The open scan.
        grid: Tiles that cover it, or the resampled scan.
        channels: Indices of the scan's channels in the model's order; None for all.
        valid_when: Whether a pixel needs ``"all"`` or ``"any"`` channels valid.
        fill: Value per channel for what is not valid; None for 0.
        blend: Weights of overlapping tiles.
        batch_size: Tiles per call of the model.
        batch_matters: Whether results may differ in the last bits with the batch size, and
            the batch must therefore stay as it is.
        max_memory: Bytes that the process may take, or None.
        kept_bytes: Bytes per pixel of what is written besides labels.
        exact_context: How the means of a frozen network are measured.
        normalizations: How each channel is normalized with the scan's own numbers, if at all.
        cleaning: Steps that change the finished label map.
        settle: Makes the predictor ready before the first tile; None: it is.
        region: The part of the scan that is segmented; None: all of it.
        mask: Which pixels of it get a label; None: all that have data.
        resampled: The scan at the model's resolution, which is what tiles are read from; None:
            from the scan itself.
    """

    predictor: Predictor
    scan: Scan
    grid: TileGrid
    channels: tuple[int, ...] | None
    valid_when: str
    fill: NDArray[np.float32] | None
    blend: Blend
    batch_size: int
    batch_matters: bool = False
    max_memory: int | None = None
    kept_bytes: int = 0
    exact_context: bool = False
    normalizations: tuple[Normalization | None, ...] = ()
    cleaning: tuple[Cleaning, ...] = ()
    settle: Settle | None = None
    region: Window | None = None
    mask: Mask | None = None
    resampled: ResampledScan | None = None

    @property
    def source(self) -> Scan:
        """What tiles are read from."""
        return self.scan if self.resampled is None else self.resampled

    def _model_grid(self, within: Window | None = None) -> ModelGrid | None:
        if self.resampled is None:
            return None
        return ModelGrid(
            self.scan,
            self.resampled.back,
            self.scan.slow_axis,
            self.covered if within is None else within,
            self.channels,
            self.valid_when,
            self.kept_bytes,
        )

    def _swept(self, within: Window | None = None) -> Window:
        """Return what is swept, in pixels that tiles are made of."""
        model_grid = self._model_grid(within)
        if model_grid is not None:
            return model_grid.region
        return self.covered if within is None else within

    @property
    def covered(self) -> Window:
        """What is segmented, in pixels of the scan: the region, or all of it."""
        return full_window(self.scan.shape) if self.region is None else self.region

    @property
    def target(self) -> Scan:
        """A scan on the grid of the output: the scan, or a region of it seen as one."""
        return self.scan if self.region is None else crop(self.scan, self.region)

    @property
    def tiles(self) -> int:
        """Tiles of the grid that contribute to what is segmented."""
        return math.prod(len(along) for along in self.contributing)

    @property
    def contributing(self) -> tuple[range, ...]:
        """The same per axis: which tiles of the grid these are."""
        return self.grid.touching(self._swept())

    def tile_reader(self) -> TileReader:
        """Return what reads a tile of the grid as the sweep gives it to the predictor.

        What the scan is normalized with is measured now. The sweep leaves tiles out that have no
        valid pixel.
        """
        return partial(read_tile, self.source, self.grid, **self._reading())

    def sweep(
        self,
        progress: Progress | None = None,
        wanted: Callable[[Window], bool] | None = None,
        within: Window | None = None,
    ) -> Stretches:
        """Yield finished rows; see :func:`segfocal.engine.sweep.sweep`.

        They partition what is segmented, and their windows are in pixels of the scan. A frozen
        network is given the means of the scan first: ``progress`` then counts that pass before it
        counts this one. What the scan is normalized with is measured before.

        ``within`` is a part of what is segmented, to which the sweep keeps. Of a scan that is not
        resampled it is uncut along the swept axis. What is found there is the same.
        """
        if self.settle is not None:
            return self._settled_sweep(self.settle, progress, wanted, within)
        strips, needed = self._strips(within), needed_in(self.mask)
        model_grid = self._model_grid(within)
        if model_grid is None:
            stretches = self._stretches(strips, wanted, needed, progress)
        else:
            pairs = output_strips(model_grid, strips)
            found = self._stretches(
                [strip for strip, _ in pairs],
                model_grid.asked_of(wanted),
                model_grid.asked_of(needed),
                progress,
            )
            stretches = model_grid.bring_back(found, pairs, wanted)
        return stretches if self.mask is None else _masked(stretches, self.mask)

    def _stretches(
        self,
        strips: Sequence[Window],
        wanted: Callable[[Window], bool] | None,
        needed: Callable[[Window], bool] | None,
        progress: Progress | None,
    ) -> Stretches:
        """Sweep what tiles are read from."""
        return sweep(
            self.source,
            self.predictor,
            self.grid,
            **self._reading(),
            blend=self.blend,
            batch_size=self.batch_size,
            shrink=not self.batch_matters,
            strips=strips,
            wanted=wanted,
            needed=needed,
            progress=progress,
        )

    def _reading(self) -> dict[str, Any]:
        """Return how tiles are read: what ``sweep`` and ``read_tile`` have in common."""
        return {
            "channels": self.channels,
            "valid_when": self.valid_when,
            "fill": self.fill,
            "normalize": self.measured_normalization(),
        }

    def measured_normalization(self) -> ScanNormalization | None:
        """Return what the scan is normalized with, measured anew; None: nothing."""
        if not any(self.normalizations):
            return None
        return measure_normalization(self.scan, self.normalizations, self.channels)

    def _settled_sweep(
        self,
        settle: Settle,
        progress: Progress | None,
        wanted: Callable[[Window], bool] | None,
        within: Window | None,
    ) -> Stretches:
        predictor = settle(self.batch_size, not self.batch_matters, progress)
        yield from replace(self, predictor=predictor, settle=None).sweep(progress, wanted, within)

    def _strips(self, within: Window | None = None) -> list[Window]:
        axis, whole = self.scan.slow_axis, self._swept(within)
        # Rows of the output are few at a time where they are not the model's.
        kept_bytes = self.kept_bytes if self.resampled is None else 0
        card = self.predictor.card
        if self.max_memory is None:
            if strip_bytes(self.grid, axis, whole, MANY_CLASSES) <= NEVER_CUT_BELOW:
                return [whole]  # without the call that it may take to learn the classes
            num_classes = self._learn_classes() if card is None else card.num_classes
            return plan_strips(self.grid, axis, num_classes, kept_bytes=kept_bytes, region=whole)
        # A call first, to see what the network takes.
        num_classes, taken = peak_bytes(self._learn_classes)
        limit = self.max_memory - taken - self._tile_bytes(num_classes) - OTHER_BYTES
        limit -= getattr(self.scan, "remembered_bytes", 0)
        if self.resampled is not None:
            limit -= MODEL_GRID_BYTES
        return plan_strips(self.grid, axis, num_classes, limit, kept_bytes, whole)

    def _learn_classes(self) -> int:
        forward = Forward(
            self.predictor,
            self.grid.tile,
            self._num_channels,
            self.batch_size,
            shrink=not self.batch_matters,
        )
        return forward.num_classes()

    @property
    def _num_channels(self) -> int:
        return len(self.scan.channels if self.channels is None else self.channels)

    def _tile_bytes(self, num_classes: int) -> int:
        """Return what the tiles on their way take: read ahead, run, and run through."""
        pixels = self.batch_size * math.prod(self.grid.tile)
        beside = getattr(self.predictor, "any_thread", False)
        return pixels * (
            (3 + beside) * (4 * self._num_channels + 1) + (1 + beside) * 4 * num_classes
        )

    def with_smaller_batches(self) -> Iterator[Job]:
        """Yield the job itself and, where the batch matters, ones with half the batch each."""
        yield self
        if self.batch_matters and self.batch_size > 1:
            yield from replace(self, batch_size=self.batch_size // 2).with_smaller_batches()

    @property
    def parameters(self) -> dict[str, Any]:
        """What the result follows from besides scan and model, as a JSON value."""
        sides = {
            what: [getattr(axis, what) for axis in self.grid.axes]
            for what in ("tile", "overlap", "halo")
        }
        channels = None if self.channels is None else list(self.channels)
        batch = {"batch_size": self.batch_size} if self.batch_matters else {}
        averaged = getattr(self.predictor, "global_context", None)
        context: dict[str, Any] = {} if averaged is None else {"global_context": averaged}
        if averaged == "frozen":
            context["exact_context"] = self.exact_context
        if any(self.normalizations):
            context["normalization"] = [
                None if one is None else one.model_dump(mode="json") for one in self.normalizations
            ]
        slice_axis = getattr(self.predictor, "slice_axis", None)
        if slice_axis is not None:
            context["slice_axis"] = slice_axis
        part: dict[str, Any] = {}
        if self.region is not None:
            part["region"] = [[side.start, side.stop] for side in self.region]
        if self.mask is not None:
            part["mask"] = self.mask.identity
        if self.resampled is not None:
            part["resampled"] = {
                "shape": list(self.resampled.shape),
                "orders": [axis.order for axis in self.resampled.maps],
                "orders_back": [axis.order for axis in self.resampled.back],
            }
        tta = getattr(self.predictor, "tta", None)
        if tta is not None:
            context["tta"] = tta
        cleaning = cleaning_parameters(self.cleaning)
        more = {**context, **part, **cleaning, **batch}
        return {**sides, "blend": self.blend, "channels": channels, **more}

    def fingerprint(
        self, model: ModelIdentity, source: dict[str, Any], outputs: dict[str, Any]
    ) -> Fingerprint:
        """Return what the result follows from.

        Args:
            model: Identity of the predictor.
            source: Identity of the scan.
            outputs: Kind of each file that is written.
        """
        versions = library_versions(format_versions(len(self.scan.shape)))
        if self.resampled is not None:
            versions["scipy"] = scipy.__version__
        return Fingerprint(
            {
                "input": source,
                "model": model.hash,
                "engine": model.engine,
                "processor": processor(),
                "parameters": self.parameters,
                "outputs": outputs,
                "versions": versions,
            }
        )


def _masked(stretches: Stretches, mask: Mask) -> Stretches:
    for rows in stretches:
        yield replace(rows, valid=rows.valid & mask(rows.window))


def prepare(
    predictor: Predictor,
    scan: Scan,
    *,
    tile: Sides | None,
    overlap: Sides | None,
    halo: Sides,
    blend: Blend,
    batch_size: int,
    max_memory: int | str | None = None,
    slice_axis: SliceAxis | int | None = None,
    region: Window | None = None,
    mask: Mask | None = None,
    resampled: ResampledScan | None = None,
) -> Job:
    """Match a scan to a model and lay out its tiles; see :func:`segfocal.stream`.

    Args:
        predictor: The model.
        scan: An open scan.
        tile, overlap, halo, blend, batch_size, max_memory: See :func:`segfocal.stream`.
        region: The part of the scan to segment, in its pixels; all when left out.
        mask: Which pixels get a label; all that have data when left out.
        resampled: The scan at the model's resolution. Tiles are made of its pixels; what is
            found is brought back to the pixels of the scan.

    Raises:
        ScanError, ChannelError, GeometryError: Model, scan and numbers do not go together.
    """
    if batch_size < 1:
        raise GeometryError(f"batch_size {batch_size}; expected at least 1")
    predictor = _for_slices(predictor, scan, slice_axis)
    grid = _grid(predictor, scan if resampled is None else resampled, tile, overlap, halo)
    channels, valid_when, fill = None, "all", None
    normalizations: tuple[Normalization | None, ...] = ()
    if predictor.card is not None:
        card = predictor.card
        names = [channel.name for channel in card.channels]
        channels = match_channels(scan, names, by_name=card.named_channels)
        valid_when, normalizations = card.valid_when, card.normalizations
        fill = getattr(predictor, "fill", None)
        if fill is None:
            fill = np.array([channel.mean for channel in card.channels], np.float32)
    limit = None if max_memory is None else parse_bytes(max_memory)
    if hasattr(scan, "remember_planes"):  # tiles are read row by row
        scan.remember_planes()
    job = Job(
        predictor,
        scan,
        grid,
        channels,
        valid_when,
        fill,
        blend,
        batch_size,
        max_memory=limit,
        normalizations=normalizations,
        region=checked_region(region, scan),
        mask=mask,
        resampled=resampled,
    )
    while limit is not None and job.batch_size > 1 and job._tile_bytes(1) > limit // 4:
        job = replace(job, batch_size=job.batch_size // 2)
    return job


def _grid(
    predictor: Predictor, scan: Scan, tile: Sides | None, overlap: Sides | None, halo: Sides
) -> TileGrid:
    slices = predictor if isinstance(predictor, SlicePredictor) else None
    ndim = len(scan.shape) if slices is None else 2
    if slices is None and predictor.ndim not in (None, ndim):
        raise ScanError(
            f"{scan.name}: has {ndim} spatial axes; the model works on {predictor.ndim}"
        )
    stride = predictor.output_stride
    card = predictor.card
    if tile is None:
        tile = card.tile if card is not None and card.tile else DEFAULT_TILE[ndim]
    tiles, halos = axis_sides(tile, ndim, "tile"), axis_sides(halo, ndim, "halo")
    if overlap is None:
        # The least multiple of the network's stride that is a quarter of the kept part, as
        # far as a tile of more than one such stride leaves room for it.
        overlap = [
            min(stride * -(-(side - 2 * drop) // (4 * stride)), max(0, side - 2 * drop - stride))
            for side, drop in zip(tiles, halos, strict=True)
        ]
    overlaps = axis_sides(overlap, ndim, "overlap")
    if slices is not None:
        return slices.grid(scan.shape, tiles, halos, overlaps)
    return TileGrid.cover(scan.shape, tiles, halo=halos, overlap=overlaps, output_stride=stride)


def _for_slices(predictor: Predictor, scan: Scan, slice_axis: SliceAxis | int | None) -> Predictor:
    """Return a predictor of three axes for a model of two on a volume."""
    volume = len(scan.shape) == 3
    if slice_axis is not None and (not volume or predictor.ndim == 3):
        what = "the scan is a scene" if not volume else "the model works on 3 axes"
        raise GeometryError(
            f"slice_axis {slice_axis!r} is for models of two axes on volumes; {what}: leave it out"
        )
    if volume and (predictor.ndim == 2 or slice_axis is not None):
        return SlicePredictor(predictor, slice_axis_of(scan, slice_axis))
    return predictor


def axis_sides(value: Sides, ndim: int, what: str) -> tuple[int, ...]:
    """Return one number per axis, from one for all or one for each.

    Raises:
        GeometryError: There are more or fewer.
    """
    sides = (value,) * ndim if isinstance(value, int) else tuple(int(side) for side in value)
    if len(sides) != ndim:
        raise GeometryError(
            f"{what} {sides} has {len(sides)} numbers; expected one or {ndim}, one per axis"
        )
    return sides
