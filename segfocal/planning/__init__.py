"""Planning: what a dataset measures, and the numbers of training that follow from it.

The rules start from nnU-Net's (Isensee et al. 2021; version 2) where they are about volumes:
:mod:`~segfocal.planning.resolution` and :mod:`~segfocal.planning.intensity`. Patches are as large
as the device allows (:mod:`~segfocal.planning.sizes`). Its rule that a batch holds at most 5 % of
all voxels is left out: the datasets here may be a single scan.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import numpy as np

from segfocal.card import Card
from segfocal.data.fingerprint import measure
from segfocal.data.plan import AugmentationKind, Plan
from segfocal.data.reading import RegionReader, open_regions
from segfocal.data.spec import DatasetSpec
from segfocal.errors import SegfocalWarning, SpecError
from segfocal.planning.augmentation import augmentation_of
from segfocal.planning.course import FIXED, plan_sampling, plan_steps
from segfocal.planning.device import DeviceKind, device_at_hand
from segfocal.planning.doubts import doubts_of
from segfocal.planning.intensity import plan_normalization
from segfocal.planning.network import plan_preset, plan_tile
from segfocal.planning.resolution import plan_resolution
from segfocal.planning.scale import pixels_at
from segfocal.planning.sizes import memory_doubt, plan_batch, plan_patch
from segfocal.presets import PRESETS
from segfocal.types import full_window, window_shape
from segfocal.version import __version__

__all__ = ["make_plan"]


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
    why. What makes training doubtful is warned of: channels of one value, classes that no pixel
    has, pixels of very different sizes, a step that takes more memory than there is.

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
            nine tenths of the GPU's, or half of what is free. Of a GPU's a fifth is left free.

    Raises:
        SpecError: No usable or no labelled pixels, labels outside the class table, a region
            without a pixel at the resolution, or an argument that no plan can hold.
        GeometryError: ``memory`` is no size.
        ScanError, ChannelError: A file of the split cannot be used.
    """
    _check(spec, preset, patch, batch_size, steps, seed)
    place = device_at_hand(device, memory)
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        readers = open_regions(spec, "train", stack)
        found = measure(spec, readers)
        resolution, resample, why = plan_resolution(spec, readers)
        reasons.update(why)
        doubts: list[str | None] = list(doubts_of(spec, readers, found))
        target = resolution if resample else None
        shapes = np.array([_sides(reader, target) for reader in readers], np.float64)
        scans = np.array([_sides(reader, target, whole=True) for reader in readers], np.float64)
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
    if preset is None:
        preset, reasons["preset"] = plan_preset(scans, place)
    else:
        reasons["preset"] = "asked for"
    network = PRESETS[preset]
    width = len(channels), spec.num_classes
    if patch is None:
        patch, reasons["patch"] = plan_patch(shapes, resolution, network, *width, place)
    else:
        reasons["patch"] = "asked for"
    if batch_size is None:
        batch_size, reasons["batch_size"] = plan_batch(patch, network, *width, place)
    else:
        reasons["batch_size"] = "asked for"
    doubts.append(memory_doubt(patch, batch_size, network, *width, place))
    if steps is None:
        steps, reasons["steps"] = plan_steps(int(shapes.prod(1).sum()), patch, batch_size, place)
    else:
        reasons["steps"] = "asked for"
    chances, other, why = plan_sampling(spec, found.fingerprint)
    reasons.update(why)
    tile, reasons["card.tile"] = plan_tile(scans, patch, network.output_stride)
    settings, mirror_axes = augmentation_of(augmentation, patch, resolution)
    reasons["augmentation"] = {
        "default": "as nnU-Net: elastic deformation is switched off; set its probability to try it",
        "light": "asked for: little, for a short run",
        "none": "asked for: none",
    }[augmentation]
    reasons["mirror_axes"] = (
        "asked for: none"
        if augmentation == "none"
        else "all: a scene seen from above has no upright side; take axes away if yours have"
        if spec.ndim == 2
        else "all, as nnU-Net; take away the axis from left to right if sides matter"
    )
    reasons.update(FIXED)
    for text in doubts:
        if text is not None:
            warnings.warn(f"spec {spec.name!r}: {text}", SegfocalWarning, stacklevel=2)
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
        preset=preset,
        patch=patch,
        batch_size=batch_size,
        steps=steps,
        class_chances=chances,
        other_patches=other,
        resample=resample,
        mirror_axes=mirror_axes,
        augmentation=settings,
        class_pixels=tuple(int(count) for count in found.class_pixels),
        seed=seed,
        fingerprint=found.fingerprint,
        reasons=reasons,
    )


def _sides(
    reader: RegionReader, resolution: tuple[float, ...] | None, *, whole: bool = False
) -> tuple[int, ...]:
    """Return the sides of a region, or of its whole scan, in pixels at the resolution, if any."""
    window = full_window(reader.shape) if whole else reader.window
    own = window_shape(window)
    if resolution is None or reader.resolution is None:
        return own
    sides = pixels_at(window, reader.shape, reader.resolution, resolution)
    if not all(sides):
        raise SpecError(
            f"spec {reader.spec.name!r}: case {reader.case.id!r}: a region of "
            f"{' x '.join(map(str, own))} pixels has {' x '.join(map(str, sides))} at the "
            f"resolution {' x '.join(f'{side:g}' for side in resolution)}, which is that of most "
            "scans; expected at least one along each axis: give a finer resolution in the spec"
        )
    return sides


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
