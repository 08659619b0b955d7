"""Batches made ahead of time by worker threads or processes.

What a batch holds follows from its epoch and number alone, so neither order nor content depends on
the number of workers. Threads share the cache and suit most data: decoding, interpolation and
numpy's loops run beside each other. Processes are started afresh (*spawn*), never forked: a fork
of a process that has loaded TensorFlow, GDAL or a GPU's driver may hang.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from segfocal.data.class_index import ClassIndex
from segfocal.data.normalize import ScanNormalization
from segfocal.data.plan import Plan
from segfocal.data.sampling import Batch, PatchSampler
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SegfocalError
from segfocal.io.caching import BlockCache

__all__ = ["BatchWorkers", "SamplerRecipe"]

AHEAD = 2
"""Batches that are made beyond one for each worker."""

BEHIND = 2
"""Batches that are kept after they were asked for: Keras looks at the first ones twice."""


@dataclass(frozen=True)
class SamplerRecipe:
    """What a sampler is made from, in any process; see :class:`PatchSampler`.

    Attributes:
        cache_bytes: What the blocks may take that each cache keeps; 0: none are kept.
        cache_folder: Where they are kept; None: in memory.
    """

    spec: DatasetSpec
    plan: Plan
    split: str = "train"
    augment: bool = True
    index: ClassIndex | None = None
    index_path: Path | None = None
    measured: Mapping[str, ScanNormalization] | None = None
    cache_bytes: int = 0
    cache_folder: Path | None = None

    def cache(self) -> BlockCache | None:
        """Return an empty cache, or None."""
        return BlockCache(self.cache_bytes, self.cache_folder) if self.cache_bytes else None

    def sampler(self, cache: BlockCache | None) -> PatchSampler:
        """Return a sampler that uses this cache."""
        return PatchSampler(
            self.spec,
            self.plan,
            self.split,
            augment=self.augment,
            index=self.index,
            index_path=self.index_path,
            measured=self.measured,
            cache=cache,
        )


class BatchWorkers:
    """Makes batches ahead of those that are asked for.

    Args:
        recipe: What samplers are made from. Index and normalizations are found once, here.
        batches: Batches of an epoch.
        workers: How many make batches; 0: whoever asks for one.
        processes: Processes in place of threads. A script that trains with them needs
            ``if __name__ == "__main__":`` around what it does, as they import it.

    Raises:
        SpecError, ScanError, ChannelError: The dataset cannot be used, or is not the plan's.
    """

    def __init__(
        self, recipe: SamplerRecipe, batches: int, *, workers: int = 2, processes: bool = False
    ) -> None:
        self._batches, self._workers = batches, workers
        self._cache = None if workers and processes else recipe.cache()
        self._own = recipe.sampler(self._cache)
        self._recipe = replace(recipe, index=self._own.index, measured=self._own.measured)
        self._made: dict[int, Future[Batch]] = {}
        self._local = threading.local()
        self._samplers = [self._own]
        self._executor: Executor | None = None
        if workers and processes:
            share = replace(self._recipe, cache_bytes=recipe.cache_bytes // workers)
            self._executor = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(share,),
            )
        elif workers:
            self._executor = ThreadPoolExecutor(workers, "segfocal-patches")
        self._processes = processes

    def keep_index(self) -> None:
        """Write the index to the recipe's file, whose folder has to be there."""
        self._own.keep_index()

    def get(self, epoch: int, number: int) -> Batch:
        """Return a batch of an epoch, and have those that follow it made.

        Raises:
            ScanError: A file cannot be read.
            SegfocalError: A worker process ended.
        """
        if self._executor is None:
            return self._own.batch(number, epoch)
        place = epoch * self._batches + number
        for old in [one for one in self._made if not place - BEHIND <= one]:
            self._made.pop(old).cancel()
        try:
            for wanted in range(place, place + self._workers + AHEAD):
                if wanted not in self._made:
                    self._made[wanted] = self._submit(wanted)
            return self._made[place].result()
        except BrokenProcessPool as error:
            raise SegfocalError(
                f"a worker process ended before its batch was done ({error}); expected it to go "
                "on: was there too little memory? Choose fewer workers, or threads; a script needs "
                'if __name__ == "__main__": around what it does'
            ) from error

    def _submit(self, place: int) -> Future[Batch]:
        assert self._executor is not None
        epoch, number = divmod(place, self._batches)
        if self._processes:
            return self._executor.submit(_batch, epoch, number)
        return self._executor.submit(self._batch, epoch, number)

    def _batch(self, epoch: int, number: int) -> Batch:
        """Make a batch in a thread, which has a sampler with open files of its own."""
        sampler: PatchSampler | None = getattr(self._local, "sampler", None)
        if sampler is None:
            sampler = self._local.sampler = self._recipe.sampler(self._cache)
            self._samplers.append(sampler)
        return sampler.batch(number, epoch)

    def close(self) -> None:
        """Stop the workers and close the files."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for sampler in self._samplers:
            sampler.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_sampler_of_process: PatchSampler | None = None


def _begin(recipe: SamplerRecipe) -> None:
    """Prepare a worker process: Ctrl-C is for the process that started it."""
    global _sampler_of_process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _sampler_of_process = recipe.sampler(recipe.cache())


def _batch(epoch: int, number: int) -> Batch:
    assert _sampler_of_process is not None
    return _sampler_of_process.batch(number, epoch)
