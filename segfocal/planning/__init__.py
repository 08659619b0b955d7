"""Planning: what a dataset measures, and the numbers of training that follow from it.

The rules start from nnU-Net's (Isensee et al. 2021; version 2) where they are about volumes:
:mod:`~segfocal.planning.resolution` and :mod:`~segfocal.planning.intensity`. Patches are as large
as the device allows (:mod:`~segfocal.planning.sizes`). Its rule that a batch holds at most 5 % of
all voxels is left out: the datasets here may be a single scan.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np

from segfocal.card import Card
from segfocal.data.augmentation import default_augmentation, light_augmentation
from segfocal.data.fingerprint import Fingerprint, measure
from segfocal.data.plan import AugmentationKind, OtherPatches, Plan
from segfocal.data.reading import open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SpecError
from segfocal.planning.device import Device, DeviceKind, device_at_hand
from segfocal.planning.intensity import plan_normalization
from segfocal.planning.resolution import plan_resolution
from segfocal.planning.sizes import OUTPUT_STRIDE, plan_batch, plan_patch
from segfocal.presets import PRESETS
from segfocal.types import window_shape
from segfocal.version import __version__

__all__ = ["make_plan"]

FEW_LABELS = 0.5
"""Share of labelled pixels below which patches that lie anywhere would often show none."""

COMMON = 0.5
"""Share of labelled pixels of a class above which no patch has to be centred on it."""

PASSES = {"cpu": 30, "gpu": 100}
STEPS = {"cpu": (1000, 5000), "gpu": (5000, 100_000)}
"""How often each pixel is seen, and the fewest and most steps, by device."""


def make_plan(
    spec: DatasetSpec,
    *,
    preset: str | None = None,
    patch: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    augmentation: AugmentationKind = "default",
    device: DeviceKind = "auto",
    memory: int | str | None = None,
) -> Plan:
    """Measure the training split, block by block, and derive a plan.

    Mean and standard deviation per channel are over all usable pixels of the split ``train``;
    percentiles are over a sample of them. What is left out is chosen, and ``plan.reasons`` says
    why.

    Args:
        spec: The dataset.
        preset: Size of the encoder.
        patch: Side lengths of training patches in pixels.
        batch_size: Patches per step.
        steps: Optimizer steps.
        seed: Seed of weights, patches and augmentation.
        augmentation: ``"default"``: nnU-Net's; ``"light"``, for short runs; ``"none"``.
        device: What is trained on: ``"cpu"``, ``"gpu"``, or what this machine has.
        memory: What training may take there, in bytes or as text such as ``"8GB"``. Left out:
            nine tenths of the GPU's, or half of what is free.

    Raises:
        SpecError: No usable or no labelled pixels, labels outside the class table, or an
            argument that no plan can hold.
        GeometryError: ``memory`` is no size.
        ScanError, ChannelError: A file of the split cannot be used.
    """
    _check(spec, preset, patch, batch_size, steps, seed)
    place = device_at_hand(device, memory)
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        readers = open_regions(spec, "train", stack)
        found = measure(spec, readers)
        resolution, resample, reasons["card.resolution"] = plan_resolution(spec, readers)
        normalizations, why = plan_normalization(spec, found.fingerprint)
        reasons.update(why)
        channels = found.channels
        if any(normalizations):
            readers = open_regions(spec, "train", stack, normalizations=normalizations)
            measured = measure(spec, readers).channels
            channels = tuple(
                channel.model_copy(update={"normalization": one})
                for channel, one in zip(measured, normalizations, strict=True)
            )
        channels = tuple(
            channel.model_copy(update={"mean": 0.0, "std": 1.0})
            if spec.normalization.get(channel.name, spec.normalization.get("*")) == "none"
            else channel
            for channel in channels
        )
        shapes = np.array([window_shape(reader.window) for reader in readers], np.float64)
        if resample and resolution is not None:
            known = [reader.resolution or resolution for reader in readers]
            shapes *= np.array(known) / np.array(resolution)
    chosen = preset or ("nano" if not place.is_gpu else "tiny_srf" if spec.ndim == 2 else "micro")
    reasons["preset"] = (
        "asked for"
        if preset
        else f"{place.name}: the smallest, made for processors"
        if not place.is_gpu
        else f"{place.name}: as published"
        if spec.ndim == 2
        else f"{place.name}: volumes take more memory than scenes"
    )
    network = PRESETS[chosen]
    width = len(channels), spec.num_classes
    if patch is None:
        patch, reasons["patch"] = plan_patch(shapes, resolution, network, *width, place)
    else:
        reasons["patch"] = "asked for"
    if batch_size is None:
        batch_size, reasons["batch_size"] = plan_batch(patch, network, *width, place)
    else:
        reasons["batch_size"] = "asked for"
    if steps is None:
        steps, reasons["steps"] = _plan_steps(int(shapes.prod(1).sum()), patch, batch_size, place)
    else:
        reasons["steps"] = "asked for"
    chances, other, why = _plan_sampling(spec, found.fingerprint)
    reasons.update(why)
    # Two strides at least: tiles of one could not overlap.
    tile = tuple(
        max(2 * OUTPUT_STRIDE, -(-side // OUTPUT_STRIDE) * OUTPUT_STRIDE) for side in patch
    )
    settings = {
        "default": default_augmentation(patch, resolution if spec.ndim == 3 else None),
        "light": light_augmentation(spec.ndim),
        "none": light_augmentation(spec.ndim).switched_off(),
    }[augmentation]
    reasons["augmentation"] = {
        "default": "as nnU-Net: elastic deformation is switched off; set its probability to try it",
        "light": "asked for: little, for a short run",
        "none": "asked for: none",
    }[augmentation]
    if spec.ndim == 3:
        reasons["mirror_axes"] = (
            "all, as nnU-Net; take away the axis from left to right if sides matter"
        )
    return Plan(
        spec=spec.name,
        card=Card(
            segfocal=__version__,
            ndim=spec.ndim,
            channels=channels,
            named_channels=True,
            valid_when=spec.valid_when,
            classes=spec.classes,
            task=spec.task,
            tile=tile,
            patch=None if tile == tuple(patch) else tuple(patch),
            resolution=resolution,
            orientation=(spec.orientation or "RAS") if spec.ndim == 3 else None,
        ),
        preset=chosen,
        patch=patch,
        batch_size=batch_size,
        steps=steps,
        class_chances=chances,
        other_patches=other,
        resample=resample,
        mirror_axes=() if augmentation == "none" else tuple(range(spec.ndim)),
        augmentation=settings,
        class_pixels=tuple(int(count) for count in found.class_pixels),
        seed=seed,
        fingerprint=found.fingerprint,
        reasons=reasons,
    )


def _check(
    spec: DatasetSpec,
    preset: str | None,
    patch: tuple[int, ...] | None,
    batch_size: int | None,
    steps: int | None,
    seed: int,
) -> None:
    if preset is not None and preset not in PRESETS:
        raise SpecError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    if patch is not None and (len(patch) != spec.ndim or min(patch) < 1):
        raise SpecError(f"patch {patch}; expected {spec.ndim} sides of at least 1 pixel")
    if seed < 0 or any(number is not None and number < 1 for number in (steps, batch_size)):
        raise SpecError(
            f"steps {steps}, batch size {batch_size}, seed {seed}; expected at least 1, 1 and 0"
        )


def _plan_steps(
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


def _plan_sampling(
    spec: DatasetSpec, found: Fingerprint
) -> tuple[tuple[float, ...], OtherPatches, dict[str, str]]:
    """Return chances of classes, where other patches lie, and why."""
    shares = found.class_shares
    present = [k for k, share in enumerate(shares) if share > 0]
    common = [k for k in present if shares[k] > COMMON]
    if len(common) == len(present):  # one class alone, or regions that overlap
        common = []
    chances = tuple(0.0 if share == 0 or k in common else 1.0 for k, share in enumerate(shares))
    least = min((share, k) for k, share in enumerate(shares) if share > 0)
    name, share = spec.classes[least[1]].name, _percent(least[0])
    rarest = f"the rarest, {name}, has {share} of the labelled pixels"
    why = {
        "class_share": "half of the patches are centred on a class, the others show what is common",
        "class_chances": f"the same for all; {rarest}"
        + "".join(
            f"; none for {spec.classes[k].name}, which {shares[k]:.0%} are and other patches show"
            for k in common
        ),
        "other_patches": f"{found.labelled:.1%} of the pixels are labelled",
    }
    return chances, "labelled" if found.labelled < FEW_LABELS else "anywhere", why


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 else "less than 0.01%"
