"""Plans: what training derives from a dataset before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segfocal.card import Card
from segfocal.data.document import read_document, write_document
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.presets import PRESETS

__all__ = ["Plan", "check_plan_of", "load_plan", "save_plan"]

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
        deep_supervision: Number of additional heads that are trained on smaller features, the
            first at half resolution; each counts half as much as the one before it.
        mirror_axes: Axes along which patches are flipped at random.
        class_pixels: Labelled training pixels per class index, for information.
        seed: Seed of initial weights, patches and augmentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    spec: str
    card: Card
    preset: str = "nano"
    patch: tuple[Positive, ...]
    batch_size: Positive
    steps: Positive = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    class_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    deep_supervision: Annotated[int, Field(ge=0, le=4)] = 0
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    class_pixels: tuple[int, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        ndim = self.card.ndim
        if len(self.patch) != ndim:
            raise ValueError(f"patch {self.patch} has {len(self.patch)} numbers; expected {ndim}")
        beyond = [axis for axis in self.mirror_axes if axis >= ndim]
        if beyond:
            raise ValueError(f"mirror_axes names axis {beyond[0]}; expected less than {ndim}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; expected one of {[*PRESETS]}")
        return self


def check_plan_of(spec: DatasetSpec, plan: Plan) -> None:
    """Refuse a plan that was made for other channels or classes, or for another order of them.

    Labels and channels are read in the spec's order, and the card gives them their names.

    Raises:
        SpecError: They differ.
    """
    card = plan.card
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("ndim", card.ndim, spec.ndim),
        ("channels", [channel.name for channel in card.channels], list(spec.channels)),
        ("class values", card.class_values.tolist(), [label.value for label in spec.classes]),
        ("valid_when", card.valid_when, spec.valid_when),
        ("orientation", card.orientation or "RAS", spec.orientation or "RAS"),
    )
    for what, planned, described in pairs:
        if planned != described:
            raise SpecError(
                f"the plan's {what}: {planned}; spec {spec.name!r} has {described}: make a new "
                "plan for this spec"
            )


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML.

    Raises:
        SpecError: The file is missing or wrong.
    """
    return read_document(path, Plan)


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML."""
    write_document(path, plan)
