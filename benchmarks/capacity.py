"""How far many scans and many machines scale: a thousand workers whose work is waiting.

    python benchmarks/capacity.py                         # about four minutes
    python benchmarks/capacity.py --workers 200 --seconds 1 5

What is measured, and the arithmetic that follows from it, is in capacity.md:

- the scheduler that `segfocal predict --executor ray` uses, with Ray, and a thousand workers that
  wait as long as a unit would take instead of running a model. They are slots of a few processes:
  Ray sends each unit to an actor and gets an answer from it as it would with a process per worker,
  and the driver has the same to do.
- lists, summaries and folders of very many scans;
- how fast units are assembled into a finished label map, which one process does for each scan.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
from cluster_overhead import make_scene
from tables import table, write_tables

import segfocal as sf
from segfocal.agenda import Agenda
from segfocal.engine.memory import resident_bytes
from segfocal.io import PendingOutput
from segfocal.output_names import name_outputs
from segfocal.prediction import Prediction
from segfocal.scan_lists import list_scans
from segfocal.scan_parts import predict_part
from segfocal.scan_units import ScanTask, UnitResult
from segfocal.scheduling import Watch, dispatch
from segfocal.summaries import Outcome, Summary
from segfocal.summary_files import write_summary


class Waiting:
    """A process with many workers, each of which waits for as long as a unit takes."""

    async def ready(self):
        return None

    async def run(self, seconds, task, unit, losses):
        await asyncio.sleep(seconds)
        done = Prediction(task.output, (1, 1), 1, 0.0, (1,), 0, (), "", "", False)
        return UnitResult(done, seconds)


class Slot:
    """One of them, as the scheduler sees a worker."""

    def __init__(self, process, seconds):
        self.process, self.seconds = process, seconds
        self.ready, self.run = self, _Run(self)

    def remote(self):
        return self.process.ready.remote()


class _Run:
    def __init__(self, slot):
        self.slot = slot

    def remote(self, *work):
        return self.slot.process.run.remote(self.slot.seconds, *work)


def simulate(workers, seconds, rounds):
    """Return units per second, and the share of the workers' time in which they had a unit."""
    actor = ray.remote(num_cpus=0, max_concurrency=workers)(Waiting)
    processes = [actor.remote() for _ in range(4)]
    ray.get([one.ready.remote() for one in processes])
    units = workers * rounds
    tasks = {i: ScanTask(f"scan{i}", Path(f"out/{i}.tif")) for i in range(units)}
    numbers = iter(range(workers))
    marks = []
    watch = Watch(lambda done, known: marks.append(time.perf_counter()))
    started = time.perf_counter()

    def start():
        return Slot(processes[next(numbers) % len(processes)], seconds)

    results = list(dispatch(ray, start, workers, Agenda(tasks), print, watch))
    took = time.perf_counter() - started
    assert len(results) == units
    for one in processes:
        ray.kill(one)
    return units / took, units * seconds / workers / took


def time_of(call):
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


def measure_lists(count, folder):
    """Return what a list of so many scans takes: seconds to read, seconds to sum up, bytes."""
    before = resident_bytes()
    listed = folder / "list.csv"
    listed.write_text("input\n" + "".join(f"scenes/{i:07}.tif\n" for i in range(count)))
    reading, scans = time_of(lambda: list_scans([listed]))
    naming, places = time_of(lambda: name_outputs(scans))
    outcomes = tuple(
        Outcome(scan.files, str(place), "done") for scan, place in zip(scans, places, strict=True)
    )
    writing, _ = time_of(lambda: write_summary(Summary(outcomes, folder / "summary.json")))
    return reading + naming, writing, resident_bytes() - before


def measure_folder(count, folder):
    """Return milliseconds that an output takes to appear in a folder that holds many."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:07}.tif").touch()
    seconds = []
    for i in range(5):
        started = time.perf_counter()
        with PendingOutput(folder / f"new{i}.tif") as pending:
            pending.main.write_bytes(b"x")
            pending.commit()
        seconds.append(time.perf_counter() - started)
    return 1000 * sorted(seconds)[2]


class Bands:
    """Costs almost nothing: the engine alone."""

    output_stride, engine, batch_matters, hash, ndim = 1, "numpy", False, "bands", 2
    card = sf.Card(
        channels=tuple({"name": name} for name in ("red", "green", "blue")),
        classes=tuple({"value": i, "name": f"class {i}", "color": (i, 0, 0)} for i in range(3)),
        tile=(512, 512),
    )

    def __call__(self, values, valid):
        return values / np.float32(765)


def measure_assembly(folder, side):
    """Return Mpx/s of units without a model, and of their assembly into a COG and a GeoTIFF."""
    make_scene(folder / "scene.tif", side, side)
    speeds = []
    for layout in ("cog", "gtiff"):
        output = folder / f"{layout}.tif"
        computing, _ = time_of(
            lambda output=output, layout=layout: predict_part(
                Bands(), folder / "scene.tif", output, "1/1", layout=layout
            )
        )
        assembling, _ = time_of(lambda output=output: sf.assemble(output, model=Bands()))
        speeds += [side**2 / 1e6 / computing, side**2 / 1e6 / assembling]
    return speeds[0], speeds[1], speeds[3]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 1, 5, 20])
    parser.add_argument("--rounds", type=int, default=4, help="units per worker")
    parser.add_argument("--scans", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    rows = []
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    for seconds in options.seconds:
        rate, busy = simulate(options.workers, seconds, options.rounds)
        rows.append([f"{seconds:g}", f"{rate:.0f}", f"{busy:.1%}" if seconds else ""])
        print(rows[-1], flush=True)
    ray.shutdown()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listing, summing, held = measure_lists(options.scans, folder)
        print(f"list {listing:.1f} s, summary {summing:.1f} s", flush=True)
        full = [
            [f"{count:,}", f"{measure_folder(count, folder / str(count)):.0f}"]
            for count in (0, 10_000, 100_000, 300_000)
        ]
        print(full, flush=True)
        units, cog, plain = measure_assembly(folder, options.side)
    write_tables(
        options.out,
        "How far many scans and many machines scale",
        "capacity.py",
        [
            f"{options.workers} workers that wait, {options.rounds} units for each:",
            table(["seconds per unit", "units per second", "workers' time with a unit"], rows),
            f"A list of {options.scans:,} scans is read and given names in {listing:.1f} s; its "
            f"summary is written in {summing:.1f} s. They take {held / 1e9:.2f} GB of memory.",
            table(["files in the folder", "ms until an output has appeared in it"], full),
            f"Of a scene of {options.side} × {options.side} pixels with a model that costs "
            f"nothing: units at {units:.1f} Mpx/s, assembly at {cog:.1f} Mpx/s into a COG, at "
            f"{plain:.1f} Mpx/s into a plain GeoTIFF.",
        ],
    )
