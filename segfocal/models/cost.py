"""The work of a network: multiply-accumulate operations of its linear layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import keras

from segfocal.models.focal_unet import FocalUNet
from segfocal.models.focalnet import FocalNet

__all__ = ["multiply_accumulates"]


def multiply_accumulates(model: FocalNet | FocalUNet, space: Sequence[int]) -> dict[str, int]:
    """Count the multiply-accumulate operations (MACs) of one image of a given size.

    Counted are dense layers and convolutions, depthwise and transposed ones too: what a
    "FLOPs" column in a paper usually means. Additions, normalisation and GELU, a few percent
    together, are not. Each entry of a kernel is used once per position, so the count is the
    size of the kernel times the number of positions.

    Args:
        model: A FocalNet without head, or a FocalUNet around one.
        space: Sides of the image in pixels, one per spatial axis.

    Returns:
        ``{"encoder": ..., "decoder": ...}``; the decoder with P0, P1 and logits.

    Raises:
        ValueError: The encoder is not a FocalNet.
    """
    network = model.encoder if isinstance(model, FocalUNet) else model
    if not isinstance(network, FocalNet):
        raise ValueError(f"{type(network).__name__} cannot be counted; expected a FocalNet")
    found = {"encoder": 0, "decoder": 0}
    if isinstance(model, FocalUNet):
        # Padded to whole strides before everything else.
        space = [side + (-side) % model.output_stride for side in space]
        for layer in model.layers:
            if layer is not network:
                found["decoder"] += _work(layer, _decoder_stride(layer.name), space)
    for layer in network.layers:
        stage = re.match(r"stage(\d+)_", layer.name)
        if stage:
            found["encoder"] += _work(layer, network.patch_size * 2 ** (int(stage[1]) - 1), space)
    return found


def _decoder_stride(name: str) -> int:
    """Return how many times smaller than the image the positions are that a layer works on."""
    level = re.search(r"_p(\d)", name)
    # What comes up is projected, and upsampled by a transposed convolution, while still small.
    below = name.startswith(("up_", "double_"))
    return 2 ** (int(level[1]) + below) if level else 1


def _work(layer: keras.layers.Layer, stride: int, space: Sequence[int]) -> int:
    positions = math.prod(-(-side // stride) for side in space)
    kernels = [weight for weight in layer.weights if weight.path.endswith("kernel")]
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)
