"""How long it takes to start: the import, the command line, and `predict` until its first tile.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --preset nano --side 64 --rounds 2

Each is a process of its own, from the moment it is started to its end, or for predictions until the
first tile has come back from the network; they take turns. Files were read before, as they were
where a command is used more than once. Predictions run one tile per call over a scene of one tile:
with the .keras file in TensorFlow, with what `segfocal export` makes of it, with the .keras
file whose conversion is in the cache, and with the int8 model.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from plots import bar_plot
from tables import page_options, table, write_tables
from turns import THREADS, with_threads

PASS, TENSORFLOW = "`python -c pass`", "`import tensorflow`"

FIRST_TILE = """
import sys, segfocal
def told(done, total):
    if done:
        print("tile", flush=True)
model, scene, labels, engine = sys.argv[1:]
segfocal.predict(model, scene, labels, tile={side}, batch_size=1, engine=engine, progress=told)
"""
"""Prints a line when the first tile is done."""


def commands(folder: Path, side: int) -> dict[str, list[str]]:
    """Return what is started, by title."""
    python = [sys.executable, "-c"]
    found = {
        PASS: [*python, "pass"],
        TENSORFLOW: [*python, "import tensorflow"],
        "`import segfocal`": [*python, "import segfocal"],
        "`segfocal --help`": [sys.executable, "-m", "segfocal", "--help"],
    }
    for title, model, engine, package in (
        ("first tile, .keras in TensorFlow", "model.keras", "keras", "tensorflow"),
        ("first tile, .xml in OpenVINO", "model.xml", "auto", "openvino"),
        ("first tile, .keras converted before, in OpenVINO", "model.keras", "openvino", "openvino"),
        ("first tile, int8 .xml in OpenVINO", "int8.xml", "auto", "nncf"),
    ):
        if importlib.util.find_spec(package) is None:
            print(f"{title} is left out: needs {package}", flush=True)
            continue
        files = [str(folder / name) for name in (model, "scene.tif")]
        found[title] = [*python, FIRST_TILE.format(side=side), *files, "LABELS", engine]
    return found


def run(command: Sequence[str], folder: Path, threads: int) -> float:
    """Return the seconds until the command has printed its first tile, or has ended."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [str(Path(out) / "labels.tif") if one == "LABELS" else one for one in command]
        environment = {**with_threads(threads), "SEGFOCAL_CACHE": str(folder / "cache")}
        environment.pop("SEGFOCAL_ENGINE", None)
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        is_prediction = command[-1] in ("keras", "auto", "openvino")
        seconds = None
        if is_prediction and process.stdout.readline() == "tile\n":
            seconds = time.perf_counter() - started
        _, errors = process.communicate()
        if seconds is None:
            seconds = time.perf_counter() - started
        if process.returncode or (is_prediction and not (Path(out) / "labels.tif").exists()):
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{errors}")
    return seconds


def rows(seconds: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Return the table's rows: medians, and medians of the ratios within each round."""
    return [
        [
            name,
            f"{statistics.median(times):.2f}",
            *(
                f"{statistics.median(a / b for a, b in zip(times, seconds[base], strict=True)):.3g}"
                for base in (TENSORFLOW, PASS)
            ),
        ]
        for name, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny_srf")
    parser.add_argument("--side", type=int, default=512, help="of the tile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=THREADS)
    page_options(parser, __file__)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare = [sys.executable, __file__, "--prepare", temporary, options.preset]
        subprocess.run([*prepare, str(options.side)], check=True)
        started = commands(folder, options.side)
        seconds: dict[str, list[float]] = {name: [] for name in started}
        for turn in range(options.rounds + 1):
            for name, command in started.items():
                found = run(command, folder, options.threads)
                if turn:  # the first reads files and fills the cache
                    seconds[name].append(found)
            print(f"round {turn} of {options.rounds}", flush=True)
    plot = options.out.with_suffix(".svg")
    title = "Start-up: seconds"
    medians = {name.replace("`", ""): statistics.median(its) for name, its in seconds.items()}
    bar_plot(plot, title, medians, "s", "first tile")
    write_tables(
        options.out,
        "Start-up",
        "start_up.py",
        [
            f"{options.preset}, one tile of {options.side} × {options.side} pixels, "
            f"{options.threads} threads; medians of {options.rounds} rounds.",
            table(["", "seconds", f"times {TENSORFLOW}", f"times {PASS}"], rows(seconds)),
            f"![{title}]({plot.name})",
        ],
    )


def prepare(folder: Path, preset: str, side: int) -> None:
    """Write the models and a scene of one tile."""
    import numpy as np
    import rasterio
    from forward_passes import write_models

    setting = {"folder": str(folder), "tile": [side, side], "channels": 3, "classes": 6}
    write_models(setting, preset)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=side, height=side, count=3,
        dtype="float32", crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as scene:  # fmt: skip
        scene.write(np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--prepare"]:
        prepare(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        os._exit(0)  # nothing is left to be written
    main()
