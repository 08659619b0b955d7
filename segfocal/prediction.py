"""Prediction: tiled inference over scans of any size.

:func:`predict` goes from path to path, :func:`stream` gives probabilities as they become
final, :func:`predict_array` is the same engine for things that fit in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.card import Card
from segfocal.engine.contexts import in_context, prepare_calibrated
from segfocal.engine.job import DEFAULT_BATCH, Sides
from segfocal.engine.layers import Layers, ProbabilityType
from segfocal.engine.output import produce
from segfocal.engine.predictors import Predictor, as_predictor
from segfocal.engine.provenance import provenance_path, read_provenance
from segfocal.engine.sweep import FinishedRows, Progress
from segfocal.errors import ModelError, OutputError, OutputExistsError
from segfocal.io import MemoryScan, PendingOutput, Scan, open_scan
from segfocal.io.labels import Layout
from segfocal.types import Window

__all__ = ["Prediction", "predict", "predict_array", "stream"]


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
        sha256: Checksum of the label file, hexadecimal.
        fingerprint: Hash of everything that the label file follows from.
        unchanged: True when the output was finished already and nothing was done.
    """

    output: Path
    shape: tuple[int, ...]
    tiles: int
    seconds: float
    class_pixels: tuple[int, ...]
    invalid_pixels: int
    sha256: str
    fingerprint: str
    unchanged: bool


def stream(
    model: Any,
    scan: Scan,
    *,
    tile: Sides | None = None,
    overlap: Sides | None = None,
    halo: Sides = 0,
    blend: Blend = "gaussian",
    batch_size: int = DEFAULT_BATCH,
    max_memory: int | str | None = None,
    global_context: str | None = None,
    exact_context: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Yield class probabilities of a scan in stretches of finished rows.

    A stretch is as wide as the scan, or as a column strip of it when its rows would take more
    memory than they should.

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
            by the rounding of the model's own arithmetic. When a batch does not fit into
            memory, half of it is tried.
        max_memory: What the process may take in all: bytes, or text such as ``"4GB"``. Wide
            scans are then swept in narrower column strips, and batches are made smaller. Left
            out: strips of at most 1 GiB of rows being blended. Strips make no difference to the
            result; the tiles at a seam are run twice.
        global_context: What the network's last focal level averages: ``"tile"``, ``"local"``
            (a box of the training patch's size), ``"frozen"`` (measured once over the scan by a
            pass before the first tile, see :func:`~segfocal.calibrate`) or ``"none"``. Left
            out: as the model was made.
        exact_context: Measure frozen means block by block, a pass for each.
        progress: Called with tiles done and tiles in all; raise in it to cancel. A pass that
            measures frozen means is counted on its own, before.

    Yields:
        A window and its probabilities ``(*sides, classes)`` float32, NaN where the scan has
        no valid pixel. Windows partition the scan.

    Raises:
        ModelError, ChannelError, GeometryError: The model does not fit the scan, or the tile
            does not fit the model.
    """
    # Not a generator itself: arguments are checked before the first stretch is asked for.
    job = prepare_calibrated(
        in_context(model, global_context),
        scan,
        exact_context=exact_context,
        tile=tile,
        overlap=overlap,
        halo=halo,
        blend=blend,
        batch_size=batch_size,
        max_memory=max_memory,
    )
    return _with_nan(job.sweep(progress))


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
    max_memory: int | str | None = None,
    global_context: str | None = None,
    exact_context: bool = False,
    probabilities: ProbabilityType | None = None,
    uncertainty: bool = False,
    layout: Layout = "cog",
    overwrite: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Prediction:
    """Segment a scan file and write a label map on the same grid.

    The output appears under its name only when it is complete and has been read back. It
    holds the card's class values; pixels where the scan has no data are nodata (255, or
    65535 with class values of 255 and above; volumes: 0). Beside it comes a JSON file,
    ``OUTPUT.json``, which says what it was made from, its SHA-256, and how many pixels, and
    hectares or millilitres, show each class.

    What is finished is kept in a hidden folder beside the output, ``.OUTPUT.scratch``, until
    the output is complete. A run that was stopped or killed is continued by calling the same
    again, with the same bytes as the result; another model, input or parameter starts afresh.
    An output that is finished already is left as it is.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one.
        input: A scene or volume: anything rasterio or nibabel opens.
        output: ``.tif`` for scenes, ``.nii`` or ``.nii.gz`` for volumes.
        tile, overlap, halo, blend, batch_size, max_memory, global_context, exact_context,
        progress: See :func:`stream`.
        probabilities: Write the probabilities of a scene's classes too, to
            ``labels.probabilities.tif`` beside ``labels.tif``, a band per class: ``"float32"``
            with NaN where there is no data, or ``"uint8"``: 0 to 250 for 0 to 1, 255 for no
            data.
        uncertainty: Write the entropy of a scene's probabilities too, to
            ``labels.uncertainty.tif``: 0 where one class is certain, 1 where all are equal.
        layout: ``"cog"``: a cloud-optimised GeoTIFF with overviews; ``"gtiff"``: a tiled one
            without. Volumes have one layout only.
        overwrite: Replace an existing output.
        notice: Called with a line of text when a run is continued, starts afresh in spite of
            earlier results, or finds its output finished.

    Raises:
        ModelError, ScanError, ChannelError, GeometryError, OutputError: See the messages;
            nothing is at the destination then.
    """
    started = time.monotonic()
    output, tell = Path(output), notice or (lambda text: None)
    layers = Layers(probabilities, uncertainty)
    name = Path(model).name if isinstance(model, str | Path) else None
    pending = PendingOutput(output, overwrite=overwrite)
    _refuse_to_replace_input(input, output)
    earlier = read_provenance(output)
    _refuse_to_replace_stranger(output, earlier, overwrite)
    pending.overwrite = overwrite or earlier is not None  # it may be finished: seen below
    with pending:
        model = in_context(model, global_context)
        card = _card_of(as_predictor(model))
        with open_scan(input, orientation=card.orientation or "RAS") as scan:
            job = prepare_calibrated(
                model,
                scan,
                exact_context=exact_context,
                tile=tile,
                overlap=overlap,
                halo=halo,
                blend=blend,
                batch_size=batch_size,
                max_memory=max_memory,
            )
            provenance, unchanged = produce(
                pending,
                job,
                card,
                layers=layers,
                layout=layout,
                model_name=name,
                overwrite=overwrite,
                progress=progress,
                tell=tell,
            )
    result = provenance["result"]
    return Prediction(
        output=output,
        shape=tuple(result["shape"]),
        tiles=result["tiles"],
        seconds=time.monotonic() - started,
        class_pixels=tuple(label["pixels"] for label in result["classes"]),
        invalid_pixels=result["invalid_pixels"],
        sha256=provenance["sha256"],
        fingerprint=provenance["fingerprint"],
        unchanged=unchanged,
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
    global_context: str | None = None,
    exact_context: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.int32]:
    """Segment an array in memory.

    Args:
        model: See :func:`stream`.
        array: ``(rows, cols, channels)`` or ``(planes, rows, cols, channels)``. NaN is
            invalid.
        valid: Which pixels can be used, ``array.shape[:-1]``; all when left out.
        tile, overlap, halo, blend, batch_size, global_context, exact_context, progress: See
            :func:`stream`.

    Returns:
        Class values (class indices for a plain function), ``array.shape[:-1]``; -1 where
        the array is not valid.
    """
    model = in_context(model, global_context)
    with MemoryScan(array, valid=valid) as scan:
        labels = np.empty(scan.shape, np.int32)
        job = prepare_calibrated(
            model,
            scan,
            exact_context=exact_context,
            tile=tile,
            overlap=overlap,
            halo=halo,
            blend=blend,
            batch_size=batch_size,
        )
        for rows in job.sweep(progress):
            card = job.predictor.card
            found = (
                rows.probabilities.argmax(-1)
                if card is None
                else card.label_values(rows.probabilities)
            )
            labels[rows.window] = np.where(rows.valid, found, -1)
    return labels


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


def _refuse_to_replace_stranger(
    output: Path, earlier: dict[str, Any] | None, overwrite: bool
) -> None:
    beside = provenance_path(output)
    if earlier is None and beside.exists() and not overwrite:
        raise OutputExistsError(
            f"{beside}: exists already and is not of segfocal; it is where the provenance of "
            f"{output.name} goes: move it, choose another output, or pass --overwrite"
        )
