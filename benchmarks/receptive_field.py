"""How far the output of a network depends on the input: exactly, and as far as it matters.

    python benchmarks/receptive_field.py

The exact reach follows from kernels and depths. Most of it is reached only through the ends of
many kernels in a row, whose weights multiply: the measured halo is the smallest multiple of 8
pixels such that changing everything beyond it on one side changes no logit by more than 1e-3 of
the logits' range. Measured with initial weights on noise, and with nano trained on North Carolina
as the demo trains it, on strips of that scene. Writes ``benchmarks/receptive_field.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from context_modes import NETWORKS as TRAINED
from context_modes import frozen_means, opened
from numpy.typing import NDArray
from sample_models import Job
from tables import Results, parse, table, write_tables

import segfocal as sf
from segfocal.models.receptive_field import receptive_field

STRIDE = 32
WIDTH = 64
"""Columns of the strip: what is measured is the reach along its rows."""

SHARE = 1e-3
STEP = 8

PRESETS = ("nano", "micro", "tiny_srf", "tiny_lrf")
TITLES = {"tile": "trained, contexts frozen", "none": "trained without a global level"}


Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A local network: from strips ``(batch, rows, cols, channels)`` to their logits."""


def change(
    logits: Logits, strips: NDArray[np.float32], others: NDArray[np.float32], distance: int
) -> float:
    """Return the largest change of a logit of the last 32 rows, relative to the logits' range.

    Args:
        logits: The network.
        strips: What it sees.
        others: What it sees instead in all rows further than ``distance`` before those 32.
    """
    kept = strips.shape[1] - STRIDE
    changed = strips.copy()
    changed[:, : kept - distance] = others[:, : kept - distance]
    before, after = logits(strips), logits(changed)
    return float(np.abs(after - before)[:, kept:].max() / np.ptp(before))


def measured_halo(logits: Logits, strips: NDArray[np.float32], others: NDArray[np.float32]) -> int:
    """Return the least multiple of 8 at which the change is below the share, by bisection."""
    low, high = -1, (strips.shape[1] - STRIDE) // STEP
    while high - low > 1:
        middle = (low + high) // 2
        if change(logits, strips, others, STEP * middle) > SHARE:
            low = middle
        else:
            high = middle
    return STEP * high


def rows_for(reach: int) -> int:
    """Return how long a strip has to be for a reach: beyond it nothing changes."""
    return STRIDE * (-(-reach // STRIDE) + 1)


def untrained(preset: str) -> tuple[int, int]:
    """Return the exact and the measured reach of a preset with initial weights."""
    keras.utils.set_random_seed(0)
    model = sf.FocalUNet(
        num_classes=7, in_channels=3, preset=preset, encoder={"global_context": "none"}
    )
    reach = receptive_field(model)[0]
    rng = np.random.default_rng(0)
    strips, others = rng.normal(size=(2, 1, rows_for(reach), WIDTH, 3)).astype(np.float32)
    return reach, measured_halo(model.predict_on_batch, strips, others)


def trained(job: Job, network: str) -> tuple[int, int]:
    """Return the same of a network trained on North Carolina, on strips of that scene.

    With ``"tile"`` the contexts of the scene are frozen: measured once and the same for both.
    """
    model = job.trained(network, TRAINED[network])
    with opened(job) as scan:
        context = None
        if network == "tile":
            model = model.with_global_context("frozen")
            context = frozen_means(model, scan, model.card.tile)
        reach = receptive_field(model)[0]
        rows = slice(0, rows_for(reach))
        means = np.array([channel.mean for channel in model.card.channels], np.float32)
        strips = []
        for first in range(0, scan.shape[1] - WIDTH, WIDTH):
            patch = scan.read((rows, slice(first, first + WIDTH)))
            strips.append(np.where(patch.valid, patch.values, means))

    def logits(values: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = {"image": values, "valid": np.ones(values.shape[:-1], np.bool_)}
        if context is not None:
            inputs["context"] = np.tile(context, (len(values), 1))
        return np.asarray(model.predict_on_batch(inputs))

    seen = np.stack(strips)
    return reach, measured_halo(logits, seen, np.roll(seen, 1, axis=0))


def reach_table(jobs: Sequence[Job], results: Results) -> str:
    """Return the reaches of the networks that were measured."""
    rows = []
    for preset in PRESETS:
        exact, measured = results[preset]
        rows.append([f"{preset}, initial weights", str(exact), str(measured)])
    for network, title in TITLES.items():
        names = [f"{job.key} {network}" for job in jobs]
        found = [results[name] for name in names if name in results]
        if found:
            measured = ", ".join(str(reach) for _, reach in found)
            rows.append([f"nano, {title}", str(found[0][0]), measured])
    return table(["network", "exact reach", "measured halo, by seed"], rows)


def main() -> None:
    options = parse(__file__, __doc__)
    results = Results(options.work / "receptive_field.json")
    for preset in PRESETS:
        if preset not in results:
            results[preset] = untrained(preset)
    jobs = [Job("scene", seed, options.work / "models", options.steps) for seed in options.seeds]
    for network in TITLES:
        for job in jobs:
            name = f"{job.key} {network}"
            if name not in results:
                results[name] = trained(job, network)
    parts = ["Pixels per side:", reach_table(jobs, results)]
    write_tables(options.out, "The receptive field", "receptive_field.py", parts)


if __name__ == "__main__":
    main()
