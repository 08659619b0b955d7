"""Plans: what training derives from a dataset before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from segfocal.card import Card
from segfocal.data.document import read_document, write_document

__all__ = ["Plan", "load_plan", "save_plan"]

Positive = Annotated[int, Field(gt=0)]


class Plan(BaseModel):
    """Everything that turns a dataset spec into a training run.

    Attributes:
        spec: Name of the dataset spec the plan was made from.
        card: What the model will expect of a scan: channels with their statistics, classes,
            tile, resolution, orientation.
        preset: Size of the encoder.
        patch: Side lengths of training patches in pixels.
        batch_size: Patches per step.
        steps: Optimizer steps.
        learning_rate: Peak of the schedule.
        weight_decay: AdamW's decoupled weight decay.
        class_share: Share of patches that are centred on a pixel of a random class, every
            class equally often; the others are placed uniformly.
        mirror_axes: Axes along which patches are flipped at random.
        class_pixels: Labelled training pixels per class index, for information.
        seed: Seed of initial weights, patches and augmentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: str
    card: Card
    preset: str = "nano"
    patch: tuple[Positive, ...]
    batch_size: Positive
    steps: Positive = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    class_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    class_pixels: tuple[int, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML.

    Raises:
        SpecError: The file is missing or wrong.
    """
    return read_document(path, Plan)


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML."""
    write_document(path, plan)
