"""Prediction: tiled inference over scans of any size.

:func:`predict` goes from path to path, :func:`stream` gives probabilities as they become
final, :func:`predict_array` is the same engine for things that fit in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segfocal.blending import Blend
from segfocal.engine.averaging import TTA
from segfocal.engine.contexts import prepare_calibrated
from segfocal.engine.engines import Engine, in_engine
from segfocal.engine.job import DEFAULT_BATCH, Sides
from segfocal.engine.layers import Layers, ProbabilityType
from segfocal.engine.openvino_predictor import Precision
from segfocal.engine.output import produce
from segfocal.engine.piece_options import Classes
from segfocal.engine.polygons import polygons_of
from segfocal.engine.provenance import provenance_path, read_provenance
from segfocal.engine.replacing import is_same_file
from segfocal.engine.resolution import DEFAULT_INTERPOLATION, Resample
from segfocal.engine.slices import SliceAxis
from segfocal.engine.sweep import Progress, Stretches
from segfocal.errors import OutputError, OutputExistsError
from segfocal.io import MemoryScan, PendingOutput, Scan, ScanPath
from segfocal.io.labels import Layout
from segfocal.io.resampling import Interpolation
from segfocal.prepared import name_of_model, prepared_job
from segfocal.temperature import scaled
from segfocal.types import Window

if TYPE_CHECKING:
    from segfocal.io.area import Area

__all__ = ["Prediction", "predict", "predict_array", "prediction_of", "stream"]


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
        classes: Per class ``value``, ``name``, ``pixels`` and, where the size of a pixel is
            known, ``hectares`` or ``millilitres``.
        sha256: Checksum of the label file, hexadecimal.
        fingerprint: Hash of everything that the label file follows from.
        unchanged: True when the output was finished already and nothing was done.
        polygons: How many polygons were written to the vector file; None without one.
    """

    output: Path
    shape: tuple[int, ...]
    tiles: int
    seconds: float
    class_pixels: tuple[int, ...]
    invalid_pixels: int
    classes: tuple[dict[str, Any], ...]
    sha256: str
    fingerprint: str
    unchanged: bool
    polygons: int | None = None


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
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
    tta: TTA | None = None,
    slice_axis: SliceAxis | int | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Yield class probabilities of a scan in stretches of finished rows.

    A stretch is as wide as the scan, or as a column strip of it when its rows would take more
    memory than they should.

    Args:
        model: A :class:`~segfocal.FocalUNet`, the path of one, a predictor, or any function
            from a batch of tiles ``(batch, *tile, channels)`` to probabilities
            ``(batch, *tile, classes)``. A list of models with the same channels and classes
            is an ensemble: the mean of their probabilities.
        scan: An open scan.
        tile: Side lengths of a tile in pixels, halo included. Left out: what the model was
            trained on, else 512 for scenes and 96 for volumes.
        overlap: Pixels blended between neighbours. Left out: a quarter of the tile, rounded
            up to a multiple of the network's output_stride (32, of fine presets 16).
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
        resample: Whether the scan is resampled, window by window, to the resolution that the
            model was trained at, and what is found back to the scan's pixels: ``"auto"``:
            volumes whose spacing differs by more than 1 %; ``"always"``: scenes too;
            ``"never"``. Tiles are then tiles of the resampled scan.
        interpolation: How: 1 for linear, 3 for a cubic spline. Probabilities come back linearly;
            between the planes of a volume that lie more than three times as far apart as pixels
            within them, the nearest counts, both ways.
        tta: Test-time augmentation: the mean over flipped tiles (``"flips"``: 4 times the work
            for scenes, 8 times for volumes), and over tiles rotated by 90 degrees in the plane
            of the first two axes as well (``"rotations"``: twice that).
        slice_axis: A model of two axes is run over a volume slice by slice: over
            ``"sagittal"``, ``"coronal"`` or ``"axial"`` slices, or along an axis of an array (0,
            1, 2). The other two axes, in the orientation that the model's card names (else
            RAS), are its rows and columns. Left out: the axis with the largest spacing, or
            where all are equal the one in which the file is laid out slowest. Slices across
            that one are slow to read from a compressed file.
        engine: What runs the model: ``"keras"``, ``"openvino"`` or ``"onnxruntime"``; a
            ``.keras`` file or model is converted for the latter two, once, and the result kept
            in a cache. ``"auto"``: OpenVINO for the path of a ``.keras`` file, where it is
            installed, there is no GPU, and the model can be converted; Keras otherwise, and for
            a model in memory.
        precision: ``"bfloat16"``: let OpenVINO compute in it, on processors that have it; some
            1e-2 off.
        progress: Called with tiles done and tiles in all; raise in it to cancel. A pass that
            measures frozen means is counted on its own, before.

    Yields:
        A window and its probabilities ``(*sides, classes)`` float32, at the temperature of the
        model's card if it has one, and NaN where the scan has no valid pixel. Windows partition
        the scan.

    Raises:
        ModelError, ChannelError, GeometryError: The model does not fit the scan, or the tile
            does not fit the model.
    """
    # Not a generator itself: arguments are checked before the first stretch is asked for.
    job = prepare_calibrated(
        in_engine(model, engine, precision=precision, global_context=global_context),
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
        resample=resample,
        interpolation=interpolation,
    )
    card = job.predictor.card
    return _with_nan(job.sweep(progress), None if card is None else card.temperature)


def _with_nan(
    sweep: Stretches, temperature: float | None
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    with closing(sweep) as stretches:
        for rows in stretches:
            rows.probabilities[~rows.valid] = np.nan
            yield rows.window, scaled(rows.probabilities, temperature)


def predict(
    model: Any,
    input: Scan | ScanPath | Sequence[ScanPath] | Mapping[str, ScanPath],
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
    resample: Resample = "auto",
    interpolation: Interpolation = DEFAULT_INTERPOLATION,
    tta: TTA | None = None,
    slice_axis: SliceAxis | int | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    probabilities: ProbabilityType | None = None,
    uncertainty: bool = False,
    min_size: int | str | None = None,
    area: Area | None = None,
    area_crs: str | None = None,
    polygons: str | Path | None = None,
    simplify: float | None = None,
    min_area: float | str | None = None,
    largest_component: Classes | None = None,
    fill_holes: Classes | None = None,
    min_volume: float | None = None,
    layout: Layout = "cog",
    model_name: str | None = None,
    assemble_only: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Prediction:
    """Segment a scan file and write a label map on the same grid.

    The output appears under its name only when it is complete and has been read back. It
    holds the card's class values; pixels where the scan has no data are nodata (255, or
    65535 with class values of 255 and above; volumes: 0). Beside it comes a JSON file,
    ``OUTPUT.json``, which says what it was made from, its SHA-256, and how many pixels, and
    hectares or millilitres, show each class. Beside ``labels.nii.gz`` come names and colours of
    its classes for ITK-SNAP (``labels.itksnap.txt``) and 3D Slicer (``labels.ctbl``).

    What is finished is kept in a hidden folder beside the output, ``.OUTPUT.scratch``, until
    the output is complete. A run that was stopped or killed is continued by calling the same
    again, with the same bytes as the result; another model, input or parameter starts afresh.
    An output that is finished already is left as it is.

    Args:
        model: A :class:`~segfocal.FocalUNet` or the path of one, or a list of them, whose
            probabilities are averaged.
        input: A scene or volume: anything rasterio or nibabel opens; or several files that
            make up one, see :func:`~segfocal.open_scan`. The output lies on the grid of the
            first. Or an open scan of files, which stays open.
        output: ``.tif`` for scenes, ``.nii`` or ``.nii.gz`` for volumes.
        tile, overlap, halo, blend, batch_size, max_memory, global_context, exact_context,
        resample, interpolation, tta, slice_axis, engine, precision, progress: See
            :func:`stream`. A run that was begun in Keras is continued in Keras by
            ``engine="auto"``.
        probabilities: Write the probabilities of the classes too, to
            ``labels.probabilities.tif`` beside ``labels.tif``, a band per class, or to
            ``labels.probabilities.nii.gz`` beside ``labels.nii.gz``, a fourth axis:
            ``"float32"`` with NaN where there is no data, or ``"uint8"``: 0 to 250 for 0 to 1,
            255 for no data (volumes: 0 in every class). Both layers are at the temperature of the
            model's card, if it has one; labels do not depend on it.
        uncertainty: Write the entropy of the probabilities too, to ``labels.uncertainty.tif``
            or ``.nii.gz``: 0 where one class is certain, 1 where all are equal.
        min_size: Merge connected pieces of a scene's label map that are smaller than this into
            their largest neighbour, as GDAL's sieve does with 4-connectivity (rows taken from
            north to south): pixels, or an area such as ``"0.5ha"`` or ``"500m2"``. Pixels
            without data stay. Probabilities and uncertainty are not changed.
        area: Segment a part of a scene only: bounds ``(xmin, ymin, xmax, ymax)`` or a file with
            polygons (GeoPackage, GeoJSON, Shapefile, ...; needs ``pip install
            'segfocal[vector]'``). The output is the part of the scene's grid that the area
            spans; pixels with their centre outside are nodata. Labels are those of a run over
            the whole scene.
        area_crs: CRS of the area's coordinates, such as ``"EPSG:4326"``; x or longitude comes
            first always. Left out: the scene's for bounds, and the one that a file names.
        polygons: Write the polygons of a scene's labels too, to a ``.gpkg``, ``.geojson`` or
            ``.fgb`` file; only a suffix stands for the label map's name with it. Needs ``pip
            install 'segfocal[vector]'``. What lies connected and shows one class is one feature
            with ``value``, ``name`` and ``area_ha`` (``area``, in squared units, where the CRS
            tells no metres; areas are those of the pixels). GeoJSON is in longitude and latitude
            (RFC 7946), the others are in the scene's CRS. Where the label map is finished
            already, they are made from it.
        simplify: Tolerance in units of the CRS with which polygons are simplified; neighbours
            leave no gaps. All polygons are held in memory for it.
        min_area: Leave polygons out that are smaller: pixels, or an area such as ``"0.5ha"``.
        largest_component: Names of classes, or ``"all"`` but the one of value 0, of which only
            the largest connected piece (by faces, edges or corners) stays; the others become 0.
        fill_holes: Names of classes, or ``"all"``: background that one of them alone encloses
            becomes that class.
        min_volume: Connected pieces of all classes below so many mm³ become 0. These steps, in
            the order largest, volume, holes, need the whole label map in memory, about 8 bytes
            per pixel: what does not fit into ``max_memory`` is refused.
        layout: ``"cog"``: a cloud-optimised GeoTIFF with overviews; ``"gtiff"``: a tiled one
            without. Volumes have one layout only.
        model_name: What to call the model in ``OUTPUT.json``. Left out: the names of its files.
        assemble_only: Compute nothing: other processes have, by
            :func:`~segfocal.predict_part`; what is missing is an error.
        overwrite: Replace an existing output.
        notice: Called with a line of text when a run is continued, starts afresh in spite of
            earlier results, or finds its output finished, and when a model is converted or
            cannot be.

    Raises:
        ModelError, ScanError, ChannelError, GeometryError, OutputError: See the messages;
            nothing is at the destination then.
    """
    started = time.monotonic()
    output, tell = Path(output), notice or (lambda text: None)
    layers = Layers(probabilities, uncertainty)
    vector = polygons_of(polygons, output, simplify, min_area)
    pending = PendingOutput(output, overwrite=overwrite)
    _refuse_to_replace_input(input, output)
    earlier = read_provenance(output)
    _refuse_to_replace_stranger(output, earlier, overwrite)
    pending.overwrite = overwrite or earlier is not None  # it may be finished: seen below
    prepared = prepared_job(
        model,
        input,
        tile=tile,
        overlap=overlap,
        halo=halo,
        blend=blend,
        batch_size=batch_size,
        max_memory=max_memory,
        global_context=global_context,
        engine=engine,
        precision=precision,
        destinations=[output],
        tell=tell,
        exact_context=exact_context,
        resample=resample,
        interpolation=interpolation,
        tta=tta,
        slice_axis=slice_axis,
        min_size=min_size,
        area=area,
        area_crs=area_crs,
        largest_component=largest_component,
        fill_holes=fill_holes,
        min_volume=min_volume,
    )
    with pending, prepared as (job, card):
        provenance, unchanged = produce(
            pending,
            job,
            card,
            layers=layers,
            polygons=vector,
            layout=layout,
            model_name=model_name or name_of_model(model),
            overwrite=overwrite,
            assemble_only=assemble_only,
            read_too=_paths(model, area),
            progress=progress,
            tell=tell,
        )
    done = prediction_of(output, provenance, time.monotonic() - started, unchanged=unchanged)
    return done if vector is not None else replace(done, polygons=None)


def prediction_of(
    output: Path, provenance: Mapping[str, Any], seconds: float, *, unchanged: bool
) -> Prediction:
    """Return what a finished prediction was, as its provenance says.

    Args:
        output: The label file.
        provenance: What stands beside it, see :mod:`segfocal.engine.provenance`.
        seconds: Wall time that it took now.
        unchanged: Whether it was finished already.
    """
    result = provenance["result"]
    return Prediction(
        output=output,
        shape=tuple(result["shape"]),
        tiles=result["tiles"],
        seconds=seconds,
        class_pixels=tuple(label["pixels"] for label in result["classes"]),
        invalid_pixels=result["invalid_pixels"],
        classes=tuple(result["classes"]),
        sha256=provenance["sha256"],
        fingerprint=provenance["fingerprint"],
        unchanged=unchanged,
        polygons=(result.get("polygons") or {}).get("features"),
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
    tta: TTA | None = None,
    slice_axis: SliceAxis | int | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> NDArray[np.int32]:
    """Segment an array in memory.

    Args:
        model: See :func:`stream`.
        array: ``(rows, cols, channels)`` or ``(planes, rows, cols, channels)``. NaN is
            invalid.
        valid: Which pixels can be used, ``array.shape[:-1]``; all when left out.
        tile, overlap, halo, blend, batch_size, global_context, exact_context, tta,
        slice_axis, engine, precision, progress: See :func:`stream`.

    Returns:
        Class values (class indices for a plain function), ``array.shape[:-1]``; -1 where
        the array is not valid.
    """
    model = in_engine(model, engine, precision=precision, global_context=global_context)
    with MemoryScan(array, valid=valid) as scan:
        labels = np.empty(scan.shape, np.int32)
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
        )
        with closing(job.sweep(progress)) as stretches:
            for rows in stretches:
                card = job.predictor.card
                found = (
                    rows.probabilities.argmax(-1)
                    if card is None
                    else card.label_values(rows.probabilities)
                )
                labels[rows.window] = np.where(rows.valid, found, -1)
    return labels


def _refuse_to_replace_input(
    source: Scan | ScanPath | Sequence[ScanPath] | Mapping[str, ScanPath], output: Path
) -> None:
    if isinstance(source, Scan):
        source = [source.name, *getattr(source, "files", ())]
    if isinstance(source, str | os.PathLike):
        source = [source]
    for path in source.values() if isinstance(source, Mapping) else source:
        if is_same_file(output, path):
            raise OutputError(f"{output}: is the scan itself; expected another path for its labels")


def _paths(model: Any, area: Any) -> list[str | Path]:
    """Return the files among models and area."""
    given = [*(model if isinstance(model, list | tuple) else [model]), area]
    return [one for one in given if isinstance(one, str | Path)]


def _refuse_to_replace_stranger(
    output: Path, earlier: dict[str, Any] | None, overwrite: bool
) -> None:
    beside = provenance_path(output)
    if earlier is None and beside.exists() and not overwrite:
        raise OutputExistsError(
            f"{beside}: exists already and is not of segfocal; it is where the provenance of "
            f"{output.name} goes: move it, choose another output, or pass --overwrite"
        )
