"""Focal modulation, after Yang, Li, Dai and Gao, "Focal Modulation Networks", NeurIPS 2022.

Deviations from the published code (microsoft/FocalNet, ``classification/focalnet.py``):

* Query, context and gates come from three projections; the published layer fuses them into
  one (``f``), which is split when a checkpoint is imported. The numbers are the same.
* The global mean runs over valid positions only.
* Works on ``(batch, *space, channels)`` with two or three spatial axes and any sizes.
* Options that the publication does not have: ``gate_activation="softmax"`` and
  ``context="parallel"``, as in tutorials; a ``global_context`` other than ``"tile"``; a kernel
  per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from segfocal.layers.activation import exact_gelu
from segfocal.layers.depthwise import depthwise_conv
from segfocal.layers.local_mean import local_mean

__all__ = ["FocalModulation", "focal_kernels"]

LAYER_NORM_EPSILON = 1e-5
"""The published networks' epsilon (PyTorch's default); Keras's own default is 1e-3."""

GateActivation = Literal["softmax"] | None
Context = Literal["chained", "parallel"]
GlobalContext = Literal["tile", "local", "frozen", "none"]


def focal_kernels(
    focal_window: int | Sequence[int], focal_levels: int, focal_factor: int, ndim: int
) -> list[tuple[int, ...]]:
    """Return the kernel of each level: ``focal_window + focal_factor * level`` along each axis.

    An axis with window 1 stays at 1: no context is taken along it.
    """
    window = (focal_window,) * ndim if isinstance(focal_window, int) else tuple(focal_window)
    if len(window) != ndim or any(side < 1 or side % 2 == 0 for side in window):
        raise ValueError(f"focal_window {focal_window}; expected one odd number or {ndim} of them")
    return [
        tuple(1 if side == 1 else side + focal_factor * level for side in window)
        for level in range(focal_levels)
    ]


@keras.saving.register_keras_serializable(package="segfocal")
class FocalModulation(keras.layers.Layer):
    """Gathers context at several ranges, gates it per position, multiplies it onto the query.

    With ``q``, ``c_0`` and ``g`` linear projections of the input, ``DW_l`` a depthwise
    convolution and ``GELU`` exact::

        c_l = GELU(DW_l(c_{l-1}))           l = 1 .. L     (chained; parallel: DW_l(c_0))
        c_{L+1} = GELU(mean of c_L over valid positions)
        m = h(g_1 c_1 + ... + g_{L+1} c_{L+1})             the modulator
        y = proj(q * m)

    Args:
        focal_window: Kernel of the first level, one odd number or one per axis.
        focal_levels: Number of depthwise levels L.
        focal_factor: Growth of the kernel per level.
        ndim: 2 for ``(batch, rows, cols, channels)``, 3 for volumes.
        gate_activation: None as published (gates are linear), or ``"softmax"`` over levels.
        context: ``"chained"`` as published, or ``"parallel"``: every level looks at ``c_0``.
        global_context: What the last level averages. ``"tile"``: all valid positions that the
            layer sees, as published. ``"local"``: a box of ``local_window`` around each
            position, shifted inward at borders. ``"frozen"``: nothing; the mean is given in
            the call, and the layer is a local operator. ``"none"``: the last level is left
            out, and the layer is a local operator. The first three have the same weights.
        local_window: Sides of the box of ``"local"`` in positions, one number or one per axis.
        normalize_modulator: Divide the gated sum by the number of gates, L + 1 (L with
            ``global_context="none"``).
        use_postln_in_modulation: Normalise ``q * m`` before the last projection.

    Call arguments:
        inputs: Array ``(batch, *space, channels)``.
        valid: Optional array ``(batch, *space, 1)`` of ones and zeros; zeros do not enter the
            mean. Left out: all ones.
        scan_mean: With ``"frozen"``, the mean of ``c_L`` over the scan, ``(batch, channels)``;
            left out, the mean over the tile stands in for it.
        counted: Optional array ``(batch, *space, 1)`` of ones and zeros. When it is given, the
            call returns the sum of ``c_L`` over counted positions ``(batch, channels)`` as a
            second result: the means of a scan are measured with it.
    """

    def __init__(
        self,
        focal_window: int | Sequence[int] = 3,
        focal_levels: int = 2,
        focal_factor: int = 2,
        ndim: int = 2,
        gate_activation: GateActivation = None,
        context: Context = "chained",
        global_context: GlobalContext = "tile",
        local_window: int | Sequence[int] | None = None,
        normalize_modulator: bool = False,
        use_postln_in_modulation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for what, value, choices in (
            ("ndim", ndim, (2, 3)),
            ("gate_activation", gate_activation, (None, "softmax")),
            ("context", context, ("chained", "parallel")),
            ("global_context", global_context, ("tile", "local", "frozen", "none")),
        ):
            if value not in choices:
                raise ValueError(f"{what}={value!r}; expected one of {choices}")
        if focal_levels < 1:
            raise ValueError(f"focal_levels={focal_levels}; expected at least 1")
        self.local_window: tuple[int, ...] | None = None
        if local_window is not None:
            self.local_window = (
                (local_window,) * ndim
                if isinstance(local_window, int)
                else tuple(int(side) for side in local_window)
            )
        if (global_context == "local") != (self.local_window is not None) or (
            self.local_window is not None
            and (len(self.local_window) != ndim or min(self.local_window) < 1)
        ):
            raise ValueError(
                f"local_window={local_window} with global_context={global_context!r}; expected "
                f"{ndim} positive numbers with 'local' and None otherwise"
            )
        self.focal_window = (
            focal_window if isinstance(focal_window, int) else tuple(int(w) for w in focal_window)
        )
        self.focal_levels = focal_levels
        self.focal_factor = focal_factor
        self.ndim = ndim
        self.gate_activation = gate_activation
        self.context = context
        self.global_context = global_context
        self.normalize_modulator = normalize_modulator
        self.use_postln_in_modulation = use_postln_in_modulation
        self.kernels = focal_kernels(self.focal_window, focal_levels, focal_factor, ndim)
        self.num_gates = focal_levels + (global_context != "none")
        self.focal_layers = [
            depthwise_conv(kernel, self.dtype_policy, f"focal_{level}")
            for level, kernel in enumerate(self.kernels)
        ]

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channels: int = input_shape[-1]

        def projection(units: int, name: str) -> keras.layers.Dense:
            layer = keras.layers.Dense(
                units,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build(input_shape)
            return layer

        self.query_projection = projection(channels, "query")
        self.context_projection = projection(channels, "context")
        self.gate_projection = projection(self.num_gates, "gates")
        self.modulator_projection = projection(channels, "modulator")
        self.output_projection = projection(channels, "output")
        for layer in self.focal_layers:
            layer.build(input_shape)
        self.post_norm = None
        if self.use_postln_in_modulation:
            self.post_norm = keras.layers.LayerNormalization(
                epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name="post_norm"
            )
            self.post_norm.build(input_shape)
        self.built = True

    def call(
        self,
        inputs: KerasTensor,
        valid: KerasTensor | None = None,
        scan_mean: KerasTensor | None = None,
        counted: KerasTensor | None = None,
    ) -> Any:
        query = self.query_projection(inputs)
        start = self.context_projection(inputs)
        gates = self.gate_projection(inputs)
        if self.gate_activation == "softmax":
            gates = ops.softmax(gates, axis=-1)

        context = start
        gathered: KerasTensor | float = 0.0
        for level, focal in enumerate(self.focal_layers):
            context = exact_gelu(focal(context if self.context == "chained" else start))
            gathered = gathered + context * gates[..., level : level + 1]
        if self.global_context != "none":
            mean = exact_gelu(self._mean(context, valid, scan_mean))
            gathered = gathered + mean * gates[..., self.focal_levels :]
        if self.normalize_modulator:
            gathered = gathered / float(self.num_gates)

        modulated = query * self.modulator_projection(gathered)
        if self.post_norm is not None:
            modulated = self.post_norm(modulated)
        result = self.output_projection(modulated)
        if counted is None:
            return result
        return result, self._sum(context, counted)

    def _mean(
        self, context: KerasTensor, valid: KerasTensor | None, scan_mean: KerasTensor | None
    ) -> KerasTensor:
        """Return what the last level sees, broadcastable to ``(batch, *space, channels)``."""
        if scan_mean is not None:
            channels = context.shape[-1]
            mean = ops.reshape(scan_mean, (-1, *(1,) * self.ndim, channels))
            return ops.cast(mean, self.compute_dtype)
        if self.local_window is not None:
            weight = ops.ones_like(context[..., :1]) if valid is None else valid
            return ops.cast(local_mean(context, weight, self.local_window), self.compute_dtype)
        space = tuple(range(1, self.ndim + 1))
        if valid is None:
            return ops.mean(context, axis=space, keepdims=True)
        count = ops.sum(ops.cast(valid, "float32"), axis=space, keepdims=True)
        total = ops.reshape(self._sum(context, valid), (-1, *(1,) * self.ndim, context.shape[-1]))
        return ops.cast(total / ops.maximum(count, 1.0), self.compute_dtype)

    def _sum(self, context: KerasTensor, weight: KerasTensor) -> KerasTensor:
        # In float32: half precision can neither sum nor count the positions of a tile.
        weighted = ops.cast(context, "float32") * ops.cast(weight, "float32")
        return ops.sum(weighted, axis=tuple(range(1, self.ndim + 1)))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], *others: object, **more: object
    ) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(
        self,
        inputs: KerasTensor,
        valid: KerasTensor | None = None,
        scan_mean: KerasTensor | None = None,
        counted: KerasTensor | None = None,
    ) -> Any:
        result = KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if counted is None:
            return result
        return result, KerasTensor((inputs.shape[0], inputs.shape[-1]), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "focal_window": self.focal_window,
            "focal_levels": self.focal_levels,
            "focal_factor": self.focal_factor,
            "ndim": self.ndim,
            "gate_activation": self.gate_activation,
            "context": self.context,
            "global_context": self.global_context,
            "local_window": self.local_window,
            "normalize_modulator": self.normalize_modulator,
            "use_postln_in_modulation": self.use_postln_in_modulation,
        }
