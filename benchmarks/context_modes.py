"""What the last focal level averages at inference, and what that does to scores and seams.

    python benchmarks/context_modes.py

Trains FocalUNet nano on each bundled sample as the demo does, with ``global_context="tile"`` and
with ``"none"``, for several seeds; segments the scans by tiled inference in every mode that the
trained weights allow; and measures mean IoU and accuracy on the held-out part and the jump of
the probabilities there across tile borders. Writes ``benchmarks/context_modes.md``.

*Seam*: the mean absolute jump of class probabilities between the two pixels on either side of a
tile border, divided by the mean jump between neighbouring pixels elsewhere. 1 is no seam, give
or take what the scan holds there: the column of one tile, which has no borders, shows what the
measure gives at the borders of the smallest tiles without any seam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sample_models import Job
from seams import seam
from tables import Results, parse, spread, table, write_tables

import segfocal as sf
from segfocal.confusion import accuracy, class_iou, confusion_matrix, mean_over_classes
from segfocal.data.channels import match_channels
from segfocal.data.reading import open_regions
from segfocal.demonstration import DEMOS
from segfocal.engine.calibration import measure_context
from segfocal.engine.predictors import as_predictor
from segfocal.tiling import TileGrid

MODES = ("tile", "local", "frozen, one pass", "frozen, exact", "none")
"""What the weights trained with ``"tile"`` can average instead."""

UNTRAINED = "none, trained so"

NETWORKS = {
    "tile": lambda plan: sf.FocalUNet(card=plan.card, preset=plan.preset),
    "none": lambda plan: sf.FocalUNet(
        card=plan.card, preset=plan.preset, encoder={"global_context": "none"}
    ),
}
TITLES = {"scene": "North Carolina", "volume": "Spine"}
STRIDE = 32


@dataclass(frozen=True)
class Tiles:
    """One way to lay tiles over a scan; ``overlap`` None is what ``predict`` chooses."""

    tile: tuple[int, ...]
    overlap: int | None = None
    halo: int = 0

    @property
    def batch_size(self) -> int:
        """Tiles per call: as many as the pixels of a few small ones."""
        return 1 if math.prod(self.tile) >= 2**18 else 4

    def grid(self, shape: Sequence[int]) -> TileGrid:
        """Return the grid over a scan as ``predict`` makes it."""
        kept = [side - 2 * self.halo for side in self.tile]
        overlap = [
            min(STRIDE * -(-side // (4 * STRIDE)), max(0, side - STRIDE))
            if self.overlap is None
            else self.overlap
            for side in kept
        ]
        return TileGrid.cover(shape, self.tile, halo=self.halo, overlap=overlap)

    def __str__(self) -> str:
        sides = "×".join(map(str, self.tile))
        cut = "blended" if self.overlap is None else "cut"
        return f"{sides} {cut}" + (f", halo {self.halo}" if self.halo else "")


LAYOUTS = {
    "scene": (
        Tiles((128, 128)),
        Tiles((128, 128), overlap=0),
        Tiles((128, 128), overlap=0, halo=32),
        Tiles((256, 256), overlap=0, halo=64),
        Tiles((256, 256)),
        Tiles((256, 256), overlap=0),
        Tiles((512, 512)),
    ),
    "volume": (
        Tiles((64, 64, 64)),
        Tiles((64, 64, 64), overlap=0),
        Tiles((64, 64, 32), overlap=0),
        Tiles((96, 96, 64)),
    ),
}
"""The tile that ``predict`` takes; other tiles; and, last, one tile that holds the whole scan."""


def opened(job: Job) -> sf.Scan:
    """Open the scan of a data set, its channels in the network's order."""
    spec = job.spec
    return sf.open_scan(spec.path(spec.cases[0].image), orientation=spec.orientation or "RAS")


def frozen_means(
    model: Any, scan: sf.Scan, tile: Sequence[int], exact: bool = False, batch_size: int = 4
) -> NDArray[np.float32]:
    """Return the means of a scan for a model with frozen context."""
    card = model.card
    names = [channel.name for channel in card.channels]
    return measure_context(
        model,
        scan,
        TileGrid.cover(scan.shape, tile, output_stride=STRIDE),
        exact=exact,
        channels=match_channels(scan, names, by_name=card.named_channels),
        fill=np.array([channel.mean for channel in card.channels], np.float32),
        batch_size=batch_size,
    )


def in_mode(job: Job, model: Any, mode: str, layout: Tiles) -> Any:
    """Return a trained model with another context, measured on the scan where it is frozen.

    One pass runs over the tiles that are then segmented with what it finds; exact, the means
    are those of the whole scan in one tile.
    """
    if mode == UNTRAINED:
        return model
    kind, _, how = mode.partition(", ")
    patch = DEMOS[job.name].patch if kind == "local" else None
    twin = model.with_global_context(kind, patch)
    if kind != "frozen":
        return twin
    exact = how == "exact"
    tiles = LAYOUTS[job.name][-1] if exact else layout
    with opened(job) as scan:
        context = frozen_means(twin, scan, tiles.tile, exact, tiles.batch_size)
    return as_predictor(twin).with_context(context)


def measure(job: Job, model: Any, layout: Tiles, cut: Tiles) -> dict[str, Any]:
    """Return scores and seams of one way of tiling on the held-out part.

    Args:
        job: Where the scan comes from.
        model: What :func:`in_mode` returned.
        layout: The tiles.
        cut: Whose borders to look at when ``layout`` is one tile that has none: what the
            measure gives for a segmentation without seams.
    """
    spec = job.spec
    with ExitStack() as stack:
        (reader,) = open_regions(spec, "test", stack)
        reference = reader.read(reader.window)[2]
        scan = stack.enter_context(opened(job))
        probabilities = np.empty((*scan.shape, spec.num_classes), np.float32)
        for window, part in sf.stream(
            model,
            scan,
            tile=layout.tile,
            overlap=layout.overlap,
            halo=layout.halo,
            batch_size=layout.batch_size,
        ):
            probabilities[window] = part
    found = probabilities[reader.window]
    index = np.where(np.isnan(found[..., 0]), -1, found.argmax(-1))
    matrix = confusion_matrix(reference, index, spec.num_classes)
    grid = layout.grid(probabilities.shape[:-1])
    if len(grid) == 1:
        grid = cut.grid(probabilities.shape[:-1])
    return {
        "mean_iou": mean_over_classes(class_iou(matrix)),
        "accuracy": accuracy(matrix),
        "seam": seam(probabilities, reader.window, grid),
    }


def compare(job: Job, network: str, mode: str, results: Results) -> None:
    """Measure all ways of tiling for one data set, seed, trained network and mode."""
    layouts = LAYOUTS[job.name]
    left = [layout for layout in layouts if f"{job.key} {mode} {layout}" not in results]
    if not left:
        return
    trained = job.trained(network, NETWORKS[network])
    once = mode != "frozen, one pass"
    models: dict[Any, Any] = {}
    for layout in left:
        tile = None if once else layout.tile
        if tile not in models:
            models[tile] = in_mode(job, trained, mode, layout)
        found = measure(job, models[tile], layout, layouts[1])
        results[f"{job.key} {mode} {layout}"] = found


def pages(jobs: Sequence[Job], results: Results) -> list[str]:
    """Return the tables of one data set."""
    layouts = LAYOUTS[jobs[0].name]
    quantities = {
        "Mean IoU": lambda found: found["mean_iou"],
        "Accuracy": lambda found: found["accuracy"],
        "Seam": lambda found: found["seam"],
    }
    parts = []
    for title, quantity in quantities.items():
        rows = []
        for mode in (*MODES, UNTRAINED):
            names = [f"{job.key} {mode}" for job in jobs]
            names = [name for name in names if f"{name} {layouts[-1]}" in results]
            if names:
                cells = [
                    spread([quantity(results[f"{name} {layout}"]) for name in names])
                    for layout in layouts
                ]
                rows.append([mode, str(len(names)), *cells])
        header = ["last level averages", "seeds", *map(str, layouts[:-1]), "one tile"]
        parts.append(f"{title}, {TITLES[jobs[0].name]}:\n\n{table(header, rows)}")
    return parts


def main() -> None:
    options = parse(__file__, __doc__)
    results = Results(options.work / "context_modes.json")
    parts = []
    for name, seeds in (("scene", options.seeds), ("volume", options.seeds[:2])):
        jobs = [Job(name, seed, options.work / "models", options.steps) for seed in seeds]
        for job in jobs:
            for mode in MODES:
                compare(job, "tile", mode, results)
            compare(job, "none", UNTRAINED, results)
        parts += pages(jobs, results)
    write_tables(options.out, "Context at inference", "context_modes.py", parts)


if __name__ == "__main__":
    main()
