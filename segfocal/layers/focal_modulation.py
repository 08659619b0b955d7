"""Focal modulation, after Yang, Li, Dai and Gao, "Focal Modulation Networks", NeurIPS 2022.

Deviations from the published code (microsoft/FocalNet, ``classification/focalnet.py``):

* Query, context and gates come from three projections; the published layer fuses them into
  one (``f``), which is split when a checkpoint is imported. The numbers are the same.
* The global mean runs over valid positions only.
* Works on ``(batch, *space, channels)`` with two or three spatial axes and any sizes.
* Options that the publication does not have: ``gate_activation="softmax"`` and
  ``context="parallel"``, as in tutorials; ``global_context="none"``; a kernel per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from segfocal.layers.activation import exact_gelu
from segfocal.layers.depthwise import depthwise_conv

__all__ = ["FocalModulation", "focal_kernels"]

LAYER_NORM_EPSILON = 1e-5
"""The published networks' epsilon (PyTorch's default); Keras's own default is 1e-3."""

GateActivation = Literal["softmax"] | None
Context = Literal["chained", "parallel"]
GlobalContext = Literal["tile", "none"]


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
        global_context: ``"tile"``: the last level averages all valid positions the layer
            sees, as published; ``"none"``: the last level is left out, and the layer is a
            local operator.
        normalize_modulator: Divide the gated sum by L + 1.
        use_postln_in_modulation: Normalise ``q * m`` before the last projection.

    Call arguments:
        inputs: Array ``(batch, *space, channels)``.
        valid: Optional array ``(batch, *space, 1)`` of ones and zeros; zeros do not enter the
            global mean. Left out: all ones.
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
        normalize_modulator: bool = False,
        use_postln_in_modulation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for what, value, choices in (
            ("ndim", ndim, (2, 3)),
            ("gate_activation", gate_activation, (None, "softmax")),
            ("context", context, ("chained", "parallel")),
            ("global_context", global_context, ("tile", "none")),
        ):
            if value not in choices:
                raise ValueError(f"{what}={value!r}; expected one of {choices}")
        if focal_levels < 1:
            raise ValueError(f"focal_levels={focal_levels}; expected at least 1")
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
        self.num_gates = focal_levels + (global_context == "tile")
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

    def call(self, inputs: KerasTensor, valid: KerasTensor | None = None) -> KerasTensor:
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
        if self.global_context == "tile":
            mean = exact_gelu(self._mean(context, valid))
            gathered = gathered + mean * gates[..., self.focal_levels :]
        if self.normalize_modulator:
            gathered = gathered / float(self.num_gates)

        modulated = query * self.modulator_projection(gathered)
        if self.post_norm is not None:
            modulated = self.post_norm(modulated)
        return self.output_projection(modulated)

    def _mean(self, context: KerasTensor, valid: KerasTensor | None) -> KerasTensor:
        space = tuple(range(1, self.ndim + 1))
        if valid is None:
            return ops.mean(context, axis=space, keepdims=True)
        # In float32: half precision can neither sum nor count the positions of a tile.
        weight = ops.cast(valid, "float32")
        total = ops.sum(ops.cast(context, "float32") * weight, axis=space, keepdims=True)
        count = ops.maximum(ops.sum(weight, axis=space, keepdims=True), 1.0)
        return ops.cast(total / count, self.compute_dtype)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], valid_shape: object = None
    ) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(
        self, inputs: KerasTensor, valid: KerasTensor | None = None
    ) -> KerasTensor:
        return KerasTensor(inputs.shape, dtype=self.compute_dtype)

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
            "normalize_modulator": self.normalize_modulator,
            "use_postln_in_modulation": self.use_postln_in_modulation,
        }
