"""What a Ray cluster costs besides the work: the same parts of a scene, serially and by Ray.

    python benchmarks/cluster_overhead.py                 # 1024 x 24576 pixels in 8 parts
    python benchmarks/cluster_overhead.py --rows 49152 --repeat 5

Both run the same units (look at the scene, compute each part, assemble) with the same model: once
in this process, once in a process of a local Ray cluster with one worker. Starting Ray and loading
the model, which a long run does once, are not counted; they are told apart. Runs alternate, and
medians are compared. On a machine with other work to do the ratio of seconds says more about that
work. The share of a Ray run in which its worker had no unit, and the processor time of all
processes, Ray's own included, say what Ray costs. The aim: below 5 %.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import rasterio
from rasterio.windows import Window
from tables import table, write_tables

import segfocal as sf
from segfocal import clusters
from segfocal.agenda import Agenda
from segfocal.engine.engines import in_engine
from segfocal.scan_units import ScanTask, run_unit
from segfocal.scheduling import Watch

CHANNELS = ("red", "green", "blue")


def make_scene(path, rows, cols):
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=cols, height=rows, count=3, dtype="uint8", tiled=True,
        compress="deflate", crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as scene:  # fmt: skip
        for row in range(0, rows, 256):
            wave = np.sin(np.arange(row, row + 256) / 61.0)[:, None] * np.sin(np.arange(cols) / 97)
            block = 120 + 90 * wave + rng.normal(0, 4, (3, 256, cols))
            scene.write(block.clip(1, 254).astype(np.uint8), window=Window(0, row, cols, 256))


def make_model(path):
    card = sf.Card(
        channels=tuple({"name": name, "mean": 120, "std": 50} for name in CHANNELS),
        classes=tuple({"value": i, "name": f"class {i}", "color": (i, 0, 0)} for i in range(6)),
        tile=(256, 256),
    )
    keras.utils.set_random_seed(0)
    model = sf.FocalUNet(card=card, preset="nano")
    sf.export(model, path, format="onnx")


def processor_seconds():
    """Return the processor time of this process and of all below it, Ray's among them."""
    parents, times = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            process = int(stat.parent.name)
            parents[process], times[process] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, before = {os.getpid()}, 0
    while len(family) > before:
        before = len(family)
        family |= {process for process, parent in parents.items() if parent in family}
    return sum(times[process] for process in family) / os.sysconf("SC_CLK_TCK")


def now():
    return np.array([time.perf_counter(), processor_seconds()])


def run_serially(model, task):
    """Return seconds, processor seconds and the result of a scan whose units this process does."""
    agenda, result = Agenda({0: task}), None
    started = now()
    while (unit := agenda.next()) is not None:
        result = agenda.take(unit, run_unit(model, task, unit, {}))
    return *(now() - started), result


class Clock(Watch):
    """Notes when the first unit was handed out and when the last came back."""

    started = ended = None

    def poll(self, ray, running):
        if running and self.started is None:
            self.started = now()
        super().poll(ray, running)

    def note(self, unit, tiles, agenda):
        self.ended = now()
        super().note(unit, tiles, agenda)


def run_by_ray(model, task):
    """Return seconds until the model is loaded, then as :func:`run_serially`."""
    clock, begun = Clock(), time.perf_counter()
    (result,) = clusters.scans_on_cluster(
        str(model), {0: task}, {}, workers=1, address=None, tell=None, watch=clock
    )
    return clock.started[0] - begun, *(clock.ended - clock.started), result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=24576)
    parser.add_argument("--cols", type=int, default=1024)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    serial, by_ray, starts, waits = [], [], [], []
    work, work_by_ray = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scene(folder / "scene.tif", options.rows, options.cols)
        make_model(folder / "model.onnx")
        model = in_engine(folder / "model.onnx")
        for i in range(options.repeat):
            task = ScanTask(folder / "scene.tif", folder / f"serial{i}.tif", options.parts)
            seconds, processor, result = run_serially(model, task)
            serial.append(seconds)
            work.append(processor)
            task = ScanTask(folder / "scene.tif", folder / f"ray{i}.tif", options.parts)
            start, seconds, processor, same = run_by_ray(folder / "model.onnx", task)
            by_ray.append(seconds)
            work_by_ray.append(processor)
            starts.append(start)
            waits.append(1 - same.seconds / seconds)
            if same.value.sha256 != result.value.sha256:
                raise SystemExit("the label maps differ")
            print(
                f"serial {serial[-1]:.2f} s ({work[-1]:.2f} s of processors), Ray {seconds:.2f} s "
                f"({processor:.2f} s), without a unit {waits[-1]:.2%}",
                flush=True,
            )
    middle = [statistics.median(values) for values in (serial, by_ray, starts, waits)]
    used = [statistics.median(values) for values in (work, work_by_ray)]
    write_tables(
        options.out,
        "What a Ray cluster costs besides the work",
        "cluster_overhead.py",
        [
            f"{options.rows} × {options.cols} pixels in {options.parts} parts, medians of "
            f"{options.repeat} runs in turns; the same bytes.",
            table(
                ["", "seconds", "of serial", "processor seconds", "of serial"],
                [
                    ["serial", f"{middle[0]:.2f}", "1.000", f"{used[0]:.2f}", "1.000"],
                    [
                        "Ray, one worker",
                        f"{middle[1]:.2f}",
                        f"{middle[1] / middle[0]:.3f}",
                        f"{used[1]:.2f}",
                        f"{used[1] / used[0]:.3f}",
                    ],
                ],
            ),
            f"Share of the Ray run in which the worker had no unit: {middle[3]:.2%}. Starting Ray "
            f"and loading the model, once: {middle[2]:.1f} s.",
        ],
    )
