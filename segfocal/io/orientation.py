"""Canonical and file order of a volume's axes, and the way between them.

A volume file stores its axes in any of 48 orders (six permutations, eight combinations of
flips). :class:`AxisOrder` maps windows and arrays between that order and the canonical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segfocal.types import Window

__all__ = ["AxisOrder"]

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class AxisOrder:
    """How canonical axes lie in a file.

    Attributes:
        file_axis: For each canonical axis, the file axis that holds it.
        flipped: For each canonical axis, True when the file runs the other way.
        shape: Canonical lengths.
    """

    file_axis: tuple[int, ...]
    flipped: tuple[bool, ...]
    shape: tuple[int, ...]

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> AxisOrder:
        """Return the order of a file that is canonical already."""
        return cls(tuple(range(len(shape))), (False,) * len(shape), shape)

    @property
    def canonical_axis(self) -> tuple[int, ...]:
        """For each file axis, the canonical axis that it holds."""
        return tuple(self.file_axis.index(axis) for axis in range(len(self.file_axis)))

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Lengths of the file's axes."""
        return tuple(self.shape[axis] for axis in self.canonical_axis)

    def file_window(self, window: Window) -> Window:
        """Return the window of the file that holds a canonical window."""
        turned = [
            slice(length - side.stop, length - side.start) if flip else side
            for side, flip, length in zip(window, self.flipped, self.shape, strict=True)
        ]
        return tuple(turned[axis] for axis in self.canonical_axis)

    def to_canonical(self, array: NDArray[T]) -> NDArray[T]:
        """Return a view of ``array``, spatial axes in file order first, in canonical order."""
        rest = range(len(self.file_axis), array.ndim)
        turned = array.transpose(*self.file_axis, *rest)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def to_file(self, array: NDArray[T]) -> NDArray[T]:
        """Return a view of ``array``, of canonical spatial axes, in file order."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return turned.transpose(*self.canonical_axis)
