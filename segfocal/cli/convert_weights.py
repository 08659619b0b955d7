"""``segfocal convert-weights``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from segfocal.cli.console import OVERWRITE, PATH, Sides


@click.command("convert-weights")
@click.argument("source", type=str)
@click.option("-o", "--output", type=PATH, required=True, help="The encoder: a .keras file.")
@click.option(
    "--in-channels",
    type=click.IntRange(min=1),
    help="Channels of your images. Default: those of --channel-names, else of SOURCE.",
)
@click.option(
    "--channel-names",
    help="Names, comma-separated. red, green and blue get the weights trained for them, in any "
    "place; other channels get their mean.",
)
@click.option(
    "--ndim",
    type=click.Choice(["2", "3"]),
    default="2",
    show_default=True,
    help="3 makes an encoder for volumes.",
)
@click.option(
    "--inflation",
    type=click.Choice(["centre", "mean"]),
    default="centre",
    show_default=True,
    help="With --ndim 3: kernels in one plane, or spread over planes.",
)
@click.option(
    "--focal-window",
    type=Sides(),
    help="Widen the first focal kernel to this odd side, keeping the result; 9 is usual for "
    "dense prediction. Default: as in SOURCE.",
)
@click.option(
    "--num-classes",
    type=click.IntRange(min=1),
    help="Keep the classifier of SOURCE, which must have this many classes.",
)
@click.option(
    "--normalize-modulator/--no-normalize-modulator",
    default=None,
    help="What weights alone do not show. Default: as config.json beside SOURCE says, else no.",
)
@click.option(
    "--use-postln/--no-use-postln",
    default=None,
    help="Post-norm blocks, which weights show in timm's names only. Default: as config.json "
    "says, else when there are layer scales.",
)
@click.option("--cache", type=PATH, help="Folder of downloads. Default: the user's cache.")
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def convert_weights(
    source: str,
    output: Path,
    channel_names: str | None,
    ndim: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn a published FocalNet checkpoint into an encoder for segfocal.

    SOURCE is a checkpoint of timm, Hugging Face (file or folder) or the original authors
    (.safetensors, .bin, .pth), or a published name such as focalnet_tiny_srf, which is
    downloaded. Nothing in a checkpoint is executed.

    Example: segfocal convert-weights model.safetensors -o encoder.keras
    --channel-names blue,green,red,nir
    """
    import segfocal

    names = None if channel_names is None else [name.strip() for name in channel_names.split(",")]
    result = segfocal.convert_weights(source, output, channels=names, ndim=int(ndim), **options)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
        return
    chosen = result.options
    click.echo(f"recognised: {result.source} checkpoint, {result.preset or 'no published size'}")
    click.echo(
        f"{result.output}: {result.parameters:,} parameters, {chosen['in_channels']} channels"
        + (f" ({', '.join(names)})" if names else "")
        + f", {chosen['ndim']}-D, {chosen['focal_levels']} focal levels, window "
        f"{chosen['focal_window']}"
    )
    if result.normalization is not None:
        mean, std = result.normalization.mean, result.normalization.std
        click.echo(f"trained on values 0..1 with mean {_list(mean)} and std {_list(std)}")
    for note in result.notes:
        click.echo(f"note: {note}")


def _list(numbers: tuple[float, ...]) -> str:
    return ", ".join(str(number) for number in numbers)
