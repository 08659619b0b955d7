"""What a word for augmentation stands for in a plan."""

from __future__ import annotations

from typing import get_args

from segfocal.data.augmentation import Augmentation, default_augmentation, light_augmentation
from segfocal.data.plan import AugmentationKind
from segfocal.errors import SpecError

__all__ = ["augmentation_of"]


def augmentation_of(
    kind: AugmentationKind, patch: tuple[int, ...], resolution: tuple[float, ...] | None
) -> tuple[Augmentation, tuple[int, ...]]:
    """Return how patches are changed, and along which axes they are mirrored.

    Args:
        kind: ``"default"``: nnU-Net's; ``"light"``, for short runs; ``"none"``.
        patch: Sides of a patch in pixels.
        resolution: Size of a pixel along each axis, if the plan has one.

    Raises:
        SpecError: ``kind`` is unknown.
    """
    if kind not in get_args(AugmentationKind):
        raise SpecError(
            f"augmentation {kind!r}; expected one of {', '.join(get_args(AugmentationKind))}"
        )
    ndim = len(patch)
    if kind == "none":
        return light_augmentation(ndim).switched_off(), ()
    settings = (
        light_augmentation(ndim)
        if kind == "light"
        else default_augmentation(patch, resolution if ndim == 3 else None)
    )
    return settings, tuple(range(ndim))
