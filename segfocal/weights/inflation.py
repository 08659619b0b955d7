"""Two-dimensional weights for volumes."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError
from segfocal.weights.encoder_weights import EncoderWeights

__all__ = ["Inflation", "inflate"]

Inflation = Literal["centre", "mean"]

_EMBED = re.compile(r"stage(\d+)_embed\.projection\.kernel")
_FOCAL = re.compile(r".+\.focal_layers\.(\d+)\.kernel")


def inflate(
    weights: EncoderWeights, how: Inflation = "centre", plane_window: int | None = None
) -> EncoderWeights:
    """Return three-dimensional weights, kernels extended along a new first axis, the planes.

    ``"centre"``: the kernel stands in one plane, the others are zero; even kernels take the
    earlier of their two middle planes, because padding is at the end. Position p of feature
    ``Pn`` then is the two-dimensional feature of plane ``2**n * p + 1`` of any volume, up to
    the global context, which averages planes; with ``global_context="none"`` exactly, and
    with any context when all planes are equal. (Where the number of planes is 1 more than a
    multiple of 4, the last position sees padding.)

    ``"mean"``: every plane gets the kernel divided by their number (Carreira and Zisserman,
    "Quo Vadis, Action Recognition?", CVPR 2017). A volume whose planes are all equal then has
    the two-dimensional features, except within the receptive field of its first and last
    plane, where zeros are padded, and through the global context, which averages those too.

    Args:
        weights: Weights of a two-dimensional encoder or classifier.
        how: Where the kernel goes.
        plane_window: Focal window along planes; left out, as along rows. 1: no context along
            planes.

    Raises:
        ModelError: The weights are three-dimensional already, or ``how`` is unknown.
    """
    source = weights.architecture
    if source.ndim != 2:
        raise ModelError("the weights are three-dimensional already; expected two-dimensional ones")
    if how not in ("centre", "mean"):
        raise ModelError(f"inflation {how!r}; expected 'centre' or 'mean'")
    window = source.focal_window
    rows, cols = (window, window) if isinstance(window, int) else window
    planes = rows if plane_window is None else plane_window
    new = dataclasses.replace(
        source,
        ndim=3,
        focal_window=rows if planes == rows == cols else (planes, rows, cols),
    )
    kernels = new.kernels
    arrays = dict(weights.arrays)
    for name, array in weights.arrays.items():
        if match := _EMBED.fullmatch(name):
            arrays[name] = _extend(array, new.patch_kernels[int(match[1]) - 1], how)
        elif match := _FOCAL.fullmatch(name):
            arrays[name] = _extend(array, kernels[int(match[1])][0], how)
    return dataclasses.replace(weights, architecture=new, arrays=arrays)


def _extend(kernel: NDArray[np.float32], planes: int, how: Inflation) -> NDArray[np.float32]:
    if how == "mean":
        return np.repeat(kernel[None] / np.float32(planes), planes, axis=0)
    result = np.zeros((planes, *kernel.shape), np.float32)
    result[(planes - 1) // 2] = kernel
    return result
