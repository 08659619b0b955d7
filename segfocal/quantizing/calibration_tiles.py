"""Tiles of the user's scans: some to calibrate with, others to compare on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.engine.job import Sides, prepare
from segfocal.engine.predictors import Predictor
from segfocal.engine.tiles import read_tile
from segfocal.errors import ScanError
from segfocal.io import ScanPath, open_scan

__all__ = ["Tile", "TileSample", "sample_tiles"]

Tile = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values ``(*tile, channels)`` and valid ``(*tile,)``."""


@dataclass(frozen=True)
class TileSample:
    """Tiles spread evenly over scans.

    Attributes:
        calibration: Tiles to calibrate with.
        comparison: Tiles between them, to compare on; the same where there is only one.
    """

    calibration: list[Tile]
    comparison: list[Tile]


def sample_tiles(
    predictor: Predictor, scans: Sequence[ScanPath], tile: Sides | None, count: int
) -> TileSample:
    """Read about ``count`` tiles to calibrate with, and as many to compare on.

    Args:
        predictor: The model, with a card.
        scans: Paths of scans.
        tile: Side lengths in pixels; left out, the model's.
        count: Tiles to calibrate with, over all scans.

    Raises:
        ScanError: No tile has a valid pixel.
        ChannelError, GeometryError: A scan does not fit the model.
    """
    share = 2 * -(-count // len(scans))
    found = [one for path in scans for one in _spread(predictor, path, tile, share)]
    if not found:
        raise ScanError("no tile of the scans has a valid pixel; expected scans with data")
    calibration, comparison = found[::2][:count], found[1::2][:count]
    return TileSample(calibration, comparison or calibration)


def _spread(predictor: Predictor, path: ScanPath, tile: Sides | None, count: int) -> list[Tile]:
    orientation = (predictor.card.orientation if predictor.card else None) or "RAS"
    with open_scan(path, orientation=orientation) as scan:
        job = prepare(
            predictor, scan, tile=tile, overlap=None, halo=0, blend="constant", batch_size=1
        )
        places = np.unique(np.linspace(0, len(job.grid) - 1, count).round().astype(int)).tolist()
        wanted = iter(places)
        following = next(wanted, None)
        found = []
        for place, index in enumerate(job.grid.tiles(scan.slow_axis)):
            if place != following:
                continue
            following = next(wanted, None)
            one = read_tile(scan, job.grid, index, job.channels, job.valid_when, job.fill)
            if one[1].any():
                found.append(one)
            if following is None:
                break
    return list(itertools.islice(found, count))
