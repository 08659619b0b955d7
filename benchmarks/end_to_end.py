"""A scene from file to label map: `segfocal predict` against MONAI, in time and in memory.

    python benchmarks/end_to_end.py                             # 2048 x 2048, with SwinUNETR
    python benchmarks/end_to_end.py --size 4096 --rounds 1
    python benchmarks/end_to_end.py --size 8192 --rounds 1      # both go into the same page
    python benchmarks/end_to_end.py --size 1024 --preset nano --tile 256 --rounds 1

Ours is the command, with an exported OpenVINO model in float32 and one in int8; it streams, keeps
finished units on disk and writes a cloud-optimised GeoTIFF with overviews. MONAI's part reads the
scene into memory, runs sliding_window_inference with SwinUNETR in PyTorch and writes a plain tiled
GeoTIFF. Same scene, same tiles (512, overlap a quarter, Gaussian), batches of four. Each is a
process of its own, start-up included, in turns. Before and after each of our runs the bare network
is timed on tiles in memory at the same batch; the time of the run, whole and after start-up, is
compared with that of as many tiles. Where SwinUNETR would take too long, a network that copies its
input as six classes shows what the inference around it takes in memory; its time means nothing.
Weights are random. Without `pip install 'segfocal[peers]'` MONAI is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from peer_networks import MONAI, monai_network
from plots import line_plot
from tables import Results, code_digest, page_options, table, write_tables
from turns import THREADS, keep_to_cores, missing, peak_bytes, with_threads

CHANNELS, CLASSES, BATCH = 3, 6, 4
BARE_TILES = 16

FLOAT32, INT8 = "segfocal, float32", "segfocal, int8"
SWIN, IDENTITY = "MONAI, SwinUNETR", "MONAI, identity"
MODELS = {FLOAT32: "model.xml", INT8: "int8.xml"}
HEADER = ["pixels", "", "seconds", "Mpx/s", "times as fast as SwinUNETR",
          "of tiles × forward", "after start-up", "peak MB", "of MONAI's memory"]  # fmt: skip


def run_command(model: str, scene: str, labels: str, tile: int) -> None:
    """Run `segfocal predict`; its JSON goes to stdout."""
    from segfocal.cli import segfocal

    sides = ["--tile", str(tile), "--overlap", str(tile // 4), "--batch-size", str(BATCH)]
    segfocal(["predict", model, scene, "-o", labels, *sides, "--json"], standalone_mode=False)


def run_bare(model: str, tile: int) -> None:
    """Print the seconds that a tile takes in a batch."""
    from segfocal.engine.predictors import load_model

    predictor = load_model(model)
    values = np.random.default_rng(0).integers(1, 255, (BATCH, tile, tile, CHANNELS))
    values, valid = values.astype(np.float32), np.ones((BATCH, tile, tile), bool)
    predictor(values, valid)
    times = []
    for _ in range(BARE_TILES // BATCH):
        started = time.perf_counter()
        predictor(values, valid)
        times.append((time.perf_counter() - started) / BATCH)
    print(json.dumps({"forward": statistics.median(times)}))


def run_monai(name: str, scene: str, labels: str, tile: int) -> None:
    """Segment a scene with MONAI's sliding window."""
    import rasterio
    import torch
    from monai.inferers import sliding_window_inference
    from pipeline_cost import OUTPUT

    if name == IDENTITY:

        def network(batch: Any) -> Any:
            return torch.cat([batch, 255 - batch], 1)
    else:
        network = monai_network("SwinUNETR", (tile, tile), CHANNELS, CLASSES).eval()
    with rasterio.open(scene) as source:
        image, profile = source.read(), source.profile
    with torch.inference_mode():
        scores = sliding_window_inference(
            torch.from_numpy(image.astype(np.float32))[None], (tile, tile), BATCH, network,
            overlap=0.25, mode="gaussian",
        )  # fmt: skip
        found = scores[0].argmax(0).to(torch.uint8).numpy()
    grid = {key: profile[key] for key in ("crs", "transform", "width", "height")}
    with rasterio.open(labels, "w", **OUTPUT, **grid) as target:
        target.write(found, 1)
    print(json.dumps({}))


def measured(name: str, folder: Path, scene: Path, tile: int, threads: int) -> dict[str, Any]:
    """Return seconds of a process of its own (``command``), its peak and what else it told."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        request = [name, str(folder), str(scene), str(Path(out) / "labels.tif"), str(tile)]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--measure", *request, str(threads)],
            stdout=subprocess.PIPE, text=True, check=True, env=with_threads(threads),
        )  # fmt: skip
        seconds = time.perf_counter() - started
    told, peak = done.stdout.splitlines()
    return {"command": seconds, **json.loads(told), **json.loads(peak)}


def measure(arguments: list[str]) -> None:
    """The other side of :func:`measured`."""
    name, folder, scene, labels, tile, threads = arguments
    keep_to_cores(int(threads))
    if name in MODELS:
        run_command(str(Path(folder) / MODELS[name]), scene, labels, int(tile))
    elif name in MODELS.values():
        run_bare(str(Path(folder) / name), int(tile))
    else:
        run_monai(name, scene, labels, int(tile))
    print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


def round_of(
    names: list[str], folder: Path, scene: Path, tile: int, threads: int
) -> dict[str, dict[str, float]]:
    """Return what each contestant took, ours with the bare network's time around it."""
    found = {}
    for name in names:

        def bare(name: str = name) -> float:
            return measured(MODELS[name], folder, scene, tile, threads)["forward"]

        before = bare() if name in MODELS else 0.0
        one = measured(name, folder, scene, tile, threads)
        found[name] = {"seconds": one["command"], "peak_bytes": one["peak_bytes"]}
        if name in MODELS:
            bare_seconds = one["tiles"] * (before + bare()) / 2
            found[name] |= {
                "tiles": one["tiles"],
                "of_forward": one["command"] / bare_seconds,
                "started": one["seconds"] / bare_seconds,
            }
        print(f"{name}: {found[name]}", flush=True)
    return found


def rows(measured_sizes: Mapping[int, list[dict[str, dict[str, float]]]]) -> list[list[str]]:
    """Return the table's rows from the rounds of each size.

    Speed against SwinUNETR is per pixel and within a round; where it did not run at a size, per
    pixel against the largest size at which it did, which the cell says.
    """

    def median(size: int, name: str, what: str) -> float:
        return statistics.median(one[name][what] for one in measured_sizes[size])

    made = []
    with_peer = [size for size, rounds in measured_sizes.items() if SWIN in rounds[0]]
    for size, rounds in sorted(measured_sizes.items()):
        for name in rounds[0]:
            seconds = median(size, name, "seconds")
            faster = ""
            if name in MODELS and SWIN in rounds[0]:
                ratios = [one[SWIN]["seconds"] / one[name]["seconds"] for one in rounds]
                faster = f"{statistics.median(ratios):.2f}"
            elif name in MODELS and with_peer:
                peer = max(with_peer)
                per_pixel = median(peer, SWIN, "seconds") / peer**2
                faster = f"{per_pixel / (seconds / size**2):.2f} (its {peer} × {peer})"
            peers = [other for other in (SWIN, IDENTITY) if other in rounds[0]]
            share = ""
            if name in MODELS and peers:
                peak = median(size, peers[0], "peak_bytes")
                share = f"{median(size, name, 'peak_bytes') / peak:.2f}"
                share += " (identity)" if peers[0] == IDENTITY else ""
            made.append(
                [
                    f"{size} × {size}",
                    name,
                    f"{seconds:.1f}",
                    f"{size**2 / seconds / 1e6:.2f}",
                    faster,
                    *(
                        f"{median(size, name, what):.3f}" if name in MODELS else ""
                        for what in ("of_forward", "started")
                    ),
                    f"{median(size, name, 'peak_bytes') / 1e6:.0f}",
                    share,
                ]
            )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, nargs="+", default=[2048], help="sides of scenes")
    parser.add_argument(
        "--peer-limit", type=int, default=2048, help="largest size at which SwinUNETR runs (2048)"
    )
    parser.add_argument("--preset", default="tiny_srf")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--without-peers", action="store_true")
    work = Path(tempfile.gettempdir()) / "segfocal-benchmarks" / "end_to_end"
    parser.add_argument(
        "--work", type=Path, default=work, help=f"folder of models and measurements ({work})"
    )
    page_options(parser, __file__)
    options = parser.parse_args()
    # What another version of the package measured does not go into the same page.
    folder = options.work / f"{options.preset}-{options.tile}-{options.threads}-{code_digest()}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.xml").exists():
        prepare = [sys.executable, __file__, "--prepare", str(folder), options.preset]
        subprocess.run([*prepare, str(options.tile)], check=True)
    results = Results(folder / "results.json")
    for size in options.size:
        names = [name for name, file in MODELS.items() if (folder / file).exists()]
        lack = missing(MONAI["SwinUNETR"])
        if lack:
            print(f"MONAI is left out: {lack}", flush=True)
        elif not options.without_peers:
            names += [SWIN] * (size <= options.peer_limit) + [IDENTITY]
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            scene = Path(temporary) / "scene.tif"
            make_scene(scene, size)
            results[str(size)] = [
                round_of(names, folder, scene, options.tile, options.threads)
                for _ in range(options.rounds)
            ]
    sizes = {int(size): rounds for size, rounds in results.items()}
    plot = options.out.with_suffix(".svg")
    title = "A scene from file to label map: peak memory"
    curves = {
        name: [
            (float(size), statistics.median(one[name]["peak_bytes"] for one in rounds) / 1e6)
            for size, rounds in sorted(sizes.items())
            if name in rounds[0]
        ]
        for name in (*MODELS, SWIN, IDENTITY)
    }
    line_plot(
        plot, title, {name: curve for name, curve in curves.items() if curve},
        "side of the scene in pixels", "MB",
    )  # fmt: skip
    counts = ", ".join(f"{len(rounds)} of {size}" for size, rounds in sorted(sizes.items()))
    write_tables(
        options.out,
        "A scene from file to label map",
        "end_to_end.py",
        [
            f"{options.preset}, tiles of {options.tile}, {CHANNELS} channels, {CLASSES} classes, "
            f"{options.threads} threads; medians of the rounds ({counts}).",
            table(HEADER, rows(sizes)),
            f"![{title}]({plot.name})",
        ],
    )


def make_scene(path: Path, size: int) -> None:
    from pipeline_cost import make_scene

    make_scene(path, size)


def prepare(folder: Path, preset: str, tile: int) -> None:
    """Write the models; the float32 one appears last, and stands for all."""
    from forward_passes import write_models

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        setting = {"folder": temporary, "tile": [tile, tile], "channels": CHANNELS,
                   "classes": CLASSES}  # fmt: skip
        write_models(setting, preset)
        for name in ("int8.bin", "int8.xml", "model.bin", "model.xml"):
            if (Path(temporary) / name).exists():
                os.replace(Path(temporary) / name, folder / name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    elif sys.argv[1:2] == ["--prepare"]:
        prepare(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main()
