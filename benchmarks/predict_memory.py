"""Peak memory of `segfocal.predict` against the size of the scene, TensorFlow loaded.

    python benchmarks/predict_memory.py                  # 20 000 and 40 000 pixels square
    python benchmarks/predict_memory.py 2500 5000 10000

Each scene is a sparse GeoTIFF of three uint8 bands, segmented by a pointwise model of ten
classes in a process of its own; what the process took at most, and what it kept on disk until
the label map was complete, are printed. The aim: at most 1.05 of the first scene's, below 2 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import rasterio

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.engine.scratch import kept_bytes
from segfocal.quiet import load_keras

SIDES = (20_000, 40_000)
CLASSES = 10


class Pointwise:
    """Scores classes by the distance of the first band from a value of each."""

    ndim, output_stride, hash, engine, batch_matters = 2, 1, "pointwise", "numpy", False
    card = Card(
        channels=tuple(Channel(name=name) for name in "rgb"),
        classes=tuple(
            LabelClass(value=i, name=f"class {i}", color=(20 * i, 0, 0)) for i in range(CLASSES)
        ),
        tile=(512, 512),
    )

    def __call__(self, values, valid):
        centres = np.linspace(0, 255, CLASSES, dtype=np.float32)
        near = 1 / (1 + np.abs(values[..., :1] - centres))
        near /= near.sum(-1, keepdims=True)
        return near


def peak_bytes():
    # Not ru_maxrss: a child process starts with the peak of the one that it was forked from.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(side, folder):
    load_keras()
    import tensorflow  # noqa: F401

    loaded = peak_bytes()
    scene, labels = folder / "scene.tif", folder / "labels.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True,
        blockxsize=512, blockysize=512, sparse_ok=True, bigtiff="YES", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ):  # fmt: skip
        pass
    scratch, running = [0], True

    def watch():
        while running:
            scratch.append(kept_bytes(labels))
            time.sleep(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = sf.predict(Pointwise(), scene, labels)
    running = False
    watcher.join()
    return {
        "side": side,
        "tiles": result.tiles,
        "seconds": result.seconds,
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(),
        "scratch_bytes": max(scratch),
        "output_bytes": labels.stat().st_size,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
        sys.exit()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sides", type=int, nargs="*", default=SIDES, help="of the scenes")
    rows = []
    given = parser.parse_args()
    print(f"{'rows x cols':>16}{'s':>8}{'Mpx/s':>8}{'loaded':>8}{'peak MB':>9}{'of first':>10}"
          f"{'scratch MB':>12}{'output MB':>11}")  # fmt: skip
    for side in given.sides:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, __file__, "--measure", str(side), folder],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        row = json.loads(done.stdout)
        rows.append(row)
        print(
            f"{side:>7} x {side:<6}{row['seconds']:>8.0f}{side**2 / row['seconds'] / 1e6:>8.1f}"
            f"{row['loaded_bytes'] / 1e6:>8.0f}{row['peak_bytes'] / 1e6:>9.0f}"
            f"{row['peak_bytes'] / rows[0]['peak_bytes']:>10.3f}{row['scratch_bytes'] / 1e6:>12.1f}"
            f"{row['output_bytes'] / 1e6:>11.1f}",
            flush=True,
        )
