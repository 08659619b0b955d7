"""``segfocal train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segfocal.card_files import read_encoder_facts
from segfocal.cli.console import OVERWRITE, PATH, ROOT, DeviceCount, Sides, progress_bar
from segfocal.cli.folds import train_folds
from segfocal.presets import PRESETS
from segfocal.quiet import load_keras

if TYPE_CHECKING:
    from segfocal import DatasetSpec, Plan


@click.command()
@click.argument("spec", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the run.")
@ROOT
@click.option("--plan", "plan_path", type=PATH, help="Plan to follow; left out, one is made.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Size of the encoder.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--patch", type=Sides(), help="Side of a training patch in pixels.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Patches per step.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of it all. Default: 0.")
@click.option(
    "--encoder",
    type=PATH,
    help="Trained weights for the encoder, as `segfocal convert-weights` writes them. It gets "
    "their size unless --preset or a plan says otherwise.",
)
@click.option(
    "--encoder-rate",
    type=click.FloatRange(min=0, max=1),
    help="The encoder's share of the learning rate. Default: 0.1 with --encoder, else 1.",
)
@click.option(
    "--validation/--no-validation",
    default=True,
    show_default=True,
    help="Score patches of the split val, if there is one, after each epoch.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Stop after so many epochs without a better score on val.",
)
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
@click.option(
    "--devices",
    type=DeviceCount(),
    metavar="N|all",
    help="Devices that divide each batch among them. Default: as many of the GPUs as divide it.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0),
    help="Stop after this time, so that --resume can go on; the learning rate's schedule stays.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Time between checkpoints.",
)
@click.option("--checkpoint-steps", type=click.IntRange(min=1), help="Steps between checkpoints.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in the folder, by its own plan; from the start where there is none.",
)
@click.option(
    "--allow-changes", is_flag=True, help="Resume although the spec, plan or model has changed."
)
@click.option(
    "--fold",
    type=click.IntRange(min=0),
    help="Cross-validation by the spec's folds: leave out this one, from 0, and score the model "
    "on it, in the folder fold_K.",
)
@click.option(
    "--all-folds",
    is_flag=True,
    help="The same for all folds, and the scores of all cases together, with intervals.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves to the folder tensorboard.")
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    spec: Path,
    output: Path,
    root: Path | None,
    plan_path: Path | None,
    preset: str | None,
    steps: int | None,
    patch: int | tuple[int, ...] | None,
    batch_size: int | None,
    seed: int | None,
    cache: str,
    tensorboard: bool,
    fold: int | None,
    all_folds: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on the dataset that SPEC (YAML) describes.

    At the end the folder gets model.keras, plan.yaml, log.jsonl, log.csv, run.json and the
    report, report.html, all or none; and best.keras, where the spec has a split val. What is not
    given is planned as `segfocal plan` does. With --plan, what a plan holds (preset, steps,
    patch, batch size, seed) is taken from it. A run that was stopped or killed goes on when the
    same command is given with --resume.

    Example: segfocal train data_specs/nc_landcover.yaml -o runs/landcover
    """
    import segfocal

    if fold is not None and all_folds:
        raise click.UsageError("--fold and --all-folds: expected one of them")
    dataset = segfocal.load_spec(spec, root=root)
    encoder = options["encoder"]
    if preset is None and encoder is not None:
        preset = (read_encoder_facts(encoder) or {}).get("preset")
    sides = (patch,) * dataset.ndim if isinstance(patch, int) else patch
    wanted = {
        "preset": preset, "steps": steps, "patch": sides, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in wanted.items() if value is not None}
    options |= {"cache": None if cache == "none" else cache, "curves": tensorboard}
    if fold is not None or all_folds:
        train_folds(
            dataset,
            output,
            None if fold is None else [fold],
            plan=None if plan_path is None else segfocal.load_plan(plan_path),
            planned=given,
            as_json=as_json,
            **options,
        )
        return
    plan = _plan(dataset, output, plan_path, given, options["resume"])
    with progress_bar() as report:
        run = segfocal.train(
            segfocal.FocalUNet.from_plan(dataset, plan),
            dataset,
            plan,
            output,
            tell=lambda now: report("steps", now.step, now.steps, str(now)),
            **options,
        )
    if as_json:
        click.echo(json.dumps(run.as_json()))
        return
    click.echo(f"{run.model}: {run.steps} steps in {run.seconds:.0f} s")
    if run.best is not None:
        click.echo(f"{run.best}: the best on val, mean IoU {run.best_score:.3f} over its patches")
    if not run.finished:
        click.echo(f"{run.steps} of {plan.steps} steps are done: --resume goes on")


def _plan(
    dataset: DatasetSpec, output: Path, path: Path | None, given: dict[str, Any], resume: bool
) -> Plan:
    """Return the plan of a file, of the run to resume, or a new one.

    What is given beside the plan of a run takes its place there, so that a change is noticed.
    """
    import segfocal

    if path is not None:
        return segfocal.load_plan(path)
    if resume:
        load_keras()
        from segfocal.planning.revision import revised
        from segfocal.training.resuming import kept_plan

        kept = kept_plan(output)
        if kept is not None:
            return revised(kept, **given)
    return segfocal.make_plan(dataset, **{"seed": 0, **given})
