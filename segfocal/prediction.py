"""Prediction: tiled inference over scans of any size.

:func:`predict` goes from path to path, :func:`stream` gives probabilities as they become
final, :func:`predict_array` is the same engine for things that fit in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.card import Card
from segfocal.data.channels import match_channels
from segfocal.engine.predictors import Predictor, as_predictor
from segfocal.engine.sweep import FinishedRows, Progress, sweep
from segfocal.errors import GeometryError, ModelError, OutputError, ScanError
from segfocal.io import MemoryScan, PendingOutput, Scan, open_label_writer, open_scan
from segfocal.tiling import TileGrid
from segfocal.types import Window

__all__ = ["Prediction", "predict", "predict_array", "stream"]

DEFAULT_TILE = {2: 512, 3: 96}
DEFAULT_BATCH = 4

Sides = int | Sequence[int]


@dataclass(frozen=True)
class Prediction:
    """What a finished prediction was.

    Attributes:
        output: The label file.
        shape: Spatial shape in pixels, canonical orientation.
        tiles: Tiles of the grid.
        seconds: Wall time.
        class_pixels: Pixels per class index.
        invalid_pixels: Pixels without a label because the scan has no data there.
    """

    output: Path
    shape: tuple[int, ...]
    tiles: int
    seconds: float
    class_pixels: tuple[int, ...]
    invalid_pixels: int


def stream(
    model: Any,
    scan: Scan,
    *,
    tile: Sides | None = None,
    overlap: Sides | None = None,
    halo: Sides = 0,
    blend: Blend = "gaussian",
    batch_size: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Yield class probabilities of a scan in stretches of finished rows.

    Args:
        model: A :class:`~segfocal.FocalUNet`, the path of one, a predictor, or any function
            from a batch of tiles ``(batch, *tile, channels)`` to probabilities
            ``(batch, *tile, classes)``.
        scan: An open scan.
        tile: Side lengths of a tile in pixels, halo included. Left out: what the model was
            trained on, else 512 for scenes and 96 for volumes.
        overlap: Pixels blended between neighbours. Left out: a quarter of the tile, rounded
            up to a multiple of the network's output_stride (32).
        halo: Pixels at each side of a tile that are computed and dropped.
        blend: ``"gaussian"``, ``"hann"``, ``"linear"`` or ``"constant"``.
        batch_size: Tiles per call of the model. Changes speed and memory; the result at most
            by the rounding of the model's own arithmetic.
        progress: Called with tiles done and tiles in all; raise in it to cancel.

    Yields:
        A window and its probabilities ``(*sides, classes)`` float32, NaN where the scan has
        no valid pixel. Windows partition the scan.

    Raises:
        ModelError, ChannelError, GeometryError: The model does not fit the scan, or the tile
            does not fit the model.
    """
    # Not a generator itself: arguments are checked before the first stretch is asked for.
    stretches = _sweep(as_predictor(model), scan, tile, overlap, halo, blend, batch_size, progress)
    return _with_nan(stretches)


def _with_nan(stretches: Iterator[FinishedRows]) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    for rows in stretches:
        rows.probabilities[~rows.valid] = np.nan
        yield rows.window, rows.probabilities


def predict(
    model: Any,
    input: str | Path,
    output: str | Path,
    *,
    tile: Sides | None = None,
    overlap: Sides | None = None,
    halo: Sides = 0,
    blend: Blend = "gaussian",
    batch_size: int = DEFAULT_BATCH,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Segment a scan file and write a label map on the same grid.

    The output appears under its name only when it is complete and has been read back. It
    holds the card's class values; pixels where the scan has no data are nodata (255, or
    65535 with class values of 255 and above; volumes: 0).

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one.
        input: A scene or volume: anything rasterio or nibabel opens.
        output: ``.tif`` for scenes, ``.nii`` or ``.nii.gz`` for volumes.
        tile, overlap, halo, blend, batch_size, progress: See :func:`stream`.
        overwrite: Replace an existing output.

    Raises:
        ModelError, ScanError, ChannelError, GeometryError, OutputError: See the messages;
            nothing is written then.
    """
    started = time.monotonic()
    _refuse_to_replace_input(input, Path(output))
    with PendingOutput(Path(output), overwrite=overwrite) as pending:
        predictor = as_predictor(model)
        card = _card_of(predictor)
        with open_scan(input, orientation=card.orientation or "RAS") as scan:
            values = card.class_values
            counts = np.zeros(card.num_classes, np.int64)
            invalid = 0
            grid = _grid(predictor, scan, tile, overlap, halo)
            writer = open_label_writer(pending, scan, card)
            stretches = _sweep(predictor, scan, tile, overlap, halo, blend, batch_size, progress)
            for rows in stretches:
                index = rows.probabilities.argmax(-1)
                counts += np.bincount(index[rows.valid], minlength=card.num_classes)
                invalid += int((~rows.valid).sum())
                labels = np.where(rows.valid, values[index], writer.nodata)
                writer.write(rows.window, labels.astype(writer.dtype))
            writer.finish()
            shape = scan.shape
        pending.commit()
    return Prediction(
        output=Path(output),
        shape=shape,
        tiles=len(grid),
        seconds=time.monotonic() - started,
        class_pixels=tuple(counts.tolist()),
        invalid_pixels=invalid,
    )


def predict_array(
    model: Any,
    array: NDArray[np.generic],
    *,
    valid: NDArray[np.bool_] | None = None,
    tile: Sides | None = None,
    overlap: Sides | None = None,
    halo: Sides = 0,
    blend: Blend = "gaussian",
    batch_size: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> NDArray[np.int32]:
    """Segment an array in memory.

    Args:
        model: See :func:`stream`.
        array: ``(rows, cols, channels)`` or ``(planes, rows, cols, channels)``. NaN is
            invalid.
        valid: Which pixels can be used, ``array.shape[:-1]``; all when left out.
        tile, overlap, halo, blend, batch_size, progress: See :func:`stream`.

    Returns:
        Class values (class indices for a plain function), ``array.shape[:-1]``; -1 where
        the array is not valid.
    """
    predictor = as_predictor(model)
    with MemoryScan(array, valid=valid) as scan:
        labels = np.empty(scan.shape, np.int32)
        for rows in _sweep(predictor, scan, tile, overlap, halo, blend, batch_size, progress):
            index = rows.probabilities.argmax(-1)
            found = index if predictor.card is None else predictor.card.class_values[index]
            labels[rows.window] = np.where(rows.valid, found, -1)
    return labels


def _sweep(
    predictor: Predictor,
    scan: Scan,
    tile: Sides | None,
    overlap: Sides | None,
    halo: Sides,
    blend: Blend,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[FinishedRows]:
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
    return sweep(
        scan,
        predictor,
        grid,
        channels=channels,
        valid_when=valid_when,
        fill=fill,
        blend=blend,
        batch_size=batch_size,
        progress=progress,
    )


def _refuse_to_replace_input(source: str | Path, output: Path) -> None:
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise OutputError(f"{output}: is the scan itself; expected another path for its labels")


def _card_of(predictor: Predictor) -> Card:
    if predictor.card is None:
        raise ModelError(
            "a plain function has no class values to write; expected a segfocal model, or use "
            "segfocal.stream and write its probabilities yourself"
        )
    return predictor.card


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
    tiles, halos = _sides(tile, ndim, "tile"), _sides(halo, ndim, "halo")
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
        overlap=_sides(overlap, ndim, "overlap"),
        output_stride=stride,
    )


def _sides(value: Sides, ndim: int, what: str) -> tuple[int, ...]:
    sides = (value,) * ndim if isinstance(value, int) else tuple(int(side) for side in value)
    if len(sides) != ndim:
        raise GeometryError(
            f"{what} {sides} has {len(sides)} numbers; expected one or {ndim}, one per axis"
        )
    return sides
