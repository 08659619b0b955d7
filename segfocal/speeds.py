"""How fast tiles run through a model on this machine, by engine, batch and lanes.

What is fastest depends on processor, model and tile, and a guess is often wrong; a measurement
takes seconds. It is a step of its own and not part of every run, so that runs repeat.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.contexts import in_context
from segfocal.engine.engines import Engine, in_engine
from segfocal.engine.job import DEFAULT_BATCH, DEFAULT_TILE, Sides, axis_sides
from segfocal.engine.memory import is_out_of_memory, peak_bytes
from segfocal.engine.openvino_predictor import Precision, usable_cores
from segfocal.engine.predictors import Predictor, as_predictor
from segfocal.errors import GeometryError, ModelError, OutputError

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
        peak_bytes: What the process held at most while the first call ran, with what the ways
            before it left behind.
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
    ones of that engine. Run it while the machine does nothing else.

    Args:
        model: Path of a ``.keras``, ``.xml`` or ``.onnx`` file, or a model that is loaded.
        tile: Sides of a tile in pixels; left out, those that the model was trained for.
        engines: What to try; left out, all that are installed and can run the model.
        batch_sizes: Tiles per call of Keras.
        seconds: How long each way is timed, at least three calls.
        precision: See :func:`segfocal.predict`; bfloat16 is for OpenVINO.
        tell: Called with a line for each way, when an engine is left out, and when the model is
            converted.

    Returns:
        The ways, fastest first. ``option``, ``batch_size`` and ``lanes`` of the first are what to
        give to :func:`segfocal.predict`, the last in ``SEGFOCAL_LANES``.

    Raises:
        ModelError: No model of segfocal, or an engine that was asked for cannot run it.
        GeometryError: Tile, batch sizes or time are no such numbers.
        OutputError: The model has to be converted, and the cache cannot be written.
        MemoryError: Not one tile fits.
    """
    if not batch_sizes or min(batch_sizes) < 1 or not seconds > 0:
        raise GeometryError(
            f"batch_sizes {tuple(batch_sizes)}, seconds {seconds}; expected numbers from 1, and "
            "more than 0 seconds"
        )
    found: list[Speed] = []
    why: Exception | None = None
    for option in _engines_for(model, precision) if engines is None else engines:
        try:
            predictor = _predictor(model, option, precision, tell)
            one = _tile(predictor, tile)
            with _as_it_was(predictor, one.shape):
                for batch_size, lanes in _ways(predictor, batch_sizes):
                    way = _measured(predictor, option, one, batch_size, lanes, seconds)
                    found.append(way)
                    if tell is not None:
                        tell(f"{option}: {batch_size} tiles in {way.seconds * batch_size:.3g} s")
        except GeometryError:
            raise
        except (ModelError, OutputError, MemoryError, RuntimeError) as error:
            if not isinstance(error, ModelError | OutputError) and not is_out_of_memory(error):
                raise
            if engines is not None and isinstance(error, ModelError):
                raise
            why = error
            if tell is not None:
                text = "more do not fit into memory" if is_out_of_memory(error) else str(error)
                has_run = any(one.option == option for one in found)
                tell(f"{option}: {text}" if has_run else f"{option} is left out: {text}")
    if not found and why is not None:
        raise why
    return sorted(found, key=lambda speed: speed.seconds)


def _predictor(model: Any, option: Engine, precision: Precision, tell: Tell | None) -> Predictor:
    predictor = as_predictor(in_engine(model, option, precision=precision, tell=tell))
    if getattr(predictor, "global_context", None) == "frozen":
        # The same work, without the means of a scan.
        predictor = as_predictor(in_context(model, "tile"))
    return predictor


@contextmanager
def _as_it_was(predictor: Any, shape: tuple[int, ...]) -> Iterator[None]:
    """Leave the lanes of a predictor, which may be the caller's, as they are."""
    lanes = getattr(predictor, "lanes", None)
    try:
        yield
    finally:
        if lanes is not None and predictor.lanes != lanes:
            predictor.lanes = lanes
            predictor.prepare(shape)


def _measured(
    predictor: Predictor,
    option: Engine,
    tile: NDArray[np.float32],
    batch_size: int,
    lanes: int | None,
    seconds: float,
) -> Speed:
    if lanes is not None:
        predictor.lanes = lanes  # type: ignore[attr-defined]
        predictor.prepare(tile.shape)  # type: ignore[attr-defined]
    values = np.ascontiguousarray(np.broadcast_to(tile, (batch_size, *tile.shape)))
    call = partial(predictor, values, np.ones(values.shape[:-1], np.bool_))
    _, peak = peak_bytes(call)
    taken = _timed(call, seconds) / batch_size
    rate = tile[..., 0].size / taken / 1e6
    return Speed(option, predictor.engine, batch_size, lanes, taken, rate, peak)


def _engines_for(model: Any, precision: Precision) -> list[Engine]:
    """Return the engines that are installed and run models of its kind, the lightest first."""
    suffix = Path(model).suffix.lower() if isinstance(model, str | Path) else ".keras"
    if not isinstance(model, str | Path) and not hasattr(model, "predict_on_batch"):
        return ["auto"]  # a predictor of another kind runs as it is
    if precision != "float32" or suffix == ".xml":
        return ["openvino"]
    runtimes: list[Engine] = ["openvino", "onnxruntime"]
    installed = [name for name in runtimes if find_spec(name) is not None]
    # In a process in which Keras ran, the others would seem to take its memory too.
    return [*installed, "keras"] if suffix != ".onnx" else installed or ["auto"]


def _ways(predictor: Predictor, batch_sizes: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    """Yield batch sizes and lanes that make a difference to a predictor."""
    if hasattr(predictor, "lanes"):
        lanes = 1
        while lanes <= usable_cores():
            yield max(lanes, DEFAULT_BATCH), lanes
            lanes *= 2
    elif getattr(predictor, "tile_by_tile", False):
        yield DEFAULT_BATCH, None
    else:
        yield from ((size, None) for size in sorted({*batch_sizes}))


def _tile(predictor: Predictor, tile: Sides | None) -> NDArray[np.float32]:
    """Return a tile ``(*tile, channels)`` such as the network expects."""
    card = predictor.card
    if not isinstance(card, Card) or predictor.ndim is None:
        raise ModelError(
            f"{type(predictor).__name__} has no card; expected a segfocal model or its file"
        )
    asked = (card.tile or DEFAULT_TILE[predictor.ndim]) if tile is None else tile
    sides = axis_sides(asked, predictor.ndim, "tile")
    stride = predictor.output_stride
    if any(side < 1 or side % stride for side in sides):
        raise GeometryError(f"tile {sides}; expected multiples of the network's stride {stride}")
    mean = [channel.mean for channel in card.network_channels]
    deviation = [channel.std for channel in card.network_channels]
    values = np.random.default_rng(0).normal(mean, deviation, (*sides, len(mean)))
    return values.astype(np.float32)


def _timed(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of calls, for so long and at least three."""
    times: list[float] = []
    while len(times) < FEWEST_CALLS or sum(times) < seconds:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return statistics.median(times)
