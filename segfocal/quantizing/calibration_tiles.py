"""Tiles of the user's scans: some to calibrate with, others to compare on.

They are tiles that :func:`~segfocal.predict` would run, made by its own job: of the same grid,
resampled, normalized and filled alike; of a volume and a model of two axes they are slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.engine.job import Job, Sides
from segfocal.engine.predictors import Predictor
from segfocal.engine.resolution import Resample
from segfocal.engine.slices import SlicePredictor
from segfocal.errors import ScanError
from segfocal.io import ScanPath
from segfocal.prepared import prepared_job

__all__ = ["Tile", "TileSample", "sample_tiles"]

Tile = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values ``(*tile, channels)`` and valid ``(*tile,)``."""

_GOLDEN = 0.618034
"""Its multiples, less their whole part, are spread evenly however many they are."""


@dataclass(frozen=True)
class TileSample:
    """Tiles spread evenly over scans.

    Attributes:
        calibration: Tiles to calibrate with.
        comparison: Tiles between them, to compare on; the same where there is only one.
        held_out: Whether they are others.
    """

    calibration: list[Tile]
    comparison: list[Tile]
    held_out: bool


def sample_tiles(
    predictor: Predictor,
    scans: Sequence[ScanPath],
    tile: Sides | None,
    count: int,
    resample: Resample = "auto",
) -> TileSample:
    """Read at most ``count`` tiles to calibrate with, and as many to compare on.

    No more scans are opened than tiles are wanted, and no tiles held but those that are returned.

    Args:
        predictor: The model, with a card.
        scans: Paths of scans.
        tile: Side lengths in pixels; left out, the model's.
        count: Tiles to calibrate with, over all scans.
        resample: See :func:`~segfocal.stream`.

    Raises:
        ScanError: No tile has a valid pixel.
        ChannelError, GeometryError: A scan does not fit the model.
    """
    wanted = 2 * count
    chosen = [scans[place] for place in _middles(len(scans), wanted)]
    found: list[Tile] = []
    for done, path in enumerate(chosen):
        # What a scan lacks is taken from those after it.
        due = -(-(wanted - len(found)) // (len(chosen) - done))
        found += _spread(predictor, path, tile, due, resample)
    if not found:
        looked_at = "" if len(chosen) == len(scans) else f" ({len(chosen)} of {len(scans)} read)"
        raise ScanError(
            f"no tile of the scans has a valid pixel{looked_at}; expected scans with data"
        )
    calibration, comparison = found[::2], found[1::2]
    return TileSample(calibration, comparison or calibration, bool(comparison))


def _middles(length: int, count: int) -> list[int]:
    """Return up to ``count`` places, evenly over a list of a length."""
    count = min(length, count)
    return [(2 * k + 1) * length // (2 * count) for k in range(count)]


def _spread(
    predictor: Predictor, path: ScanPath, tile: Sides | None, count: int, resample: Resample
) -> list[Tile]:
    """Return up to ``count`` tiles with a valid pixel, spread over a scan."""
    found = []
    with prepared_job(predictor, path, tile=tile, resample=resample) as (job, _):
        tiles = _NetworkTiles(job)
        for share in _shares(len(tiles), count):
            one = next((one for one in map(tiles.read, share) if one[1].any()), None)
            if one is not None:
                found.append(one)
    return found


def _shares(length: int, count: int) -> Iterator[Iterator[int]]:
    """Yield parts of ``range(length)``, each in an order to look for one place in it.

    Each begins elsewhere within the part, as tiles at equal distances could all lie in one column.
    """
    count = min(length, count)
    for k in range(count):
        start, stop = k * length // count, (k + 1) * length // count
        first = start + int((0.5 + k * _GOLDEN) % 1 * (stop - start))
        yield itertools.chain(range(first, stop), range(start, first))


class _NetworkTiles:
    """What the network gets of a scan, in the order of the sweep.

    Tiles of the job's grid; of a model of two axes on a volume each slice of them.

    Args:
        job: The job of a prediction.
    """

    def __init__(self, job: Job) -> None:
        self._among, self._axis = list(job.contributing), job.scan.slow_axis
        self._among.insert(0, self._among.pop(self._axis))
        self._read = job.tile_reader()
        self._slices = job.predictor if isinstance(job.predictor, SlicePredictor) else None
        self._depth = 1 if self._slices is None else job.grid.axes[self._slices.slice_axis].kept
        self._stack: tuple[int, list[Tile]] = (-1, [])

    def __len__(self) -> int:
        return int(np.prod([len(along) for along in self._among])) * self._depth

    def read(self, place: int) -> Tile:
        """Return one of them."""
        number, at = divmod(place, self._depth)
        if self._slices is None:
            return self._tile(number)
        if number != self._stack[0]:
            values, valid = self._tile(number)
            pairs = self._slices.slices(values[None], valid[None])
            self._stack = (number, [(image[0], usable[0]) for image, usable in pairs])
        image, usable = self._stack[1][at]
        return image.copy(), usable.copy()  # a view would keep the whole stack

    def _tile(self, number: int) -> Tile:
        steps = np.unravel_index(number, [len(along) for along in self._among])
        index = [along[int(step)] for along, step in zip(self._among, steps, strict=True)]
        index.insert(self._axis, index.pop(0))
        return self._read(tuple(index))
