"""The work of a network as its config says it, without Keras.

The same numbers as :func:`segfocal.models.cost.multiply_accumulates`, which counts the layers
of a model that is loaded: the multiply-accumulate operations of dense layers and convolutions.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segfocal.presets import PRESETS, level_widths

__all__ = ["read_work", "work_per_pixel"]


def read_work(path: str | Path) -> dict[str, float] | None:
    """Return the work of a ``.keras`` file's network per pixel; None when it is not known.

    See :func:`work_per_pixel`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        return work_per_pixel(config["config"])
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def work_per_pixel(config: Mapping[str, Any]) -> dict[str, float] | None:
    """Count the multiply-accumulate operations per pixel of an image of whole strides.

    Args:
        config: The config of a FocalUNet.

    Returns:
        ``{"encoder": ..., "decoder": ...}``; None when the encoder is not a FocalNet.
    """
    options = config.get("encoder") or {}
    if "class_name" in options:
        return None
    card = config["card"]
    ndim, channels = int(card.get("ndim", 2)), len(card["channels"])
    sizes = asdict(PRESETS[config.get("preset", "tiny_srf")])
    sizes |= {name: value for name, value in options.items() if value is not None}
    transposed = config.get("upsampling") == "transposed"
    return {
        "encoder": _encoder(sizes, channels, ndim),
        "decoder": _decoder(sizes, channels, len(card["classes"]), ndim, transposed),
    }


def _encoder(sizes: Mapping[str, Any], channels: int, ndim: int) -> float:
    window = sizes["focal_window"]
    window = (window,) * ndim if isinstance(window, int) else window
    levels = int(sizes["focal_levels"])
    taps = sum(
        math.prod(1 if side == 1 else side + 2 * level for side in window)
        for level in range(levels)
    )
    gates = levels + (sizes.get("global_context", "tile") != "none")
    total, before, stride = 0.0, channels, 1
    for stage, depth in enumerate(sizes["depths"]):
        patch = int(sizes["patch_size"]) if stage == 0 else 2
        stride *= patch
        kernel = 2 * patch - 1 if sizes["conv_stem"] else patch
        width = int(sizes["embed_dim"]) * 2**stage
        hidden = int(width * sizes.get("mlp_ratio", 4.0))
        # Query, context, modulator and output; gates; focal levels; the MLP.
        block = 4 * width**2 + gates * width + taps * width + 2 * width * hidden
        positions = float(stride) ** -ndim
        total += positions * (kernel**ndim * before * width + depth * block)
        before = width
    return total


def _decoder(
    sizes: Mapping[str, Any], channels: int, classes: int, ndim: int, transposed: bool
) -> float:
    width, first = int(sizes["embed_dim"]), int(sizes["patch_size"]).bit_length() - 1
    widths = [*level_widths(width, first).values()][::-1]  # of p0 and on
    stems = widths[:first]
    skips = [*stems, width, 2 * width, 4 * width]
    below = [*widths[1:], 8 * width]  # what comes up; to the last from the coarsest feature
    total = 3.0**ndim * channels * widths[0] + widths[0] * classes
    for level in range(1, first):
        total += 3**ndim * stems[level - 1] * stems[level] * 2.0 ** (-ndim * level)
    for level, here in enumerate(widths):
        doubled = 2**ndim * here**2 if transposed else 0
        total += 2.0 ** (-ndim * (level + 1)) * (below[level] * here + doubled)
        total += 2.0 ** (-ndim * level) * (skips[level] * here + 3**ndim * here**2)
    return total
