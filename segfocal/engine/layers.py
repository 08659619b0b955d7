"""Layers beside a label map: probabilities per class, and uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segfocal.card import Card
from segfocal.engine.sweep import FinishedRows
from segfocal.errors import OutputError, OutputExistsError
from segfocal.temperature import scaled

__all__ = ["LAYERS", "Layers", "ProbabilityType"]

ProbabilityType = Literal["float32", "uint8"]

LAYERS = ("probabilities", "uncertainty")

STEPS = 250
"""Probability 1 in a file of bytes; in a GeoTIFF, 255 is nodata."""

_CHUNK_PIXELS = 2**16


@dataclass(frozen=True)
class Layers:
    """Which layers are wanted.

    Attributes:
        probabilities: Type in the file, or None for no such file.
        uncertainty: Whether a file of the entropy is wanted.
    """

    probabilities: ProbabilityType | None = None
    uncertainty: bool = False

    def __post_init__(self) -> None:
        if self.probabilities not in (None, *get_args(ProbabilityType)):
            raise OutputError(
                f"probabilities {self.probabilities!r}; expected float32 or uint8, or to leave it "
                "out"
            )

    @property
    def wanted(self) -> list[str]:
        """Names of the layers that are wanted."""
        names = ["probabilities"] if self.probabilities else []
        return [*names, "uncertainty"] if self.uncertainty else names

    def path(self, output: Path, name: str) -> Path:
        """Return where a layer of an output goes: ``labels.probabilities.tif``."""
        packed = output.suffix.lower() == ".gz"
        suffix = "".join(output.suffixes[-2:]) if packed else output.suffix
        return output.with_name(f"{output.name.removesuffix(suffix)}.{name}{suffix}")

    def kinds(self) -> dict[str, str]:
        """Return the kind of each file, for the fingerprint."""
        kinds = {"probabilities": str(self.probabilities), "uncertainty": "float32"}
        return {name: kinds[name] for name in self.wanted}

    def bytes_per_pixel(self, num_classes: int) -> int:
        """Return what the layers take of memory and, uncompressed, of disk."""
        each = {None: 0, "uint8": 1, "float32": 4}[self.probabilities]
        return each * num_classes + 4 * self.uncertainty

    def check(self, output: Path, *, overwrite: bool) -> None:
        """Raise unless the files may be written.

        Raises:
            OutputExistsError: One is there and ``overwrite`` is False.
        """
        for name in self.wanted:
            path = self.path(output, name)
            if path.exists() and not overwrite:
                raise OutputExistsError(
                    f"{path}: exists already; pass overwrite=True or --overwrite to replace it"
                )

    def arrays(self, rows: FinishedRows, card: Card) -> dict[str, NDArray[Any]]:
        """Return what goes into a unit, ``(*sides, layers)`` each, as it is in the files.

        Probabilities in ``rows`` are overwritten: with NaN where they are not valid, and by those
        at the card's temperature.
        """
        entropy_of = _entropy if card.task == "classes" else _entropy_of_regions
        found: dict[str, NDArray[Any]] = {}
        probabilities, valid = rows.probabilities, rows.valid
        if self.wanted and card.temperature is not None:
            for part in _parts(valid.shape):
                probabilities[part] = scaled(probabilities[part], card.temperature)
        if self.uncertainty:
            entropy = np.empty((*valid.shape, 1), np.float32)
            for part in _parts(valid.shape):
                entropy[part, ..., 0] = entropy_of(probabilities[part])
            entropy[~valid] = np.nan
            found["uncertainty"] = entropy
        if self.probabilities == "uint8":
            steps = np.empty(probabilities.shape, np.uint8)
            for part in _parts(valid.shape):
                steps[part] = np.rint(np.clip(probabilities[part], 0, 1) * STEPS)
            # NIfTI knows no nodata: no class at all, where 255 would be more than certain.
            steps[~valid] = 255 if len(rows.window) == 2 else 0
            found["probabilities"] = steps
        elif self.probabilities == "float32":
            probabilities[~valid] = np.nan
            found["probabilities"] = probabilities
        return found


def layer_names(name: str, card: Card) -> list[str]:
    """Return the names of a layer's bands."""
    return [label.name for label in card.classes] if name == "probabilities" else ["entropy"]


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _CHUNK_PIXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the entropy along the last axis, 0 for certain and 1 for undecided."""
    p = np.clip(probabilities, np.finfo(np.float32).tiny, 1)
    return np.maximum(0, -(p * np.log(p)).sum(-1)) / np.float32(math.log(p.shape[-1]))


def _entropy_of_regions(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the entropy of in or out, of the region for which it is highest."""
    p = np.clip(probabilities, np.finfo(np.float32).tiny, 1)
    q = np.clip(1 - probabilities, np.finfo(np.float32).tiny, 1)
    return np.maximum(0, -(p * np.log2(p) + q * np.log2(q))).max(-1)
