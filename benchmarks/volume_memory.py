"""Peak memory of `segfocal.predict` against the length of a volume, TensorFlow loaded.

    python benchmarks/volume_memory.py                      # 512 x 512 x 2 000 and 8 000
    python benchmarks/volume_memory.py --side 128 100 400   # other sides and lengths

Each volume is int16, once as .nii and once as .nii.gz, segmented by a pointwise model of 14
classes in tiles 64 planes deep, in a process of its own. The aim: below 2.5 GB, and at most
1.05 of the shortest volume's. At full size the files take 17 GB, and outputs and scratch
another 3 GB.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

import segfocal as sf
from segfocal.card import Card, Channel, LabelClass
from segfocal.quiet import load_keras

LENGTHS = (2000, 8000)
CLASSES = 14
AIM_BYTES, AIM_RATIO = 2.5e9, 1.05


class Pointwise:
    """Scores classes by the distance of a voxel from a value of each."""

    ndim, output_stride, hash, engine, batch_matters = 3, 1, "pointwise", "numpy", False

    def __init__(self, side):
        self.card = Card(
            ndim=3,
            channels=(Channel(name="ct"),),
            classes=tuple(
                LabelClass(value=i, name=f"class {i}", color=(15 * i, 0, 0)) for i in range(CLASSES)
            ),
            tile=(min(128, side), min(128, side), 64),
            orientation="RAS",
        )

    def __call__(self, values, valid):
        centres = np.linspace(-1000, 1000, CLASSES, dtype=np.float32)
        near = 1 / (1 + np.abs(values[..., :1] - centres))
        near /= near.sum(-1, keepdims=True)
        return near


def write_volume(path, side, length):
    """Write a volume plane by plane: a body of soft tissue in air, with noise."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((side, side, length))
    header.set_sform(np.diag([-0.8, 0.8, 1.0, 1]), 1)
    header.set_qform(np.diag([-0.8, 0.8, 1.0, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    rng = np.random.default_rng(0)
    x, y = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(header.binaryblock + bytes(4))
        for plane in range(length):
            body = x**2 + (y * 1.4 + 0.1 * np.sin(plane / 40)) ** 2 < 0.8
            noise = rng.integers(-30, 30, (side, side), np.int16)
            values = np.where(body, 40 + 900 * np.sin(9 * x + plane / 90) * y, -1000) + noise
            file.write(values.astype("<i2").tobytes("F"))


def peak_bytes():
    # Not ru_maxrss: a child process starts with the peak of the one that it was forked from.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(volume, side):
    load_keras()
    import tensorflow  # noqa: F401

    loaded = peak_bytes()
    labels = volume.with_name(volume.name.replace("volume", "labels"))
    # Without overlap, which would take more time and no more memory.
    result = sf.predict(Pointwise(side), volume, labels, overlap=0)
    return {
        "seconds": result.seconds,
        "tiles": result.tiles,
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(),
        "input_bytes": volume.stat().st_size,
        "output_bytes": labels.stat().st_size,
    }


def main(side, lengths, suffixes):
    print(f"{'voxels':>20}{'file':>9}{'input MB':>10}{'s':>7}{'Mvox/s':>8}{'loaded':>8}"
          f"{'peak MB':>9}{'of first':>10}{'output MB':>11}")  # fmt: skip
    reached = True
    for suffix in suffixes:
        first = None
        for length in lengths:
            with tempfile.TemporaryDirectory() as folder:
                volume = Path(folder) / f"volume{suffix}"
                write_volume(volume, side, length)
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", str(volume), "--side", str(side)],
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
            row = json.loads(done.stdout)
            first = first or row["peak_bytes"]
            ratio = row["peak_bytes"] / first
            reached &= row["peak_bytes"] < AIM_BYTES and ratio <= AIM_RATIO
            print(
                f"{f'{side} x {side} x {length}':>20}{suffix:>9}{row['input_bytes'] / 1e6:>10.0f}"
                f"{row['seconds']:>7.0f}{side * side * length / row['seconds'] / 1e6:>8.1f}"
                f"{row['loaded_bytes'] / 1e6:>8.0f}{row['peak_bytes'] / 1e6:>9.0f}{ratio:>10.3f}"
                f"{row['output_bytes'] / 1e6:>11.1f}",
                flush=True,
            )
    print("reached" if reached else "missed", f"the aim: {AIM_BYTES / 1e9} GB, {AIM_RATIO}")
    return reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lengths", nargs="*", type=int, default=LENGTHS)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--suffix", nargs="+", default=[".nii", ".nii.gz"])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.side)))
        sys.exit()
    sys.exit(not main(options.side, options.lengths, options.suffix))
