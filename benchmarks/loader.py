"""Training steps with the loader against steps on batches that lie in memory.

    python benchmarks/loader.py                       # on two cores, about ten minutes
    python benchmarks/loader.py --steps 4 --rounds 1 --side 512 --length 96

The network is ``nano``, the augmentation the default. Scenes: patches of 256 x 256 pixels, eight a
step, from a compressed GeoTIFF of four bands. Volumes: patches of 64 x 64 x 64 voxels, two a step,
from three .nii.gz files. Both kinds of steps are one compiled function in one process, in turns;
medians of the time from one step's end to the next are compared. The aim: at most 1.10.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CORES = 2
if hasattr(os, "sched_setaffinity"):  # before TensorFlow counts them
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import rasterio  # noqa: E402
from tables import table, write_tables  # noqa: E402

import segfocal as sf  # noqa: E402
from segfocal.quiet import load_keras  # noqa: E402

load_keras()

import keras  # noqa: E402

from segfocal.batches import PatchBatches  # noqa: E402
from segfocal.data.workers import BatchWorkers, SamplerRecipe  # noqa: E402
from segfocal.losses import DiceCrossEntropy  # noqa: E402

SKIPPED = 3
"""Steps at the start of a turn that are not counted: workers fill their queue."""


def make_scene(folder, side):
    """Write a scene with four bands and labels, and return its spec."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:side, :side] / 60.0
    field = np.sin(rows) + np.cos(cols)
    bands = [1000 + 300 * field * k + rng.normal(0, 40, field.shape) for k in (1, 2, -1, 0.5)]
    labels = np.digitize(field, [-0.8, 0.9, 1.8]).astype(np.uint8)
    grid = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0),
            "width": side, "height": side, "tiled": True, "compress": "deflate"}  # fmt: skip
    for name, layers, dtype in (("scene", bands, "uint16"), ("labels", [labels], "uint8")):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=len(layers), dtype=dtype, **grid
        ) as out:
            out.write(np.stack(layers).clip(0).astype(dtype))
    return {
        "ndim": 2,
        "channels": ["blue", "green", "red", "nir"],
        "cases": [{"id": "scene", "image": "scene.tif", "labels": "labels.tif"}],
    }


def make_volumes(folder, length):
    """Write three volumes and labels, and return their spec."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(3):
        grid = np.indices((length, length, length // 2)) / 25.0
        field = np.sin(grid[0] + number) + np.cos(grid[1]) + np.sin(grid[2])
        image = (500 * field + rng.normal(0, 60, field.shape)).astype(np.int16)
        labels = np.digitize(field, [0.5, 1.2, 2.2]).astype(np.uint8)
        for name, array in (("image", image), ("labels", labels)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}{number}.nii.gz")
        files = {key: f"{key}{number}.nii.gz" for key in ("image", "labels")}
        cases.append({"id": f"volume{number}", **files})
    return {"ndim": 3, "channels": ["mr"], "cases": cases}


class Clock(keras.callbacks.Callback):
    """Notes the time from the end of one step to that of the next."""

    def __init__(self):
        super().__init__()
        self.seconds, self._before, self._count = [], None, 0

    def on_train_begin(self, logs=None):
        self._before, self._count = None, 0

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self._count += 1
        if self._before is not None and self._count > SKIPPED:
            self.seconds.append(now - self._before)
        self._before = now


def measure(folder, document, patch, batch_size, options):
    """Return the medians of a step's time, in memory and with the loader, and the loader's own."""
    cases = document["cases"]
    spec = sf.DatasetSpec.model_validate(
        {
            "name": "benchmark",
            "classes": [{"value": k, "name": f"class {k}"} for k in range(4)],
            "splits": {"train": [{"case": case["id"]} for case in cases]},
            **document,
        }
    ).located(folder)
    plan = sf.make_plan(spec, preset="nano", patch=patch, batch_size=batch_size)
    model = sf.FocalUNet.from_plan(spec, plan)
    model.compile(keras.optimizers.AdamW(1e-3), DiceCrossEntropy())
    clocks = {"in memory": Clock(), "loader": Clock()}
    recipe = SamplerRecipe(spec, plan, cache_bytes=10**9)
    steps = options.steps + SKIPPED
    with BatchWorkers(recipe, steps, workers=options.workers, processes=options.processes) as made:
        kept = [made.get(0, number) for number in range(4)]
        started = time.perf_counter()
        alone = BatchWorkers(recipe, steps, workers=0)
        for number in range(4):
            alone.get(0, number)  # the cache of this one fills
        started = time.perf_counter()
        for number in range(4, 8):
            alone.get(0, number)
        loader_alone = (time.perf_counter() - started) / 4
        alone.close()
        memory = PatchBatches(lambda epoch, number: kept[number % len(kept)], steps)
        model.fit(memory, epochs=1, verbose=0, shuffle=False)  # compiled here
        loader = PatchBatches(made.get, steps)
        for turn in range(options.rounds):
            loader.epoch = turn
            for name, source in (("in memory", memory), ("loader", loader)):
                model.fit(source, verbose=0, shuffle=False, callbacks=[clocks[name]])
    return (*(clocks[name].seconds for name in ("in memory", "loader")), loader_alone)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn that count")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each kind")
    parser.add_argument("--side", type=int, default=4096, help="of the scene, in pixels")
    parser.add_argument("--length", type=int, default=192, help="of the volumes, in voxels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    rows = []
    for name, make, size, patch, batch_size in (
        ("scene, 256 × 256, 8 a step", make_scene, options.side, (256, 256), 8),
        ("volumes, 64 × 64 × 64, 2 a step", make_volumes, options.length, (64, 64, 64), 2),
    ):
        # Each in a process of its own, as datasets are trained on: memory that one leaves behind
        # would change the other.
        fresh = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, fresh) as process:
            document = make(Path(folder), size)
            given = (Path(folder), document, patch, batch_size, options)
            memory, loader, alone = process.submit(measure, *given).result()
        medians = [statistics.median(seconds) for seconds in (memory, loader)]
        means = [statistics.fmean(seconds) for seconds in (memory, loader)]
        numbers = (*medians, medians[1] / medians[0], means[1] / means[0], alone)
        rows.append([name, *(f"{number:.3f}" for number in numbers)])
        print(rows[-1], flush=True)
    header = ["", "in memory, s", "with the loader, s", "ratio", "ratio of means", "a batch, s"]
    kind = "processes" if options.processes else "threads"
    write_tables(
        options.out,
        "Training steps with the loader",
        "loader.py",
        [
            f"Medians of {options.rounds} × {options.steps} steps of `nano` in turns, on {CORES} "
            f"cores, with {options.workers} {kind}; last, what making a batch takes alone.",
            table(header, rows),
        ],
    )
