"""How much memory training a FocalUNet takes, estimated from its sizes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segfocal.presets import Preset, level_widths

__all__ = ["training_bytes"]

FLOAT = 4
MEASURED = 1.6
"""What steps of ``nano`` took on a CPU beyond what layers return: gradients, workspaces. Measured
were 1.51 (256² by 8, five channels), 1.65 (one channel) and 1.52 (64³ by 4)."""

COPIES_OF_WEIGHTS = 6
"""Weight, gradient, clipped gradient, two moments of AdamW, and the average."""


def training_bytes(
    network: Preset,
    sides: Sequence[int],
    batch: int,
    *,
    channels: int,
    classes: int,
) -> int:
    """Return about how many bytes a training step takes, in float32.

    Counted is what the layers return, as it is kept for the gradient: of a focal block with L
    levels 19 + 4 L maps of the width of its stage, of a decoder level 7; all times 1.6.

    Args:
        network: The encoder.
        sides: Of a patch, in pixels.
        batch: Patches per step.
        channels, classes: Channels of the image and of the logits.
    """
    padded = [-(-side // network.output_stride) * network.output_stride for side in sides]

    def positions_at(stride: int) -> int:
        return math.prod(side // stride for side in padded)

    values, weights = 0, 0
    for stage, depth in enumerate(network.depths):
        width = network.embed_dim * 2**stage
        positions = positions_at(network.patch_size * 2**stage)
        maps = depth * (19 + 4 * network.focal_levels) + 3
        values += positions * width * maps
        weights += depth * 12 * width**2
    first = network.patch_size.bit_length() - 1
    widths = [*level_widths(network.embed_dim, first).values()][::-1]  # of p0 and on
    for level, width in enumerate(widths):
        values += positions_at(2**level) * 7 * width
        weights += width**2 * 3 ** len(sides)
    # The image as given, padded and scaled; the stem; logits, probabilities, targets, gradients.
    values += positions_at(1) * (3 * channels + 2 * widths[0] + 8 * classes)
    if network.patch_size == 4:
        values += positions_at(2) * 3 * widths[1]
    return int(FLOAT * (MEASURED * batch * values + COPIES_OF_WEIGHTS * weights))
