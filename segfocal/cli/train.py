"""``segfocal train``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from segfocal.cli.console import OVERWRITE, PATH, Sides, progress_bar
from segfocal.presets import PRESETS


@click.command()
@click.argument("spec", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the run.")
@click.option("--plan", "plan_path", type=PATH, help="Plan to follow; left out, one is made.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Size of the encoder.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--patch", type=Sides(), help="Side of a training patch in pixels.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Patches per step.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Threads that make patches while the network computes. The patches are the same.",
)
@click.option("--processes", is_flag=True, help="Workers are processes, not threads.")
@click.option(
    "--cache",
    metavar="SIZE",
    default="1GB",
    show_default=True,
    help="How much of the decoded scans to keep, or 'none'.",
)
@click.option(
    "--cache-folder", type=PATH, help="Keep it there and not in memory; removed at the end."
)
@click.option("--max-minutes", type=float, help="Stop after this time.")
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    spec: Path,
    output: Path,
    plan_path: Path | None,
    preset: str | None,
    steps: int | None,
    patch: int | tuple[int, ...] | None,
    batch_size: int | None,
    seed: int,
    workers: int,
    processes: bool,
    cache: str,
    cache_folder: Path | None,
    max_minutes: float | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a model on the dataset that SPEC (YAML) describes.

    At the end the folder gets model.keras, plan.yaml, log.jsonl and the report,
    report.html, all or none. What is not
    given is planned as `segfocal plan` does. With --plan, what a plan holds (preset, steps,
    patch, batch size, seed) is taken from it.

    Example: segfocal train data_specs/nc_landcover.yaml -o runs/landcover
    """
    import segfocal

    dataset = segfocal.load_spec(spec)
    if plan_path is not None:
        plan = segfocal.load_plan(plan_path)
    else:
        sides = (patch,) * dataset.ndim if isinstance(patch, int) else patch
        plan = segfocal.make_plan(
            dataset, preset=preset, patch=sides, batch_size=batch_size, steps=steps, seed=seed
        )
    with progress_bar() as report:
        run = segfocal.train(
            segfocal.FocalUNet.from_plan(dataset, plan),
            dataset,
            plan,
            output,
            overwrite=overwrite,
            max_minutes=max_minutes,
            workers=workers,
            processes=processes,
            cache=None if cache == "none" else cache,
            cache_folder=cache_folder,
            progress=lambda done, total: report("steps", done, total),
        )
    if as_json:
        value = {
            "model": str(run.model),
            "log": str(run.log),
            "steps": run.steps,
            "seconds": round(run.seconds, 1),
        }
        click.echo(json.dumps(value))
        return
    click.echo(f"{run.model}: {run.steps} steps in {run.seconds:.0f} s")
