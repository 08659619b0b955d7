"""Contestants that wait in processes of their own and take turns.

A slower moment of the machine then meets all of them, and libraries that crash in one process
(TensorFlow and PyTorch) are kept apart. A script has a table of :class:`Entry` by name, calls
:func:`serve_if_asked` first of all, and then :func:`take_turns`. Parent and child talk in lines
of JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Measured", "Ready", "missing", "peak_bytes", "serve_if_asked", "take_turns"]

THREADS = 2
PAUSE_SECONDS = 0.25
"""Between turns: threads of the one before may still spin."""

SETTLED_SECONDS = 5
"""A first run that takes longer is not repeated before the rounds."""

_OUT_OF_MEMORY = re.compile(
    rb"bad_alloc|out of memory|OOM|cannot allocate|not enough memory|exhausted|MemoryError", re.I
)


@dataclass(frozen=True)
class Ready:
    """What a contestant runs when it is its turn.

    Attributes:
        run: Does the work once, and returns when it is done.
        parameters: Of the network.
        pieces: Tiles (or other pieces) in one run; times are those of one piece.
    """

    run: Callable[[], object]
    parameters: int | None = None
    pieces: int = 1


@dataclass(frozen=True)
class Entry:
    """A contestant.

    Attributes:
        make: Returns what it runs, from a setting that JSON can hold.
        needs: Packages without which it is left out.
        backend: Keras's backend in its process.
    """

    make: Callable[[dict[str, Any]], Ready]
    needs: tuple[str, ...] = ()
    backend: str = "tensorflow"


@dataclass
class Measured:
    """What is known of a contestant.

    Attributes:
        left_out: Why it did not run; empty when it did.
        seconds: Of one piece, by round.
        parameters: Of its network.
        peak_bytes: What its process held at most.
        grown_bytes: How much more that is than before its first run.
    """

    left_out: str = ""
    seconds: list[float] = field(default_factory=list)
    parameters: int | None = None
    peak_bytes: int = 0
    grown_bytes: int = 0

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    def ratio(self, base: Measured) -> float:
        """Return how often the other's time is this one's: the median over rounds."""
        return statistics.median(b / t for t, b in zip(self.seconds, base.seconds, strict=True))


def peak_bytes() -> int:
    """Return what this process has held at most."""
    # Not ru_maxrss: a child process starts with the peak of the one that it was forked from.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def with_threads(threads: int) -> dict[str, str]:
    """Return the environment in which libraries use so many threads, and log little."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # fmt: skip
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"} | dict.fromkeys(names, str(threads))


def keep_to_cores(threads: int) -> None:
    """Bind this process to so many cores: some libraries count cores and not the environment."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def serve_if_asked(entries: Mapping[str, Entry]) -> None:
    """In a child process, serve turns and exit; in the script itself, do nothing."""
    if sys.argv[1:2] != ["--serve"]:
        return
    request = json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print
    keep_to_cores(request["threads"])
    if request["limit"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (request["limit"], request["limit"]))

    def answer(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")

    ready = entries[request["name"]].make(request["setting"])
    before = peak_bytes()
    started = time.perf_counter()
    ready.run()  # compiles, and takes the memory that it needs
    if time.perf_counter() - started < SETTLED_SECONDS:
        ready.run()
    answer(parameters=ready.parameters)
    for _ in sys.stdin:
        started = time.perf_counter()
        ready.run()
        seconds = (time.perf_counter() - started) / ready.pieces
        answer(seconds=seconds, peak_bytes=peak_bytes(), grown_bytes=peak_bytes() - before)
    sys.exit()


class _TooLargeError(Exception):
    """A contestant does not fit into the memory it may take."""


class _Worker:
    def __init__(
        self, script: str, name: str, entry: Entry, setting: Any, threads: int, limit: int | None
    ) -> None:
        self.name, self._limit = name, limit
        request = {"name": name, "setting": setting, "threads": threads, "limit": limit}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, script, "--serve", json.dumps(request)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**with_threads(threads), "KERAS_BACKEND": entry.backend},
        )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()
        if self._limit is not None and (
            self._process.returncode == -9 or _OUT_OF_MEMORY.search(said)
        ):
            raise _TooLargeError(f"does not fit into {self._limit / 1e9:g} GB")
        sys.exit(f"{self.name} ended with {self._process.returncode}:\n{said.decode()[-3000:]}")

    def turn(self) -> dict[str, Any]:
        self._process.stdin.write("run\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()


def missing(needs: Sequence[str]) -> str:
    """Return a line that says which packages are missing and how to get them, or nothing."""
    absent = [name for name in needs if importlib.util.find_spec(name) is None]
    return f"needs {' and '.join(absent)}: pip install 'segfocal[peers]'" if absent else ""


def take_turns(
    script: str,
    entries: Mapping[str, Entry],
    names: Sequence[str],
    setting: Any,
    rounds: int,
    *,
    threads: int = THREADS,
    limit: int | None = None,
) -> dict[str, Measured]:
    """Run contestants in turns.

    Args:
        script: File whose main part calls :func:`serve_if_asked` with the same entries.
        entries: The contestants by name.
        names: Those to run, in order.
        setting: What they are made from; a dictionary that JSON can hold.
        rounds: Turns of each.
        threads: Threads, and cores, of each process.
        limit: Bytes of memory that each may take; one that needs more is left out.

    Returns:
        What was measured, by name, in the order of ``names``.
    """
    found = {name: Measured(left_out=missing(entries[name].needs)) for name in names}
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Worker] = {}

        @contextlib.contextmanager
        def noting(name: str) -> Iterator[None]:
            try:
                yield
            except _TooLargeError as failure:
                found[name].left_out = str(failure)
                found[name].seconds.clear()
                workers.pop(name, None)

        for name in names:
            if not found[name].left_out:
                worker = _Worker(script, name, entries[name], setting, threads, limit)
                stack.callback(worker.close)
                workers[name] = worker
                with noting(name):
                    found[name].parameters = worker.answer()["parameters"]
                    print(f"{name} is ready", flush=True)
            if found[name].left_out:
                print(f"{name} is left out: {found[name].left_out}", flush=True)
        for number in range(rounds):
            for name, worker in list(workers.items()):
                with noting(name):
                    answer = worker.turn()
                    found[name].seconds.append(answer["seconds"])
                    found[name].peak_bytes = answer["peak_bytes"]
                    found[name].grown_bytes = answer["grown_bytes"]
                time.sleep(PAUSE_SECONDS)
            print(f"round {number + 1} of {rounds}", flush=True)
    return found
