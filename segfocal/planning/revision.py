"""The plan of a run that goes on, with what is asked for now in its place."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from segfocal.data.plan import AugmentationKind, Plan
from segfocal.errors import SpecError
from segfocal.planning.augmentation import augmentation_of
from segfocal.planning.device import DeviceKind

__all__ = ["revised"]


def revised(
    plan: Plan,
    *,
    preset: str | None = None,
    patch: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    augmentation: AugmentationKind | None = None,
    device: DeviceKind | None = None,
    memory: int | str | None = None,
) -> Plan:
    """Return a plan with options of :func:`segfocal.make_plan` in their places.

    With the options it was made with it is the same plan; with others it differs, which a run
    that is resumed tells.

    Args:
        plan: The plan.
        preset, patch, batch_size, steps, seed, augmentation: Left out, they stay.
        device, memory: Of no effect: what was chosen for them is in the plan.

    Raises:
        SpecError: No plan can hold them.
    """
    del device, memory
    numbers = {"patch": patch, "batch_size": batch_size, "steps": steps, "seed": seed}
    changes: dict[str, Any] = {"preset": preset, **numbers}
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        found = Plan.model_validate({**dict(plan), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"][:1])
        raise SpecError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error
    if augmentation is None:
        return found
    settings, axes = augmentation_of(augmentation, found.patch, found.card.resolution)
    return found.model_copy(update={"augmentation": settings, "mirror_axes": axes})
