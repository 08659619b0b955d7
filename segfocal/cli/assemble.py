"""``segfocal assemble``."""

from __future__ import annotations

from pathlib import Path

import click

from segfocal.cli.class_table import class_table
from segfocal.cli.console import OVERWRITE, PATH, tell


@click.command()
@click.argument("output", type=PATH)
@OVERWRITE
def assemble(output: Path, overwrite: bool) -> None:
    """Make the label map OUTPUT of the parts that `segfocal predict --shard` has computed.

    The shards share the hidden folder .OUTPUT.scratch. When some are missing, they are named and
    nothing is written. An output that is there, and not the one that the parts are of, is replaced
    with --overwrite only; what is read for it, such as the scan, never. An output that is finished
    already, with no parts left, stays as it is.

    Example: segfocal predict model.keras scene.tif -o labels.tif --shard 1/8 (to 8/8, anywhere),
    then: segfocal assemble labels.tif
    """
    import segfocal

    result = segfocal.assemble(output, overwrite=overwrite, notice=tell)
    sides = " x ".join(str(side) for side in result.shape)
    click.echo(f"{result.output}: {sides} pixels, {result.tiles} tiles, {result.seconds:.1f} s")
    click.echo(class_table(result.classes, result.invalid_pixels))
