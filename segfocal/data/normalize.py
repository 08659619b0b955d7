"""Normalization by each scan's own numbers, measured by one pass over it.

A card may ask for it instead of, or before, the numbers of a dataset inside the model. What
is measured depends on the scan alone, not on tiles or batches: parts of fixed size are read in
the order of the file, and their sums are added in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Normalization
from segfocal.io.base import Scan
from segfocal.types import Window

__all__ = ["ScanNormalization", "measure_normalization"]

_PART_PIXELS = 2**21
_PART_ROWS = 512
_DROPPED_BITS = 11
"""Of a float32's 32: what is left tells values apart that differ by 1/4096."""


@dataclass(frozen=True)
class ScanNormalization:
    """What turns the values of a scan into those that a model expects.

    Attributes:
        shift: Subtracted, per channel, in the scan's units.
        span: Divided by, per channel, in the scan's units.
        low, high: Bounds after that, per channel.
        zero_stays: Per channel, whether a value of 0 stays 0.
    """

    shift: tuple[float, ...]
    span: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    zero_stays: tuple[bool, ...]

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return normalized values.

        Args:
            values: ``(*sides, channels)`` in the scan's units; what is not valid may be anything.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            given = values.astype(np.float32)
            scaled = (given - _row(self.shift)) / _row(self.span)
            scaled = np.clip(scaled, _row(self.low), _row(self.high))
        return np.where((given == 0) & np.array(self.zero_stays), np.float32(0), scaled)


def _row(numbers: Sequence[float]) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def measure_normalization(
    scan: Scan, wanted: Sequence[Normalization | None], channels: Sequence[int] | None = None
) -> ScanNormalization:
    """Measure what a scan is normalized with; its pixels are read only where that is needed.

    Args:
        scan: The scan.
        wanted: Per channel how it is normalized; None: as it is.
        channels: Indices of the channels in the scan; all when left out.

    Returns:
        The normalization. A channel without a single value to measure, or with one value only,
        becomes 0 there. Percentiles are exact for integers of up to 16 bits, else within 1/4096
        of their value.

    Raises:
        ScanError: The scan cannot be read.
    """
    chosen = list(range(len(scan.channels))) if channels is None else list(channels)
    if len(chosen) != len(wanted):
        raise ValueError(f"{len(wanted)} normalizations for {len(chosen)} channels")
    gauges = [_Gauge(one, scan.dtype) for one in wanted]
    measured = [place for place, gauge in enumerate(gauges) if gauge.measures]
    if measured:
        for window in _parts(scan):
            patch = scan.read(window, [chosen[place] for place in measured])
            for index, place in enumerate(measured):
                gauges[place].add(patch.values[..., index], patch.valid[..., index])
    numbers = [gauge.numbers() for gauge in gauges]
    shift, span, low, high = zip(*numbers, strict=True)
    zero_stays = tuple(
        one is not None and one.method == "zscore" and one.region == "nonzero" for one in wanted
    )
    return ScanNormalization(shift, span, low, high, zero_stays)


def _parts(scan: Scan) -> Iterator[Window]:
    """Yield windows that partition a scan, in the order of its file."""
    slow, shape = scan.slow_axis, scan.shape
    others = [axis for axis in range(len(shape)) if axis != slow]
    across = math.prod(shape[axis] for axis in others)
    step = max(1, min(shape[slow], _PART_PIXELS // across, _PART_ROWS))
    # A scene is stored in blocks: lines of a wide one would decode each block many times.
    wide = len(shape) == 2 and step < _PART_ROWS
    step = min(shape[slow], _PART_ROWS) if wide else step
    width = max(1, _PART_PIXELS // step) if wide else shape[others[-1]]
    for start in range(0, shape[slow], step):
        for left in range(0, shape[others[-1]], width):
            window = [slice(0, length) for length in shape]
            window[slow] = slice(start, min(start + step, shape[slow]))
            window[others[-1]] = slice(left, min(left + width, shape[others[-1]]))
            yield tuple(window)


class _Gauge:
    """Sums or counts of one channel."""

    def __init__(self, wanted: Normalization | None, dtype: np.dtype) -> None:
        self._wanted = wanted
        self.measures = wanted is not None and wanted.method != "window"
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._bins: _Bins | None = None
        if wanted is not None and wanted.method == "percentile":
            self._bins = _Bins(dtype)

    def add(self, values: NDArray[np.generic], valid: NDArray[np.bool_]) -> None:
        assert self._wanted is not None
        counted = values[valid & (values != 0) if self._wanted.region == "nonzero" else valid]
        if not counted.size:
            return
        if self._bins is not None:
            self._bins.add(counted)
            return
        numbers = counted.astype(np.float64)
        # Means and squares of parts are merged as in Chan, Golub and LeVeque (1983).
        mean, total = float(numbers.mean()), self._count + numbers.size
        apart = mean - self._mean
        self._squares += float(((numbers - mean) ** 2).sum())
        self._squares += apart**2 * self._count * numbers.size / total
        self._mean += apart * numbers.size / total
        self._count = total

    def numbers(self) -> tuple[float, float, float, float]:
        """Return shift, span, and the lowest and highest value after them."""
        if self._wanted is None:
            return 0.0, 1.0, -np.inf, np.inf
        if self._wanted.method == "zscore":
            spread = math.sqrt(self._squares / self._count) if self._count else 0.0
            return self._mean, spread or 1.0, -np.inf, np.inf
        low, high = self._wanted.bounds
        if self._bins is not None:
            low, high = self._bins.percentile(low), self._bins.percentile(high)
        return low, high - low if high > low else 1.0, 0.0, 1.0


class _Bins:
    """Counts of values: one by one for small integers, else by the first bits of a float."""

    def __init__(self, dtype: np.dtype) -> None:
        self._exact = dtype.kind in "iu" and dtype.itemsize <= 2
        self._lowest = int(np.iinfo(dtype).min) if self._exact else 0
        size = 2 ** (8 * dtype.itemsize) if self._exact else 2 ** (32 - _DROPPED_BITS)
        self._counts = np.zeros(size, np.int64)

    def add(self, values: NDArray[np.generic]) -> None:
        if self._exact:
            keys = values.astype(np.int64) - self._lowest
        else:
            with np.errstate(over="ignore"):  # infinity, the highest of all
                narrow = values.astype(np.float32)
            keys = (_ordered_bits(narrow) >> _DROPPED_BITS).astype(np.int64)
        self._counts += np.bincount(keys, minlength=len(self._counts))

    def percentile(self, percent: float) -> float:
        """Return a percentile, between two values interpolated as numpy does; 0 of nothing."""
        ends = np.cumsum(self._counts)
        if not ends[-1]:
            return 0.0
        place = percent / 100 * (int(ends[-1]) - 1)
        below, above = (
            self._value(int(np.searchsorted(ends, rank, side="right")))
            for rank in (math.floor(place), math.ceil(place))
        )
        return below + (above - below) * (place - math.floor(place))

    def _value(self, key: int) -> float:
        if self._exact:
            return float(key + self._lowest)
        middle = np.uint32((key << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1)))
        return _from_ordered_bits(middle)


_SIGN = np.uint32(0x80000000)


def _ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return whole numbers that are ordered as the floats are."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _from_ordered_bits(ordered: np.uint32) -> float:
    bits = ordered & ~_SIGN if ordered & _SIGN else ~ordered
    return float(np.array(bits, np.uint32).view(np.float32)[()])
