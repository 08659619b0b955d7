"""Peak memory and throughput of the sweep against the length of the scan.

    python benchmarks/stream_memory.py

Streams a constant model over virtual scans, whose pixels are made when they are read, of
growing height and equal width, each in a process of its own. Memory should not grow.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np

import segfocal as sf
from segfocal.types import Patch, window_shape

WIDTH = 20_000
HEIGHTS = (2_500, 5_000, 10_000, 20_000)


class VirtualScan(sf.MemoryScan):
    """A scan without storage."""

    def __init__(self, shape):
        super().__init__(np.zeros((1, 1, 3), np.uint8))
        self.shape = shape

    def read(self, window, channels=None):
        values = np.full((*window_shape(window), 3), 7, np.uint8)
        return Patch(values, np.ones(values.shape, bool))


def constant(batch):
    return np.broadcast_to(np.float32([0.2, 0.8]), (*batch.shape[:-1], 2))


def measure(height):
    started = time.perf_counter()
    pixels = 0
    for window, _ in sf.stream(constant, VirtualScan((height, WIDTH)), tile=512, overlap=128):
        pixels += int(np.prod(window_shape(window)))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"height": height, "pixels": pixels, "seconds": seconds, "peak_bytes": peak}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        sys.exit()
    rows = []
    for height in HEIGHTS:
        done = subprocess.run(
            [sys.executable, __file__, str(height)], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout))
    print(f"{'rows x cols':>16}{'Mpx/s':>9}{'peak MB':>9}{'peak relative to first':>25}")
    for row in rows:
        print(
            f"{row['height']:>7} x {WIDTH}{row['pixels'] / row['seconds'] / 1e6:>9.1f}"
            f"{row['peak_bytes'] / 1e6:>9.0f}{row['peak_bytes'] / rows[0]['peak_bytes']:>25.2f}"
        )
