"""``segfocal assemble``."""

from __future__ import annotations

from pathlib import Path

import click

from segfocal.cli.class_table import class_table
from segfocal.cli.console import PATH, tell


@click.command()
@click.argument("output", type=PATH)
def assemble(output: Path) -> None:
    """Make the label map OUTPUT of the parts that `segfocal predict --shard` has computed.

    The shards share the hidden folder .OUTPUT.scratch. When some are missing, they are named and
    nothing is written.

    Example: segfocal predict model.keras scene.tif -o labels.tif --shard 1/8 (to 8/8, anywhere),
    then: segfocal assemble labels.tif
    """
    import segfocal

    result = segfocal.assemble(output, notice=tell)
    sides = " x ".join(str(side) for side in result.shape)
    click.echo(f"{result.output}: {sides} pixels, {result.tiles} tiles, {result.seconds:.1f} s")
    click.echo(class_table(result.classes, result.invalid_pixels))
