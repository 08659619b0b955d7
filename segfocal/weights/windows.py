"""Other focal windows, levels and global contexts for weights that are there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError
from segfocal.weights.architecture import Architecture
from segfocal.weights.encoder_weights import EncoderWeights

__all__ = ["refit_modulation", "widen_focal_windows"]

_FOCAL = re.compile(r"(.+\.modulation)\.focal_layers\.(\d+)\.kernel")


def widen_focal_windows(
    weights: EncoderWeights,
    focal_window: int | Sequence[int],
    focal_levels: int | None = None,
) -> EncoderWeights:
    """Return weights for larger focal kernels that compute the same, to be trained further.

    Kernels are padded with zeros around their centre: an identity. Smaller windows crop them.
    The published dense-prediction networks were made so, 3 to 9
    (microsoft/FocalNet ``segmentation/mmcv_custom/checkpoint.py``).

    Additional levels get a kernel that passes its input on and a gate of zero; the global gate
    moves to the end. The sum of the levels is the same as before. The global context is not:
    it averages the last level, which has one more GELU. With ``global_context="none"`` the
    network computes the same.

    Args:
        weights: Weights of an encoder or classifier.
        focal_window: New kernel of the first level: one odd number, or one per axis.
        focal_levels: New number of levels; left out, as it is.

    Raises:
        ModelError: Fewer levels than there are: a level cannot be taken out.
    """
    window = focal_window if isinstance(focal_window, int) else tuple(focal_window)
    architecture = weights.architecture
    target = dataclasses.replace(
        architecture,
        focal_window=window,
        focal_levels=architecture.focal_levels if focal_levels is None else focal_levels,
    )
    return refit_modulation(weights, target)


def refit_modulation(weights: EncoderWeights, target: Architecture) -> EncoderWeights:
    """Return weights for the window, levels, global context and divisor of another network.

    A global gate is dropped for a network without global context and is zero in one whose
    source had none. With ``normalize_modulator`` the modulator's kernel makes up for another
    divisor, so that the result is the same.

    Args:
        weights: Weights of an encoder or classifier.
        target: Architecture to take those four from.

    Raises:
        ModelError: The target has fewer levels, or its window is no window.
    """
    source = weights.architecture
    added = target.focal_levels - source.focal_levels
    if added < 0:
        raise ModelError(
            f"{source.focal_levels} focal levels cannot become {target.focal_levels}; expected at "
            "least as many"
        )
    new = dataclasses.replace(
        source,
        focal_window=target.focal_window,
        focal_levels=target.focal_levels,
        global_context=target.global_context,
        local_context=target.local_context,
        normalize_modulator=target.normalize_modulator,
    )
    kernels = new.kernels
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, array in weights.arrays.items():
        if match := _FOCAL.fullmatch(name):
            level = int(match[2])
            arrays[name] = _fit(array, kernels[level])
            if level == source.focal_levels - 1:
                for extra in range(level + 1, new.focal_levels):
                    shape = (*kernels[extra], *array.shape[-2:])
                    arrays[f"{match[1]}.focal_layers.{extra}.kernel"] = _pass_on(shape)
        elif ".gate_projection." in name:
            arrays[name] = _gates(array, source, new)
        elif name.endswith(".modulator_projection.kernel"):
            arrays[name] = array * np.float32(_divisor(new) / _divisor(source))
        else:
            arrays[name] = array
    return dataclasses.replace(weights, architecture=new, arrays=arrays)


def _divisor(architecture: Architecture) -> int:
    return architecture.num_gates if architecture.normalize_modulator else 1


def _fit(kernel: NDArray[np.float32], sides: tuple[int, ...]) -> NDArray[np.float32]:
    """Pad with zeros or crop the leading axes, around their centre."""
    for axis, side in enumerate(sides):
        margin = (side - kernel.shape[axis]) // 2
        if margin >= 0:
            widths = [(0, 0)] * kernel.ndim
            widths[axis] = (margin, margin)
            kernel = np.pad(kernel, widths)
        else:
            kernel = kernel.take(range(-margin, kernel.shape[axis] + margin), axis=axis)
    return kernel


def _pass_on(shape: tuple[int, ...]) -> NDArray[np.float32]:
    kernel = np.zeros(shape, np.float32)
    kernel[tuple(side // 2 for side in shape[:-2])] = 1.0
    return kernel


def _gates(
    array: NDArray[np.float32], source: Architecture, new: Architecture
) -> NDArray[np.float32]:
    """Gates lie on the last axis, one per level and then the global one."""
    pieces = [array[..., : source.focal_levels]]
    pieces.append(np.zeros((*array.shape[:-1], new.focal_levels - source.focal_levels), "float32"))
    if new.global_context != "none":
        known = array[..., source.focal_levels :]
        pieces.append(known if known.shape[-1] else np.zeros((*array.shape[:-1], 1), "float32"))
    return np.concatenate(pieces, axis=-1)
