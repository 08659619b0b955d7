"""A job: everything that is settled before the first tile is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.data.channels import match_channels
from segfocal.engine.fingerprint import Fingerprint, library_versions, processor
from segfocal.engine.forward import Forward
from segfocal.engine.identity import ModelIdentity
from segfocal.engine.memory import parse_bytes, peak_bytes
from segfocal.engine.predictors import Predictor
from segfocal.engine.strips import NEVER_CUT_BELOW, plan_strips, strip_bytes
from segfocal.engine.sweep import FinishedRows, Progress, sweep
from segfocal.errors import GeometryError, ScanError
from segfocal.io.base import Scan
from segfocal.io.identity import format_versions
from segfocal.tiling import TileGrid
from segfocal.types import Window, full_window

__all__ = ["DEFAULT_BATCH", "DEFAULT_TILE", "Job", "Sides", "axis_sides", "prepare"]

DEFAULT_TILE = {2: 512, 3: 96}
DEFAULT_BATCH = 4
MANY_CLASSES = 256

OTHER_BYTES = 160 * 2**20
"""What reading and writing take besides: GDAL's block cache, blocks of the output, chunks."""

Sides = int | Sequence[int]

Settle = Callable[[int, bool, Progress | None], Predictor]
"""Makes a predictor ready: batch size, whether it may be made smaller, progress."""


@dataclass(frozen=True)
class Job:
    """A predictor, a scan and how to go over it.

    Attributes:
        predictor: The model.
        scan: The open scan.
        grid: Tiles that cover it.
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
        settle: Makes the predictor ready before the first tile; None: it is.
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
    settle: Settle | None = None

    def sweep(
        self,
        progress: Progress | None = None,
        wanted: Callable[[Window], bool] | None = None,
    ) -> Iterator[FinishedRows]:
        """Yield finished rows; see :func:`segfocal.engine.sweep.sweep`.

        A frozen network is given the means of the scan first: ``progress`` then counts that
        pass before it counts this one.
        """
        if self.settle is not None:
            return self._settled_sweep(self.settle, progress, wanted)
        return sweep(
            self.scan,
            self.predictor,
            self.grid,
            channels=self.channels,
            valid_when=self.valid_when,
            fill=self.fill,
            blend=self.blend,
            batch_size=self.batch_size,
            shrink=not self.batch_matters,
            strips=self._strips(),
            wanted=wanted,
            progress=progress,
        )

    def _settled_sweep(
        self,
        settle: Settle,
        progress: Progress | None,
        wanted: Callable[[Window], bool] | None,
    ) -> Iterator[FinishedRows]:
        predictor = settle(self.batch_size, not self.batch_matters, progress)
        yield from replace(self, predictor=predictor, settle=None).sweep(progress, wanted)

    def _strips(self) -> list[Window]:
        axis, whole = self.scan.slow_axis, full_window(self.grid.shape)
        card = self.predictor.card
        if self.max_memory is None:
            if strip_bytes(self.grid, axis, whole, MANY_CLASSES) <= NEVER_CUT_BELOW:
                return [whole]  # without the call that it may take to learn the classes
            num_classes = self._learn_classes() if card is None else card.num_classes
            return plan_strips(self.grid, axis, num_classes, kept_bytes=self.kept_bytes)
        # A call first, to see what the network takes.
        num_classes, taken = peak_bytes(self._learn_classes)
        limit = self.max_memory - taken - self._tile_bytes(num_classes) - OTHER_BYTES
        return plan_strips(self.grid, axis, num_classes, limit, self.kept_bytes)

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
        return pixels * (3 * (4 * self._num_channels + 1) + 4 * num_classes)

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
        return {**sides, "blend": self.blend, "channels": channels, **context, **batch}

    def fingerprint(
        self, model: ModelIdentity, source: dict[str, Any], outputs: dict[str, Any]
    ) -> Fingerprint:
        """Return what the result follows from.

        Args:
            model: Identity of the predictor.
            source: Identity of the scan.
            outputs: Kind of each file that is written.
        """
        return Fingerprint(
            {
                "input": source,
                "model": model.hash,
                "engine": model.engine,
                "processor": processor(),
                "parameters": self.parameters,
                "outputs": outputs,
                "versions": library_versions(format_versions(len(self.scan.shape))),
            }
        )


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
) -> Job:
    """Match a scan to a model and lay out its tiles; see :func:`segfocal.stream`.

    Raises:
        ScanError, ChannelError, GeometryError: Model, scan and numbers do not go together.
    """
    if batch_size < 1:
        raise GeometryError(f"batch_size {batch_size}; expected at least 1")
    grid = _grid(predictor, scan, tile, overlap, halo)
    channels, valid_when, fill = None, "all", None
    if predictor.card is not None:
        card = predictor.card
        names = [channel.name for channel in card.channels]
        channels = match_channels(scan, names, by_name=card.named_channels)
        valid_when = card.valid_when
        fill = np.array([channel.mean for channel in card.channels], np.float32)
    limit = None if max_memory is None else parse_bytes(max_memory)
    job = Job(
        predictor, scan, grid, channels, valid_when, fill, blend, batch_size, max_memory=limit
    )
    while limit is not None and job.batch_size > 1 and job._tile_bytes(1) > limit // 4:
        job = replace(job, batch_size=job.batch_size // 2)
    return job


def _grid(
    predictor: Predictor, scan: Scan, tile: Sides | None, overlap: Sides | None, halo: Sides
) -> TileGrid:
    ndim = len(scan.shape)
    if predictor.ndim not in (None, ndim):
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
    return TileGrid.cover(
        scan.shape,
        tiles,
        halo=halos,
        overlap=axis_sides(overlap, ndim, "overlap"),
        output_stride=stride,
    )


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
