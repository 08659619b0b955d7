"""``segfocal export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from segfocal.cli.console import OVERWRITE, PATH


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="NAME.onnx, NAME.xml for OpenVINO (NAME.bin is written beside it), or a new folder for "
    "a SavedModel.",
)
@click.option(
    "--format",
    type=click.Choice(["saved_model", "onnx", "openvino"]),
    help="Default: as the suffix of the output says.",
)
@click.option(
    "--global-context",
    type=click.Choice(["tile", "local", "none"]),
    help="What the network's last focal level averages. Default: as the model was made.",
)
@OVERWRITE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    model: Path,
    output: Path,
    format: str | None,
    global_context: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export MODEL (.keras) for other programs, and for prediction without TensorFlow.

    The network takes any batch of images of any size in the scan's own units, with a second
    input that says which pixels are valid, and returns probabilities. The output appears only
    when it has been loaded again and agrees with the Keras model within 1e-4. `segfocal
    predict` takes .onnx and .xml in place of MODEL.

    Example: segfocal export model.keras -o model.onnx
    """
    import segfocal

    result = segfocal.export(
        model,
        output,
        format=format,  # type: ignore[arg-type]
        global_context=global_context,
        overwrite=overwrite,
    )
    if as_json:
        value = {
            "output": str(result.output),
            "format": result.format,
            "engine": result.engine,
            "difference": result.difference,
            "log_difference": result.log_difference,
            "seconds": round(result.seconds, 3),
        }
        click.echo(json.dumps(value))
        return
    click.echo(
        f"{result.output}: {result.format}, {result.difference:.1e} from the Keras model in "
        f"{result.engine}, {result.seconds:.1f} s"
    )
