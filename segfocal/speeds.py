"""How fast tiles run through a model on this machine, by engine, batch and lanes.

What is fastest depends on processor, model and tile, and a guess is often wrong; a measurement
takes seconds. It is a step of its own and not part of every run, so that runs repeat.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from segfocal.card import Card
from segfocal.engine.engines import Engine, in_engine
from segfocal.engine.job import DEFAULT_BATCH, DEFAULT_TILE, Sides, axis_sides
from segfocal.engine.memory import is_out_of_memory, peak_bytes
from segfocal.engine.openvino_predictor import Precision
from segfocal.engine.predictors import Predictor, as_predictor
from segfocal.errors import GeometryError, ModelError

__all__ = ["Speed", "measure_speed"]

BATCHES = (1, 2, 4, 8)
FEWEST_CALLS = 3

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Speed:
    """How fast a model runs in one way.

    Attributes:
        option: The value of ``engine`` that gives it.
        engine: What computes it, with version and precision.
        batch_size: Tiles per call.
        lanes: Calls side by side, of OpenVINO; None where the engine has none.
        seconds: Per tile, the median of the calls that were timed.
        mpx_per_second: Millions of pixels or voxels that go through in a second.
        peak_bytes: What the process held at most while the first call ran. Later ways also hold
            what the ones before left behind.
    """

    option: Engine
    engine: str
    batch_size: int
    lanes: int | None
    seconds: float
    mpx_per_second: float
    peak_bytes: int


def measure_speed(
    model: Any,
    *,
    tile: Sides | None = None,
    engines: Sequence[Engine] | None = None,
    batch_sizes: Sequence[int] = BATCHES,
    seconds: float = 3.0,
    precision: Precision = "float32",
    tell: Tell | None = None,
) -> list[Speed]:
    """Run tiles of random values through a model in several ways, and time them.

    Keras is tried with each batch size, OpenVINO with 1, 2, 4 and so on calls side by side up to
    the number of cores, ONNX Runtime once, as it runs tile by tile on all cores. Of each way the
    first call is not timed. Ways that need more memory than there is are left out, with the larger
    batches of that engine. Run it while the machine does nothing else.

    Args:
        model: Path of a ``.keras``, ``.xml`` or ``.onnx`` file, or a model that is loaded.
        tile: Sides of a tile in pixels; left out, those that the model was trained for.
        engines: What to try; left out, all that are installed and can run the model.
        batch_sizes: Tiles per call of Keras.
        seconds: How long each way is timed, at least three calls.
        precision: See :func:`segfocal.predict`; bfloat16 is for OpenVINO.
        tell: Called with a line when an engine is left out or a model converted.

    Returns:
        The ways, fastest first. ``option``, ``batch_size`` and ``lanes`` of the first are what to
        give to :func:`segfocal.predict`, the last in ``SEGFOCAL_LANES``.

    Raises:
        ModelError: No model of segfocal, or an engine that was asked for cannot run it.
        GeometryError: Tile, batch sizes or time are no such numbers.
    """
    if not batch_sizes or min(batch_sizes) < 1 or not seconds > 0:
        raise GeometryError(
            f"batch_sizes {tuple(batch_sizes)}, seconds {seconds}; expected numbers from 1, and "
            "more than 0 seconds"
        )
    found: list[Speed] = []
    for option in _engines_for(model, precision) if engines is None else engines:
        try:
            predictor = as_predictor(in_engine(model, option, precision=precision, tell=tell))
        except ModelError as error:
            if engines is not None or option == "keras":
                raise
            if tell is not None:
                tell(f"{option} is left out: {error}")
            continue
        values, valid = _tiles(predictor, tile, max(*batch_sizes, os.cpu_count() or 1))
        pixels = valid[0].size
        for batch_size, lanes in _ways(predictor, batch_sizes):
            if lanes is not None:
                predictor.lanes = lanes  # type: ignore[attr-defined]
                predictor.prepare(values.shape[1:])  # type: ignore[attr-defined]
            call = partial(predictor, values[:batch_size], valid[:batch_size])
            try:
                _, peak = peak_bytes(call)
                taken = _timed(call, seconds) / batch_size
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if tell is not None:
                    tell(f"{option}: {batch_size} tiles of {pixels} pixels do not fit into memory")
                break
            found.append(
                Speed(
                    option, predictor.engine, batch_size, lanes, taken, pixels / taken / 1e6, peak
                )
            )
    if not found:
        raise ModelError("no engine could run a tile; choose a smaller tile")
    return sorted(found, key=lambda speed: speed.seconds)


def _engines_for(model: Any, precision: Precision) -> list[Engine]:
    """Return the engines that are installed and run models of its kind."""
    suffix = Path(model).suffix.lower() if isinstance(model, str | Path) else ""
    if not suffix and not hasattr(model, "predict_on_batch"):
        return ["auto"]  # a predictor of another kind runs as it is
    installed: list[Engine] = []
    if suffix not in (".xml", ".onnx") and precision == "float32":
        installed.append("keras")
    if find_spec("openvino") is not None or suffix == ".xml" or precision != "float32":
        installed.append("openvino")
    if suffix != ".xml" and precision == "float32" and find_spec("onnxruntime") is not None:
        installed.append("onnxruntime")
    return installed or ["auto"]


def _ways(predictor: Predictor, batch_sizes: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    """Yield batch sizes and lanes that make a difference to a predictor."""
    if hasattr(predictor, "lanes"):
        lanes = 1
        while lanes <= (os.cpu_count() or 1):
            yield max(lanes, DEFAULT_BATCH), lanes
            lanes *= 2
    elif getattr(predictor, "tile_by_tile", False):
        yield DEFAULT_BATCH, None
    else:
        yield from ((size, None) for size in sorted({*batch_sizes}))


def _tiles(predictor: Predictor, tile: Sides | None, count: int) -> tuple[Any, Any]:
    """Return tiles ``(count, *tile, channels)`` such as the model expects, all valid."""
    card = predictor.card
    if not isinstance(card, Card) or predictor.ndim is None:
        raise ModelError(
            f"{type(predictor).__name__} has no card; expected a segfocal model or its file"
        )
    asked = tile or card.tile or DEFAULT_TILE[predictor.ndim]
    sides = axis_sides(asked, predictor.ndim, "tile")
    stride = predictor.output_stride
    if any(side < 1 or side % stride for side in sides):
        raise GeometryError(f"tile {sides}; expected multiples of the network's stride {stride}")
    mean = [channel.mean for channel in card.channels]
    deviation = [channel.std for channel in card.channels]
    one = np.random.default_rng(0).normal(mean, deviation, (*sides, len(mean))).astype(np.float32)
    values = np.broadcast_to(one, (max(count, DEFAULT_BATCH), *one.shape))
    return np.ascontiguousarray(values), np.ones(values.shape[:-1], np.bool_)


def _timed(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of calls, for so long and at least three."""
    times: list[float] = []
    while len(times) < FEWEST_CALLS or sum(times) < seconds:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return statistics.median(times)
