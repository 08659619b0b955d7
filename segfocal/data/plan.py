"""Plans: what training derives from a dataset before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segfocal.card import Card
from segfocal.data.augmentation import Augmentation
from segfocal.data.document import document_of, read_document
from segfocal.data.fingerprint import Fingerprint
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing
from segfocal.presets import PRESETS

__all__ = [
    "AugmentationKind",
    "OtherPatches",
    "Plan",
    "check_plan_of",
    "load_plan",
    "plan_text",
    "save_plan",
]

OtherPatches = Literal["anywhere", "labelled"]
"""Where patches lie that are not centred on a class."""

AugmentationKind = Literal["default", "light", "none"]
"""What a new plan is made with."""

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
        class_share: Share of patches that are centred on a pixel of a random class (or region),
            every class equally often; the others are placed uniformly.
        deep_supervision: Number of additional heads that are trained on smaller features, the
            first at half resolution; each counts half as much as the one before it.
        class_chances: Chance of each class, by class index, to be the one that such a patch is
            centred on; left out, the same for all.
        other_patches: Where the others lie: ``"anywhere"``, or where something is
            ``"labelled"``.
        resample: Whether patches are resampled to the card's resolution where a scan has
            another one.
        mirror_axes: Axes along which patches are flipped at random.
        augmentation: What else is done to them; left out, turns and small changes of
            brightness, see :func:`~segfocal.data.augmentation.light_augmentation`.
        class_pixels: Labelled training pixels per class index, for information.
        seed: Seed of initial weights, patches and augmentation.
        fingerprint: What was measured, for information.
        reasons: Why each number is what it is, by key, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    spec: str
    preset: str = "nano"
    patch: tuple[Positive, ...]
    batch_size: Positive
    steps: Positive = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    class_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    class_chances: tuple[Annotated[float, Field(ge=0)], ...] = ()
    other_patches: OtherPatches = "anywhere"
    resample: bool = False
    deep_supervision: Annotated[int, Field(ge=0, le=4)] = 0
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    augmentation: Augmentation | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    reasons: dict[str, str] = Field(default_factory=dict)
    card: Card
    class_pixels: tuple[int, ...] = ()
    fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        ndim = self.card.ndim
        if len(self.patch) != ndim:
            raise ValueError(f"patch {self.patch} has {len(self.patch)} numbers; expected {ndim}")
        beyond = [axis for axis in self.mirror_axes if axis >= ndim]
        if beyond:
            raise ValueError(f"mirror_axes names axis {beyond[0]}; expected less than {ndim}")
        if self.class_chances and len(self.class_chances) != self.card.num_classes:
            raise ValueError(
                f"class_chances has {len(self.class_chances)} numbers; expected "
                f"{self.card.num_classes}, one for each class"
            )
        if self.class_chances and not any(self.class_chances):
            raise ValueError("class_chances are all 0; expected one above")
        if self.resample and self.card.resolution is None:
            raise ValueError("resample: true without card.resolution; expected one to resample to")
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; expected one of {[*PRESETS]}")
        most = PRESETS[self.preset].patch_size.bit_length() + 1
        if self.deep_supervision > most:
            raise ValueError(
                f"deep_supervision: {self.deep_supervision} with preset {self.preset}; expected at "
                f"most {most}, as many as its decoder has levels below the logits"
            )
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
        ("task", card.task, spec.task),
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


def save_plan(plan: Plan, path: str | Path, *, overwrite: bool = True) -> None:
    """Write a plan as YAML.

    Raises:
        OutputExistsError: The file exists and ``overwrite`` is False.
        OutputError: It cannot be written.
    """
    with PendingOutput(path, overwrite=overwrite) as pending:
        with writing(path):
            pending.main.write_text(plan_text(plan), encoding="utf-8")
        pending.commit()


def plan_text(plan: Plan) -> str:
    """Return a plan as YAML: what may be changed, why it is so, and what was measured."""
    written = plan.model_dump(mode="json", exclude_none=True)
    parts = []
    for key, value in written.items():
        lines = value if isinstance(value, dict) and key in ("augmentation", "reasons") else None
        if lines:  # one line each
            entries = "".join(f"  {_entry(name, one)}" for name, one in lines.items())
            parts.append(f"{key}:\n{entries}")
        elif isinstance(value, dict | list):
            parts.append(document_of({key: value}))
        else:
            parts.append(_entry(key, value))
    return "".join(parts)


def _entry(name: str, value: Any) -> str:
    return document_of({name: value}, one_line=True)[1:-2] + "\n"
