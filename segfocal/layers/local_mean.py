"""Means over a box around each position, for contexts that do not depend on the tile's size."""

from __future__ import annotations

from keras import KerasTensor, ops

__all__ = ["local_mean"]


def local_mean(x: KerasTensor, weight: KerasTensor, window: tuple[int, ...]) -> KerasTensor:
    """Return the weighted mean of ``x`` over a box around each position.

    The box has the same size everywhere: at a border it is shifted inward, and an axis shorter
    than the box is averaged as a whole. So a network that was trained on patches of the box's
    size meets means over as many positions as in training, in a tile of any size ("test-time
    local converter", Chu et al., arXiv 2112.04491).

    Args:
        x: ``(batch, *space, channels)``.
        weight: ``(batch, *space, 1)``, such as ones and zeros.
        window: Side lengths of the box in positions, one per spatial axis.

    Returns:
        ``(batch, *space, channels)`` float32; 0 where the box has no weight.
    """
    weight = ops.cast(weight, "float32")
    total, count = ops.cast(x, "float32") * weight, weight
    for axis, side in enumerate(window, start=1):
        total, count = _box_sum(total, axis, side), _box_sum(count, axis, side)
    return total / ops.maximum(count, 1e-6)


def _box_sum(x: KerasTensor, axis: int, side: int) -> KerasTensor:
    length = ops.shape(x)[axis]
    if isinstance(length, int) and length <= side:
        return ops.zeros_like(x) + ops.sum(x, axis=axis, keepdims=True)
    # A difference of running sums: one pass for a box of any size.
    front = [(1, 0) if i == axis else (0, 0) for i in range(len(x.shape))]
    running = ops.pad(ops.cumsum(x, axis=axis), front)
    places = ops.arange(length, dtype="int32") - side // 2
    start = ops.maximum(ops.minimum(places, length - side), 0)
    stop = ops.minimum(start + side, length)
    return ops.take(running, stop, axis=axis) - ops.take(running, start, axis=axis)
