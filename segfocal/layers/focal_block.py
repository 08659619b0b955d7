"""The focal block: focal modulation and an MLP, each with normalisation and a shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor

from segfocal.layers.activation import exact_gelu
from segfocal.layers.focal_modulation import (
    LAYER_NORM_EPSILON,
    Context,
    FocalModulation,
    GateActivation,
    GlobalContext,
)

__all__ = ["FocalBlock"]


@keras.saving.register_keras_serializable(package="segfocal")
class FocalBlock(keras.layers.Layer):
    """One residual block of a FocalNet.

    Pre-norm (default): ``x + s1 * Mod(LN(x))``, then ``x + s2 * MLP(LN(x))``.
    Post-norm: ``x + s1 * LN(Mod(x))``, then ``x + s2 * LN(MLP(x))``.
    ``s1`` and ``s2`` are 1, or trained per channel when ``layerscale`` is given.

    Args:
        focal_window, focal_levels, focal_factor, ndim, gate_activation, context,
        global_context, local_window, normalize_modulator, use_postln_in_modulation: See
            :class:`~segfocal.layers.focal_modulation.FocalModulation`.
        mlp_ratio: Hidden width of the MLP relative to the number of channels.
        use_postln: Post-norm instead of pre-norm.
        layerscale: Initial value of the trained scales; None for no scales.
        dropout: Rate after each layer of the MLP.
        drop_path: Probability of skipping a branch for a sample while training.

    Call arguments:
        inputs: Array ``(batch, *space, channels)``.
        valid, scan_mean, counted: Passed to the modulation; with ``counted`` the result is a
            pair, as there.
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
        mlp_ratio: float = 4.0,
        use_postln: bool = False,
        layerscale: float | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_ratio = mlp_ratio
        self.use_postln = use_postln
        self.layerscale = layerscale
        self.dropout = dropout
        self.drop_path = drop_path
        policy = self.dtype_policy
        self.modulation = FocalModulation(
            focal_window=focal_window,
            focal_levels=focal_levels,
            focal_factor=focal_factor,
            ndim=ndim,
            gate_activation=gate_activation,
            context=context,
            global_context=global_context,
            local_window=local_window,
            normalize_modulator=normalize_modulator,
            use_postln_in_modulation=use_postln_in_modulation,
            dtype=policy,
            name="modulation",
        )
        self.norm_1 = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=policy, name="norm_1"
        )
        self.norm_2 = keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=policy, name="norm_2"
        )
        self.dropout_1 = keras.layers.Dropout(dropout, dtype=policy)
        self.dropout_2 = keras.layers.Dropout(dropout, dtype=policy)
        # Dropping a whole sample's branch is stochastic depth.
        per_sample = (None, *(1,) * (ndim + 1))
        self.path_1 = keras.layers.Dropout(drop_path, noise_shape=per_sample, dtype=policy)
        self.path_2 = keras.layers.Dropout(drop_path, noise_shape=per_sample, dtype=policy)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channels: int = input_shape[-1]
        hidden = int(channels * self.mlp_ratio)
        narrow = keras.initializers.TruncatedNormal(stddev=0.02)
        self.expand = keras.layers.Dense(
            hidden, kernel_initializer=narrow, dtype=self.dtype_policy, name="expand"
        )
        self.reduce = keras.layers.Dense(
            channels, kernel_initializer=narrow, dtype=self.dtype_policy, name="reduce"
        )
        for layer in (self.modulation, self.norm_1, self.norm_2, self.expand):
            layer.build(input_shape)
        self.reduce.build((*input_shape[:-1], hidden))
        self.scale_1 = self.scale_2 = None
        if self.layerscale is not None:
            start = keras.initializers.Constant(self.layerscale)
            self.scale_1 = self.add_weight(name="scale_1", shape=(channels,), initializer=start)
            self.scale_2 = self.add_weight(name="scale_2", shape=(channels,), initializer=start)
        self.built = True

    def call(
        self,
        inputs: KerasTensor,
        valid: KerasTensor | None = None,
        scan_mean: KerasTensor | None = None,
        counted: KerasTensor | None = None,
        training: bool | None = None,
    ) -> Any:
        x = inputs
        branch = x if self.use_postln else self.norm_1(x)
        branch = self.modulation(branch, valid=valid, scan_mean=scan_mean, counted=counted)
        branch, total = (branch, None) if counted is None else branch
        branch = self.norm_1(branch) if self.use_postln else branch
        x = x + self.path_1(_scaled(branch, self.scale_1), training=training)

        branch = x if self.use_postln else self.norm_2(x)
        branch = self.dropout_1(exact_gelu(self.expand(branch)), training=training)
        branch = self.dropout_2(self.reduce(branch), training=training)
        branch = self.norm_2(branch) if self.use_postln else branch
        x = x + self.path_2(_scaled(branch, self.scale_2), training=training)
        return x if counted is None else (x, total)

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
        training: bool | None = None,
    ) -> Any:
        return self.modulation.compute_output_spec(inputs, counted=counted)

    def get_config(self) -> dict[str, Any]:
        modulation = self.modulation
        return {
            **super().get_config(),
            "focal_window": modulation.focal_window,
            "focal_levels": modulation.focal_levels,
            "focal_factor": modulation.focal_factor,
            "ndim": modulation.ndim,
            "gate_activation": modulation.gate_activation,
            "context": modulation.context,
            "global_context": modulation.global_context,
            "local_window": modulation.local_window,
            "normalize_modulator": modulation.normalize_modulator,
            "use_postln_in_modulation": modulation.use_postln_in_modulation,
            "mlp_ratio": self.mlp_ratio,
            "use_postln": self.use_postln,
            "layerscale": self.layerscale,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
        }


def _scaled(branch: KerasTensor, scale: KerasTensor | None) -> KerasTensor:
    return branch if scale is None else branch * scale
