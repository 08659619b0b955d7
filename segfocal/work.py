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

from segfocal.presets import PRESETS

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
    width = int(sizes["embed_dim"])
    return {
        "encoder": _encoder(sizes, channels, ndim),
        "decoder": _decoder(
            width, channels, len(card["classes"]), ndim, config.get("upsampling") == "transposed"
        ),
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
    total, before = 0.0, channels
    for stage, depth in enumerate(sizes["depths"]):
        patch = 4 if stage == 0 else 2
        kernel = 2 * patch - 1 if sizes["conv_stem"] else patch
        width = int(sizes["embed_dim"]) * 2**stage
        hidden = int(width * sizes.get("mlp_ratio", 4.0))
        # Query, context, modulator and output; gates; focal levels; the MLP.
        block = 4 * width**2 + gates * width + taps * width + 2 * width * hidden
        positions = 2.0 ** (-ndim * (stage + 2))
        total += positions * (kernel**ndim * before * width + depth * block)
        before = width
    return total


def _decoder(width: int, channels: int, classes: int, ndim: int, transposed: bool) -> float:
    half, quarter = max(8, width // 2), max(8, width // 4)
    widths = (quarter, half, width, width, 2 * width)  # of p0 to p4
    skips = (quarter, half, width, 2 * width, 4 * width)
    below = (half, width, width, 2 * width, 8 * width)  # what comes up; to p4 from P5
    total = 3**ndim * channels * quarter + quarter * classes
    total += 3**ndim * quarter * half * 2.0**-ndim
    for level in range(5):
        doubled = 2**ndim * widths[level] ** 2 if transposed else 0
        total += 2.0 ** (-ndim * (level + 1)) * (below[level] * widths[level] + doubled)
        here = skips[level] * widths[level] + 3**ndim * widths[level] ** 2
        total += 2.0 ** (-ndim * level) * here
    return total
