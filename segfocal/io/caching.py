"""Scans whose decoded blocks are kept, in memory or on disk, up to a size.

Training reads the same scans at other places again and again. Of a compressed file each read
decodes whole file blocks, of a ``.nii.gz`` much of what stands before them; a block that is kept
is decoded once.

A block is a box of the scan's grid: a square of a scene, some planes of a volume along its slow
axis. Blocks that were not used for longest go first.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segfocal.io.aligned import aligned_blocks
from segfocal.io.base import Scan, check_window
from segfocal.io.channels import channel_indices
from segfocal.types import BoolArray, Patch, Window, window_shape

__all__ = ["BlockCache", "CachedScan", "decoded_bytes"]

SCENE_SIDE = 256
VOLUME_PIXELS = 2**21
"""About how many voxels the planes of a block have."""

Block = tuple[NDArray[np.generic], BoolArray | None]
"""Values and validity; None: all valid."""


class BlockCache:
    """Keeps blocks by key; threads may share it.

    Args:
        limit: Bytes that blocks may take together.
        folder: Keep them there, in files that are removed on closing, and not in memory.

    Attributes:
        limit: Bytes that blocks may take together.
        bytes: Bytes that they take.
        loads: How many blocks were read so far.
    """

    def __init__(self, limit: int, folder: str | Path | None = None) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, Block | Path]] = OrderedDict()
        self._numbers = itertools.count()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(
                prefix="segfocal-cache-", dir=folder, ignore_cleanup_errors=True
            )
        self.bytes = 0
        self.loads = 0

    def get(self, key: Hashable, load: Callable[[], Patch]) -> Block:
        """Return a block, read by ``load`` when it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is not None:
            block = _from_file(found[1]) if isinstance(found[1], Path) else found[1]
            if block is not None:
                return block
        patch = load()
        valid = None if patch.valid.all() else np.ascontiguousarray(patch.valid)
        fresh: Block = np.ascontiguousarray(patch.values), valid
        self._keep(key, fresh)
        return fresh

    def _keep(self, key: Hashable, block: Block) -> None:
        size = block[0].nbytes + (0 if block[1] is None else block[1].nbytes)
        with self._lock:
            self.loads += 1
            number = next(self._numbers)
        if size > self.limit:
            return
        kept: Block | Path = block
        if self._folder is not None:
            kept = Path(self._folder.name) / f"{number}.npz"
            try:
                _to_file(kept, block)
            except OSError:  # a full disk, say: the scan itself is there
                kept.unlink(missing_ok=True)
                return
        dropped = []
        with self._lock:
            if key in self._kept:  # another thread was faster
                dropped.append(kept)
            else:
                self._kept[key] = size, kept
                self.bytes += size
            while self.bytes > self.limit:
                _, (freed, oldest) = self._kept.popitem(last=False)
                self.bytes -= freed
                dropped.append(oldest)
        for one in dropped:
            if isinstance(one, Path):
                one.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of all blocks, and remove the files."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0
        if self._folder is not None:
            self._folder.cleanup()


def _to_file(path: Path, block: Block) -> None:
    values, valid = block
    with path.open("wb") as out:
        np.save(out, values)
        if valid is not None:
            np.save(out, valid)


def _from_file(path: Path) -> Block | None:
    """Return a block from its file, or None when the file is gone."""
    try:
        with path.open("rb") as file:
            values = np.load(file)
            return values, np.load(file) if file.peek(1) else None
    except (OSError, ValueError, EOFError):
        return None


class CachedScan:
    """A scan read through a cache; see :class:`~segfocal.io.base.Scan`.

    Args:
        scan: An open scan; it is closed together with this one.
        cache: Where blocks are kept.
        key: What tells this scan from others in the cache.
    """

    def __init__(self, scan: Scan, cache: BlockCache, key: Hashable) -> None:
        self.scan, self._cache, self._key = scan, cache, key
        self.name = scan.name
        self.shape: tuple[int, ...] = scan.shape
        self.channels = scan.channels
        self.channels_are_named = scan.channels_are_named
        self.channel_note = scan.channel_note
        self.dtype: np.dtype = scan.dtype
        self.slow_axis = scan.slow_axis
        self.resolution = scan.resolution
        self._sides = _block_sides(scan)
        self._closed = False

    def georeference(self) -> dict[str, Any]:
        """Return what the scan says."""
        return self.scan.georeference()

    def read(self, window: Window, channels: Sequence[int] | None = None) -> Patch:
        """Return the pixels of a window."""
        if self._closed:
            raise ValueError(f"{self.name}: the scan is closed")
        check_window(window, self.shape)
        chosen = tuple(channel_indices(channels, len(self.channels)))
        shape = (*window_shape(window), len(chosen))
        values, valid = np.empty(shape, self.dtype), np.ones(shape, np.bool_)
        for place, block, inside, there in aligned_blocks(window, self._sides):
            box = tuple(
                slice(side.start, min(side.stop, whole))
                for side, whole in zip(block, self.shape, strict=True)
            )
            pixels, known = self._cache.get(
                (self._key, chosen, place), partial(self.scan.read, box, chosen)
            )
            values[there] = pixels[inside]
            if known is not None:
                valid[there] = known[inside]
        return Patch(values, valid)

    def close(self) -> None:
        """Close the scan. Closing twice is harmless."""
        self._closed = True
        self.scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _block_sides(scan: Scan) -> tuple[int, ...]:
    if len(scan.shape) == 2:
        return (SCENE_SIDE, SCENE_SIDE)
    across = math.prod(scan.shape) // scan.shape[scan.slow_axis]
    planes = max(1, VOLUME_PIXELS // across)
    return tuple(
        planes if axis == scan.slow_axis else length for axis, length in enumerate(scan.shape)
    )


def decoded_bytes(scan: Scan, channels: int) -> int:
    """Return what a scan takes as an array of so many channels."""
    return math.prod(scan.shape) * channels * scan.dtype.itemsize
