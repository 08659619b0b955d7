"""``segfocal plan``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from segfocal.cli.console import OVERWRITE, PATH, ROOT, Sides
from segfocal.errors import OutputExistsError
from segfocal.presets import PRESETS


@click.command()
@click.argument("spec", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="YAML file to write.")
@ROOT
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="What training will run on; auto: what this machine has.",
)
@click.option(
    "--memory", metavar="SIZE", help="What training may take there, such as 8GB. Default: most."
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Size of the encoder.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--patch", type=Sides(), help="Side of a training patch in pixels.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Patches per step.")
@click.option(
    "--augmentation",
    type=click.Choice(["default", "light", "none"]),
    default="default",
    show_default=True,
    help="How patches are changed at random.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    spec: Path,
    output: Path,
    root: Path | None,
    device: str,
    memory: str | None,
    preset: str | None,
    steps: int | None,
    patch: int | tuple[int, ...] | None,
    batch_size: int | None,
    augmentation: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure the dataset that SPEC (YAML) describes and plan its training.

    What is not given is chosen by the data and the device: patch and batch size, resolution,
    normalization of each channel, preset, chances of classes, augmentation, steps. The plan
    says why. Change what you like, then pass it to `segfocal train --plan`.

    Example: segfocal plan landcover.yaml -o plan.yaml
    """
    import segfocal
    from segfocal.cli.plan_table import plan_lines

    if output.exists() and not overwrite:  # said before everything is measured
        raise OutputExistsError(
            f"{output}: exists already; choose another name, or pass --overwrite to replace it"
        )
    dataset = segfocal.load_spec(spec, root=root)
    made = segfocal.make_plan(
        dataset,
        preset=preset,
        patch=(patch,) * dataset.ndim if isinstance(patch, int) else patch,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        augmentation=augmentation,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        memory=memory,
    )
    segfocal.save_plan(made, output, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(made.model_dump(mode="json", exclude_none=True)))
        return
    sides = " x ".join(map(str, made.patch))
    click.echo(
        f"{output}: {made.preset}, {made.steps} steps of {made.batch_size} patches, {sides} pixels"
    )
    lines = plan_lines(made)
    width = max(len(key) for key, _ in lines)
    for key, text in lines:
        click.echo(f"  {key:{width}}  {text}")
