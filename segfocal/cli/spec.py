"""``segfocal spec``: check, draft and import dataset specs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from segfocal.cli.console import OVERWRITE, PATH, ROOT, progress_bar, tell


@click.group()
def spec() -> None:
    """Check, draft and import dataset specs (YAML)."""


@spec.command()
@click.argument("path", metavar="SPEC", type=PATH)
@ROOT
@click.option("--headers-only", is_flag=True, help="Do not read pixels: quick, but counts nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def check(
    ctx: click.Context, path: Path, root: Path | None, headers_only: bool, as_json: bool
) -> None:
    """Open every file that SPEC describes and say what would spoil training.

    Pairs, grids, label values against the class table, values and nodata, images that are there
    twice, ground or groups that are in two splits, and checksums of files that the spec names. Exit
    code 1 when there is a fault.

    Example: segfocal spec check data_specs/nc_landcover.yaml
    """
    import segfocal

    with progress_bar() as report:
        found = segfocal.check_spec(path, root=root, pixels=not headers_only, progress=report)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        from segfocal.cli.spec_table import print_check

        print_check(found)
    ctx.exit(0 if found.ok else 1)


@spec.command()
@click.argument("folder", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="YAML file to write.")
@OVERWRITE
def new(folder: Path, output: Path, overwrite: bool) -> None:
    """Draft a spec from the scans and labels found in FOLDER.

    Files are paired by their names or, where those do not tell, by what they hold and where they
    lie. Channels and class values are guessed from the files; comments tell what to fill in.

    Example: segfocal spec new scans -o landcover.yaml
    """
    import segfocal

    for line in segfocal.draft_spec(folder, output, overwrite=overwrite):
        tell(line)
    click.echo(str(output))


@spec.command("import")
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="YAML file to write.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["nnunet", "decathlon", "bids", "folder"]),
    help="What SOURCE is. Default: found out.",
)
@OVERWRITE
def import_(source: Path, output: Path, kind: str | None, overwrite: bool) -> None:
    """Write a spec for a dataset that follows another convention.

    SOURCE is a dataset.json of nnU-Net v2 or of the Medical Segmentation Decathlon, or its
    folder; a BIDS dataset with derivatives that hold _dseg files; or a folder of images and
    masks.

    Example: segfocal spec import Task04_Hippocampus -o hippocampus.yaml
    """
    import segfocal

    for line in segfocal.import_spec(source, output, kind=kind, overwrite=overwrite):
        tell(line)
    click.echo(str(output))
