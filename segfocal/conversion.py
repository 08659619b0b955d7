"""Conversion of published checkpoints to encoders in a ``.keras`` file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segfocal.card_files import ENCODER_FACTS
from segfocal.errors import OutputError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.version import __version__
from segfocal.weights.inflation import Inflation
from segfocal.weights.normalization import Normalization
from segfocal.weights.pretrained import build, read_encoder

__all__ = ["Conversion", "convert_weights"]


@dataclass(frozen=True)
class Conversion:
    """What was recognised and written.

    Attributes:
        output: The encoder.
        source: Publisher of the names: ``"timm"``, ``"transformers"``, ``"original"``, or
            ``"segfocal"``.
        preset: The preset that the weights are of, or None.
        parameters: Number of weights that were written.
        options: The encoder's arguments.
        normalization: How images were standardised when the weights were trained, if known.
        channels: Names of the encoder's channels, if given.
        notes: What the source does not say and was assumed.
    """

    output: Path
    source: str
    preset: str | None
    parameters: int
    options: dict[str, Any]
    normalization: Normalization | None
    channels: tuple[str, ...] | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "output": str(self.output),
            "source": self.source,
            "preset": self.preset,
            "parameters": self.parameters,
            "options": self.options,
            "normalization": None if self.normalization is None else self.normalization.as_json(),
            "channels": None if self.channels is None else list(self.channels),
            "notes": list(self.notes),
        }


def convert_weights(
    source: str | Path,
    output: str | Path,
    *,
    in_channels: int | None = None,
    channels: Sequence[str] | None = None,
    ndim: int = 2,
    focal_window: int | Sequence[int] | None = None,
    num_classes: int | None = None,
    inflation: Inflation = "centre",
    cache: str | Path | None = None,
    normalize_modulator: bool | None = None,
    use_postln: bool | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write a checkpoint as an encoder that Keras loads.

    Besides the model the file holds ``segfocal_encoder.json``: source, normalization and what
    was assumed.

    Args:
        source: A checkpoint or a published name, see :func:`~segfocal.weights.read_encoder`.
        output: The ``.keras`` file; it appears when it is complete.
        in_channels, channels, ndim, focal_window, num_classes, inflation, cache,
        normalize_modulator, use_postln: See :func:`~segfocal.weights.from_pretrained`.
        overwrite: Replace an existing file.

    Raises:
        ModelError: The source cannot be read, is no FocalNet, or cannot be adapted.
        OutputError: The output cannot be written, or is there already.
    """
    output = Path(output)
    if output.suffix != ".keras":
        raise OutputError(f"{output}: expected a name that ends in .keras")
    with PendingOutput(output, overwrite=overwrite) as pending:
        weights = read_encoder(
            source, cache=cache, normalize_modulator=normalize_modulator, use_postln=use_postln
        )
        model = build(
            weights,
            in_channels=in_channels,
            channels=channels,
            ndim=ndim,
            focal_window=focal_window,
            num_classes=num_classes,
            inflation=inflation,
        )
        result = Conversion(
            output,
            weights.source,
            weights.architecture.preset,
            model.count_params(),
            {name: value for name, value in model.get_config().items() if name != "name"},
            weights.normalization,
            None if channels is None else tuple(channels),
            (*weights.notes, *_about_window(weights.architecture.focal_window, focal_window)),
        )
        provenance = {"format": 1, "segfocal": __version__, **result.as_json()}
        del provenance["output"]
        with writing(output):
            model.save(pending.main)
            with zipfile.ZipFile(pending.main, "a") as archive:
                archive.writestr(ENCODER_FACTS, json.dumps(provenance, indent=2))
        pending.commit()
    return result


def _about_window(before: int | Sequence[int], after: int | Sequence[int] | None) -> list[str]:
    """Return a note when kernels were cropped, which changes the result."""
    if after is None:
        return []
    largest = before if isinstance(before, int) else max(before)
    if (after if isinstance(after, int) else min(after)) >= largest:
        return []
    return [
        f"focal window {after} is smaller than the source's {before}: kernels were cropped, and "
        "the network computes something else than before"
    ]
