"""Rotation, zoom and elastic deformation of 3-D patches, which albumentations does not have.

Done in millimetres: where spacings differ, a rotation in voxels would shear. Where one axis is
more than three times as coarse as the finest, planes are turned and deformed within themselves:
between them lies too little to interpolate from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segfocal.data.augmentation import ANISOTROPIC

__all__ = ["bend_volume", "in_plane_axes"]

SMOOTHNESS = 1 / 4
"""Distance between the nodes of an elastic field, in sides of the patch."""


def in_plane_axes(spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the axes along which voxels are no more than three times the finest."""
    return tuple(axis for axis, side in enumerate(spacing) if side <= ANISOTROPIC * min(spacing))


def bend_volume(
    values: NDArray[np.float32],
    code: NDArray[np.int32],
    *,
    angles: Sequence[float],
    zoom: float,
    elastic: float,
    spacing: Sequence[float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a patch rotated, zoomed and deformed; 0 where it comes from beyond the patch.

    Args:
        values: ``(planes, rows, cols, channels)``, interpolated linearly.
        code: ``(planes, rows, cols)``, of which the nearest is taken.
        angles: Degrees about each axis.
        zoom: Above 1 things become larger.
        elastic: Standard deviation of the displacement, in voxels of the finest axis.
        spacing: Size of a voxel along each axis.
        rng: Source of chance for the elastic field.
    """
    planar = in_plane_axes(spacing)
    matrix = _matrix(angles, zoom, spacing, planar)
    centre = (np.array(code.shape) - 1) / 2
    offset = centre - matrix @ centre
    if not elastic and not np.any(matrix - np.diag(np.diag(matrix))):
        return _stretched(values, code, np.diag(matrix), offset)
    result = np.empty_like(values)
    if not elastic:
        options = {"offset": offset, "mode": "constant", "cval": 0}
        for channel in range(values.shape[-1]):
            ndimage.affine_transform(
                values[..., channel], matrix, output=result[..., channel], order=1, **options
            )
        return result, ndimage.affine_transform(code, matrix, order=0, **options)
    grid = np.indices(code.shape, np.float32).reshape(3, -1)
    places = (matrix.astype(np.float32) @ grid + offset[:, None].astype(np.float32)).reshape(
        3, *code.shape
    )
    for axis in planar:
        reach = elastic * min(spacing) / spacing[axis]
        places[axis] += reach * _smooth_field(code.shape, planar, rng)
    for channel in range(values.shape[-1]):
        ndimage.map_coordinates(
            values[..., channel], places, output=result[..., channel], order=1, mode="constant"
        )
    return result, ndimage.map_coordinates(code, places, order=0, mode="constant")


def _stretched(
    values: NDArray[np.float32],
    code: NDArray[np.int32],
    steps: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return what ``affine_transform`` would of a diagonal matrix, axis by axis: much faster."""
    channels = np.moveaxis(values, -1, 0)
    for axis, (step, start, length) in enumerate(zip(steps, offset, code.shape, strict=True)):
        place = step * np.arange(length) + start
        inside = (place >= 0) & (place <= length - 1)
        below = np.clip(np.floor(place), 0, length - 1).astype(np.intp)
        weight = np.where(inside, place - below, 0).astype(np.float32)
        nearest = np.clip(np.floor(place + 0.5), 0, length - 1).astype(np.intp)
        shape = (-1, *(1,) * (2 - axis))
        low = np.take(channels, below, axis + 1)
        high = np.take(channels, np.minimum(below + 1, length - 1), axis + 1)
        high -= low
        high *= weight.reshape(shape)
        low += high
        low *= inside.astype(np.float32).reshape(shape)
        channels = low
        code = np.take(code, nearest, axis) * inside.astype(np.int32).reshape(shape)
    return np.moveaxis(channels, 0, -1), code


def _matrix(
    angles: Sequence[float], zoom: float, spacing: Sequence[float], planar: Sequence[int]
) -> NDArray[np.float64]:
    """Return what takes a voxel of the result, from the centre, to where it comes from."""
    turn = np.eye(3)
    for axis, degrees in enumerate(angles):
        plane = [other for other in range(3) if other != axis]
        if not set(plane) <= set(planar):
            continue
        radians = np.deg2rad(degrees)
        one = np.eye(3)
        one[np.ix_(plane, plane)] = [
            [np.cos(radians), -np.sin(radians)],
            [np.sin(radians), np.cos(radians)],
        ]
        turn = turn @ one
    stretch = np.array([1 / zoom if axis in planar else 1.0 for axis in range(3)])
    sides = np.asarray(spacing, np.float64)
    return (turn * stretch) * sides[None, :] / sides[:, None]


def _smooth_field(
    shape: Sequence[int], planar: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a smooth random field of standard deviation about 1, alike along coarse axes."""
    nodes = [round(1 / SMOOTHNESS) + 3 if axis in planar else 1 for axis in range(3)]
    field = rng.standard_normal(nodes).astype(np.float32)
    for axis in planar:
        # Nodes from one step before the patch to one step behind it: B-spline coefficients.
        places = np.linspace(1, nodes[axis] - 2, shape[axis])
        weights = np.stack([_cubic(places - node) for node in range(nodes[axis])], -1).astype(
            np.float32
        )
        field = np.moveaxis(np.tensordot(weights, field, (1, axis)), 0, axis)
    # A sum of B-splines with weights of variance 1 has this variance, averaged over places.
    return np.broadcast_to(field, tuple(shape)) / np.float32(0.4794 ** (len(planar) / 2))


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    far = np.abs(distance)
    near = 2 / 3 - far**2 + far**3 / 2
    return np.where(far < 1, near, np.clip(2 - far, 0, None) ** 3 / 6)
