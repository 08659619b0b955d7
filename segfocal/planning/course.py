"""The course of training: how many steps there are, and where patches are taken."""

from __future__ import annotations

import math

import numpy as np

from segfocal.data.fingerprint import Fingerprint
from segfocal.data.plan import OtherPatches
from segfocal.data.spec import DatasetSpec
from segfocal.planning.device import Device

__all__ = ["FIXED", "absent_classes", "plan_sampling", "plan_steps"]

FEW_LABELS = 0.5
"""Share of labelled pixels below which patches that lie anywhere would often show none."""

COMMON = 0.5
"""Share of labelled pixels of a class above which no patch has to be centred on it."""

PASSES = {"cpu": 30, "gpu": 100}
STEPS = {"cpu": (1000, 5000), "gpu": (5000, 100_000)}
"""How often each pixel is seen, and the fewest and most steps, by device."""

FIXED = {
    "learning_rate": "AdamW's peak, after a warm-up and before a cosine; the same in all plans",
    "weight_decay": "AdamW's, of kernels and not of biases and norms; the same in all plans",
    "deep_supervision": "no heads on smaller features; up to 4 can be added, 3 in a fine preset",
    "seed": "of weights, patches and augmentation: the same seed, the same run",
}
"""Why numbers are what they are that follow neither from data nor from device."""


def plan_steps(
    pixels: int, patch: tuple[int, ...], batch_size: int, place: Device
) -> tuple[int, str]:
    """Return the number of steps, and why."""
    kind = "gpu" if place.is_gpu else "cpu"
    fewest, most = STEPS[kind]
    once = pixels / (batch_size * float(np.prod(patch)))
    wanted = math.ceil(PASSES[kind] * once)
    return min(max(fewest, wanted), most), (
        f"{PASSES[kind]} passes over {pixels} pixels are {wanted} steps; "
        f"at least {fewest} and at most {most} on a {kind.upper()}"
    )


def plan_sampling(
    spec: DatasetSpec, found: Fingerprint
) -> tuple[tuple[float, ...], OtherPatches, dict[str, str]]:
    """Return chances of classes, where other patches lie, and why."""
    shares = found.class_shares
    present = [k for k, share in enumerate(shares) if share > 0]
    common = [k for k in present if shares[k] > COMMON]
    if len(common) == len(present):  # one class alone, or regions that overlap
        common = []
    chances = tuple(0.0 if share == 0 or k in common else 1.0 for k, share in enumerate(shares))
    absent = absent_classes(spec, found)
    least = min((share, k) for k, share in enumerate(shares) if share > 0)
    name, share = spec.classes[least[1]].name, _percent(least[0])
    told = [
        f"none for {spec.classes[k].name}, which {shares[k]:.0%} are and other patches show"
        for k in common
    ]
    if absent:
        told.append(f"none for {', '.join(absent)}, which train does not have")
    told.append("the same for the others" if told else "the same for all")
    told.append(f"the rarest, {name}, has {share} of the labelled pixels")
    few = found.labelled < FEW_LABELS
    why = {
        "class_share": "half of the patches are centred on a class, the others show what is common",
        "class_chances": "; ".join(told),
        "other_patches": f"{found.labelled:.1%} of the pixels are labelled, "
        f"{'less' if few else 'not less'} than {FEW_LABELS:.0%}",
    }
    return chances, "labelled" if few else "anywhere", why


def absent_classes(spec: DatasetSpec, found: Fingerprint) -> list[str]:
    """Return the names of classes that no training pixel has."""
    pairs = zip(spec.classes, found.class_shares, strict=True)
    return [label.name for label, share in pairs if share == 0]


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 else "less than 0.01%"
