"""How far a pixel of the input can be from the pixels of the output that depend on it."""

from __future__ import annotations

from segfocal.models.focal_unet import FocalUNet
from segfocal.models.focalnet import FocalNet

__all__ = ["receptive_field"]

Span = tuple[int, int]
"""Positions along one axis that something depends on: start and, exclusive, stop."""


def receptive_field(model: FocalUNet) -> tuple[int, ...]:
    """Return the reach of the network per side and axis, in pixels.

    A stretch of output pixels that starts and ends at multiples of ``output_stride`` depends on
    input pixels within this distance of it, and on no others. The reach follows from walking
    back through the layers: a 3×3 convolution reaches one position further, a focal block the
    sum of its kernels' half sides (``sum(k_l // 2)`` when levels are chained, the largest of
    them when they are parallel), a step down in resolution multiplies by its factor. The focal
    blocks make up most of it: ``sum over stages of depth * stride * sum(k_l // 2)``, 552 pixels
    for tiny_srf.

    With tiles whose halo is at least the reach, rounded up to a multiple of ``output_stride``,
    tiled inference equals the whole image at once.

    Args:
        model: A FocalUNet around a FocalNet with ``global_context`` ``"frozen"`` or ``"none"``.

    Raises:
        ValueError: The encoder is no FocalNet, or its context reaches over the whole tile.
    """
    network = model.encoder
    if not isinstance(network, FocalNet):
        raise ValueError("the encoder is no FocalNet; its receptive field is not known")
    if network.global_context not in ("frozen", "none"):
        raise ValueError(
            f"global_context={network.global_context!r} reaches over the whole tile; expected "
            '"frozen" or "none"'
        )
    return tuple(_reach(model, network, axis) for axis in range(network.ndim))


def _reach(model: FocalUNet, network: FocalNet, axis: int) -> int:
    config = network.get_config()
    down = _overlapping if config["conv_stem"] else _patches
    up = _between if model.upsampling == "linear" else _repeated
    stride = model.output_stride

    # Down the decoder, collecting what it asks of each skip.
    span: Span = (0, stride)
    wanted: dict[int, Span] = {}
    first = config["patch_size"].bit_length() - 1
    for level in range(first + 3):
        span = _wider(span, 1)
        wanted[level] = span
        span = up(span)
    wanted[first + 3] = span

    # Down the encoder: from the coarsest feature back to the image.
    block = _block_reach(network, axis)
    need = wanted[first + 3]
    for stage in (3, 2, 1, 0):
        need = _hull(need, wanted[stage + first])
        need = _wider(need, config["depths"][stage] * block)
        need = down(need, config["patch_size"] if stage == 0 else 2)
    from_image = wanted[0]
    if first == 2:
        # P1 looks at P0 with stride 2 ("same" padding of even sides begins at the pixel itself).
        from_image = _hull((2 * wanted[1][0], 2 * (wanted[1][1] - 1) + 3), from_image)
    need = _hull(need, _wider(from_image, 1))
    return max(-need[0], need[1] - stride)


def _block_reach(network: FocalNet, axis: int) -> int:
    modulation = network.get_layer("stage1_block1").modulation
    halves = [kernel[axis] // 2 for kernel in modulation.kernels]
    return sum(halves) if modulation.context == "chained" else max(halves)


def _patches(span: Span, factor: int) -> Span:
    return (factor * span[0], factor * span[1])


def _overlapping(span: Span, factor: int) -> Span:
    margin = factor // 2
    return (factor * span[0] - margin, factor * span[1] - margin + factor - 1)


def _repeated(span: Span) -> Span:
    """Return what pixels twice as fine come from; transposed convolutions of side 2 likewise."""
    return (span[0] // 2, -(-span[1] // 2))


def _between(span: Span) -> Span:
    """Return the same for linear interpolation: even ones look back, odd ones ahead."""
    last = span[1] - 1
    return (span[0] // 2 - (span[0] % 2 == 0), last // 2 + 1 + last % 2)


def _wider(span: Span, amount: int) -> Span:
    return (span[0] - amount, span[1] + amount)


def _hull(one: Span, other: Span) -> Span:
    return (min(one[0], other[0]), max(one[1], other[1]))
