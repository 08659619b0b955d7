"""What tiled inference costs besides the model: segfocal, a numpy loop in memory, and MONAI.

    python benchmarks/pipeline_cost.py                    # 8192 x 8192 pixels
    python benchmarks/pipeline_cost.py --side 4096 --repeat 3

The model costs almost nothing: it repeats the three uint8 channels as six classes. All three
read the same tiled, compressed GeoTIFF, blend the same tiles (512, overlap 128, Gaussian) and
write labels as a tiled GeoTIFF with the same compression. The numpy loop is what one would write
by hand; it and MONAI hold the scene and all class scores in memory. Each runs in a process of its
own, in turns; medians are compared. GDAL's copy of a plain GeoTIFF into a cloud-optimised one is
timed apart. The aim: at most 1.5 of the numpy loop, and less than MONAI.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window
from tables import page_options, table, write_tables

TILE, OVERLAP, CLASSES = 512, 128, 6
STRIDE = TILE - OVERLAP
OUTPUT = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512,
          "compress": "deflate", "count": 1, "dtype": "uint8", "nodata": 255}  # fmt: skip


def six_classes(values):
    """Return ``(batch, rows, cols, 6)`` from ``(batch, rows, cols, 3)``."""
    return np.concatenate([values, 255 - values], axis=-1) / np.float32(255 * 3)


def make_scene(path, side):
    """Write a smooth scene with some noise, which compresses as images do."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(side) / 97.0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", interleave="pixel",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as scene:  # fmt: skip
        for row in range(0, side, 512):
            high = min(512, side - row)
            rows = np.sin(np.arange(row, row + high) / 61.0)[:, None]
            for band in (1, 2, 3):
                block = 120 + 90 * rows * np.roll(wave, 50 * band) + rng.normal(0, 4, (high, side))
                scene.write(
                    block.clip(1, 254).astype(np.uint8), band, window=Window(0, row, side, high)
                )


def gaussian():
    centred = np.arange(TILE) - (TILE - 1) / 2
    line = np.exp(-0.5 * (centred / (0.125 * TILE)) ** 2)
    return (line[:, None] * line).astype(np.float32)


def run_segfocal(scene, labels):
    import segfocal as sf
    from segfocal.card import Card, Channel, LabelClass

    class Model:
        ndim, output_stride, hash, engine, batch_matters = 2, 1, "six", "numpy", False
        card = Card(
            channels=tuple(Channel(name=name) for name in "rgb"),
            classes=tuple(
                LabelClass(value=i, name=f"class {i}", color=(40 * i, 0, 0)) for i in range(CLASSES)
            ),
        )

        def __call__(self, values, valid):
            return six_classes(values)

    predict = sf.predict  # loaded before the clock starts, as what the others use is
    started = time.perf_counter()
    predict(Model(), scene, labels, tile=TILE, overlap=OVERLAP, layout="gtiff")
    return time.perf_counter() - started


def run_numpy(scene, labels):
    started = time.perf_counter()
    with rasterio.open(scene) as source:
        image, profile = np.moveaxis(source.read(), 0, -1), source.profile
    rows, cols = image.shape[:2]
    grid = [range(0, max(length - OVERLAP, 1), STRIDE) for length in (rows, cols)]
    reach = [max(starts) + TILE - length for starts, length in zip(grid, (rows, cols), strict=True)]
    padded = np.pad(image, [(0, reach[0]), (0, reach[1]), (0, 0)], mode="reflect")
    scores = np.zeros((*padded.shape[:2], CLASSES), np.float32)
    total = np.zeros(padded.shape[:2], np.float32)
    weights = gaussian()
    for row in grid[0]:
        for col in grid[1]:
            place = np.s_[row : row + TILE, col : col + TILE]
            tile = padded[place].astype(np.float32)
            scores[place] += six_classes(tile[None])[0] * weights[..., None]
            total[place] += weights
    scores /= total[..., None]
    found = scores[:rows, :cols].argmax(-1).astype(np.uint8)
    grid_of = {key: profile[key] for key in ("crs", "transform", "width", "height")}
    with rasterio.open(labels, "w", **OUTPUT, **grid_of) as target:
        target.write(found, 1)
    return time.perf_counter() - started


def run_monai(scene, labels):
    import torch
    from monai.inferers import sliding_window_inference

    def network(batch):
        return torch.cat([batch, 255 - batch], 1) / (255 * 3)

    started = time.perf_counter()
    with rasterio.open(scene) as source:
        image, profile = source.read(), source.profile
    with torch.inference_mode():
        scores = sliding_window_inference(
            torch.from_numpy(image.astype(np.float32))[None], (TILE, TILE), 4, network,
            overlap=OVERLAP / TILE, mode="gaussian",
        )  # fmt: skip
        found = scores[0].argmax(0).to(torch.uint8).numpy()
    grid_of = {key: profile[key] for key in ("crs", "transform", "width", "height")}
    with rasterio.open(labels, "w", **OUTPUT, **grid_of) as target:
        target.write(found, 1)
    return time.perf_counter() - started


def run_copy(scene, labels):
    """GDAL alone: a label map, plain to cloud-optimised."""
    started = time.perf_counter()
    rasterio.shutil.copy(scene, labels, driver="COG", compress="DEFLATE", blocksize=512,
                         overview_resampling="NEAREST")  # fmt: skip
    return time.perf_counter() - started


RUNS = {"segfocal": run_segfocal, "numpy": run_numpy, "monai": run_monai, "gdal cog": run_copy}


def peak_mb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000


def measure(what, scene, labels):
    for path in labels.parent.glob(f"{labels.name}*"):
        path.unlink()
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what, str(scene), str(labels)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        what, scene, labels = sys.argv[2:]
        seconds = RUNS[what](Path(scene), Path(labels))
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))
        sys.exit()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-monai", action="store_true")
    page_options(parser, __file__)
    options = parser.parse_args()
    names = [name for name in RUNS if not (name == "monai" and options.without_monai)]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        make_scene(scene, options.side)
        for _ in range(options.repeat):
            for name in names:
                source = scene if name != "gdal cog" else Path(folder) / "segfocal.tif"
                results[name].append(
                    measure(name, source, Path(folder) / f"{name.replace(' ', '_')}.tif")
                )
        with (
            rasterio.open(Path(folder) / "segfocal.tif") as ours,
            rasterio.open(Path(folder) / "numpy.tif") as loop,
        ):
            agree = float((ours.read(1) == loop.read(1)).mean())
    base = statistics.median(run["seconds"] for run in results["numpy"])
    rows = []
    for name, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        peak = max(run["peak_mb"] for run in runs)
        rows.append([name, f"{seconds:.2f}", f"{seconds / base:.2f}", f"{peak:.0f}"])
    write_tables(
        options.out,
        "What tiled inference costs besides the model",
        "pipeline_cost.py",
        [
            f"{options.side} × {options.side} pixels, medians of {options.repeat}; labels equal to "
            f"the loop's: {agree:.3%}.",
            table(["", "seconds", "of the numpy loop", "peak MB"], rows),
        ],
    )
