"""What augmentation does to training patches, and in which ranges: the part of a plan on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from segfocal.data.document import Entry

__all__ = [
    "ANISOTROPIC",
    "ELONGATED",
    "Augmentation",
    "Change",
    "default_augmentation",
    "light_augmentation",
]

ANISOTROPIC = 3
"""Ratio of spacings beyond which volumes are turned and stretched within planes only."""

ELONGATED = 1.5
"""Ratio of a 2-D patch's sides beyond which it is turned by little, as nnU-Net does."""


class Change(Entry):
    """One kind of change: how often a patch is changed so, and how much.

    Attributes:
        probability: Share of patches; 0: never.
        range: What is drawn from, evenly; see :class:`Augmentation` for the units.
    """

    probability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    range: tuple[
        Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]
    ]

    @model_validator(mode="after")
    def _ordered(self) -> Change:
        if self.range[0] > self.range[1]:
            raise ValueError(f"range {list(self.range)}; expected the smaller number first")
        return self


def _never(low: float, high: float) -> Change:
    return Change(probability=0.0, range=(low, high))


class Augmentation(Entry):
    """Changes of a patch, in the order in which they are made.

    Geometry is the same for image, validity and labels. Intensities are those of standardised
    channels (mean 0, standard deviation 1); except noise, each channel is changed on its own.

    Attributes:
        quarter_turns: Whether square patches are turned by 90, 180 and 270 degrees; of
            volumes, in planes of equal sides and spacing.
        rotation: Degrees; of volumes about each axis, or in planes only where spacings differ
            by more than a factor of three.
        scaling: Zoom: above 1 things become larger.
        elastic: Displacement in pixels, one standard deviation of a smooth random field.
        noise: Variance.
        blur: Standard deviation of a Gaussian, in pixels; every other channel.
        gain: Factor about the mean.
        shift: Addend.
        contrast: Factor about the patch's mean, within the patch's range of values.
        low_resolution: Share of the resolution that is kept; every other channel.
        gamma_inverted, gamma: Exponent, of inverted values or of values; the patch's mean and
            standard deviation stay.
    """

    quarter_turns: bool = False
    rotation: Change = _never(-15, 15)
    scaling: Change = _never(0.7, 1.4)
    elastic: Change = _never(1, 4)
    noise: Change = _never(0, 0.1)
    blur: Change = _never(0.5, 1)
    gain: Change = _never(0.75, 1.25)
    shift: Change = _never(-0.1, 0.1)
    contrast: Change = _never(0.75, 1.25)
    low_resolution: Change = _never(0.5, 1)
    gamma_inverted: Change = _never(0.7, 1.5)
    gamma: Change = _never(0.7, 1.5)

    @model_validator(mode="after")
    def _possible(self) -> Augmentation:
        for name in ("scaling", "low_resolution", "gamma", "gamma_inverted"):
            if getattr(self, name).range[0] <= 0:
                raise ValueError(f"{name}: expected a range above 0")
        for name in ("elastic", "noise", "blur", "contrast"):
            if getattr(self, name).range[0] < 0:
                raise ValueError(f"{name}: expected a range of 0 and above")
        if self.low_resolution.range[1] > 1:
            raise ValueError("low_resolution: expected a range up to 1")
        return self

    def switched_off(self) -> Augmentation:
        """Return the same with nothing done; the ranges stay, to be switched on again."""
        changes = {
            name: value.model_copy(update={"probability": 0.0})
            for name, value in self
            if isinstance(value, Change)
        }
        return self.model_copy(update={"quarter_turns": False, **changes})


def default_augmentation(
    patch: Sequence[int], spacing: Sequence[float] | None = None
) -> Augmentation:
    """Return nnU-Net's augmentation (version 2, ``nnUNetTrainer``).

    Elastic deformation is not part of it and stays switched off; 2-D patches are also turned by
    quarters.

    Args:
        patch: Sides of a patch in pixels.
        spacing: Size of a pixel along each axis; left out, the same along all.
    """
    flat = spacing is not None and max(spacing) > ANISOTROPIC * min(spacing)
    if len(patch) == 3 and not flat:
        degrees = 30.0
    elif len(patch) == 2 and max(patch) > ELONGATED * min(patch):
        degrees = 15.0
    else:
        degrees = 180.0
    return Augmentation(
        quarter_turns=len(patch) == 2,
        rotation=Change(probability=0.2, range=(-degrees, degrees)),
        scaling=Change(probability=0.2, range=(0.7, 1.4)),
        noise=Change(probability=0.1, range=(0, 0.1)),
        blur=Change(probability=0.2, range=(0.5, 1)),
        gain=Change(probability=0.15, range=(0.75, 1.25)),
        contrast=Change(probability=0.15, range=(0.75, 1.25)),
        low_resolution=Change(probability=0.25, range=(0.5, 1)),
        gamma_inverted=Change(probability=0.1, range=(0.7, 1.5)),
        gamma=Change(probability=0.3, range=(0.7, 1.5)),
    )


def light_augmentation(ndim: int) -> Augmentation:
    """Return what suits short runs, and what plans that say nothing of augmentation mean.

    Turns and small changes of each channel's brightness; scenes are also rotated and zoomed.
    """
    bent = 0.3 if ndim == 2 else 0.0
    return Augmentation(
        quarter_turns=ndim == 2,
        rotation=Change(probability=bent, range=(-45, 45)),
        scaling=Change(probability=bent, range=(0.8, 1.25)),
        gain=Change(probability=1.0, range=(0.9, 1.1)),
        shift=Change(probability=1.0, range=(-0.1, 0.1)),
    )
