"""FocalNet: the encoder, and with a head a classifier (Yang et al., NeurIPS 2022).

Deviations from the published network: any image size (padded at the end, see
:class:`~segfocal.layers.PatchEmbedding`), any number of channels, volumes, a second input
``valid``; features are taken before each downsampling, so that P2 has stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from segfocal.layers import FocalBlock, PadToMultiple, PatchEmbedding
from segfocal.layers.focal_modulation import (
    LAYER_NORM_EPSILON,
    Context,
    GateActivation,
    GlobalContext,
)
from segfocal.models.inputs import with_valid
from segfocal.presets import PRESETS

__all__ = ["FocalNet"]


@keras.saving.register_keras_serializable(package="segfocal")
class FocalNet(keras.Model):
    """FocalNet encoder for images or volumes of any size.

    Inputs: a dict of ``image`` ``(batch, *space, channels)``, already standardised, and
    ``valid`` ``(batch, *space)`` boolean; or the image alone (everything valid).

    Outputs: without ``num_classes`` a dict of feature arrays ``P2`` to ``P5``, where ``Pn`` is
    ``2**n`` times smaller than the image and has ``embed_dim * 2**(n-2)`` channels; with
    ``num_classes`` the logits ``(batch, num_classes)``.

    Args:
        in_channels: Channels of the image.
        preset: Name in :data:`~segfocal.presets.PRESETS`; the arguments below
            override it.
        ndim: 2 or 3 spatial axes.
        num_classes: Adds normalisation, global mean over valid positions and a linear head.
        embed_dim, depths, focal_levels, focal_window, drop_path: See
            :class:`~segfocal.presets.Preset`; ``focal_window`` may be one per axis.
        mlp_ratio, gate_activation, context, global_context, normalize_modulator,
        use_postln_in_modulation, use_postln, layerscale: See
            :class:`~segfocal.layers.FocalBlock`.

    Raises:
        ValueError: Unknown preset.
    """

    def __init__(
        self,
        in_channels: int = 3,
        preset: str = "tiny_srf",
        ndim: int = 2,
        num_classes: int | None = None,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        focal_levels: int | None = None,
        focal_window: int | Sequence[int] | None = None,
        drop_path: float | None = None,
        mlp_ratio: float = 4.0,
        gate_activation: GateActivation = None,
        context: Context = "chained",
        global_context: GlobalContext = "tile",
        normalize_modulator: bool = False,
        use_postln_in_modulation: bool = False,
        use_postln: bool = False,
        layerscale: float | None = None,
        name: str = "focalnet",
        dtype: Any = None,
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}")
        if ndim not in (2, 3):
            raise ValueError(f"ndim={ndim}; expected 2 or 3")
        sizes = PRESETS[preset]
        embed_dim = sizes.embed_dim if embed_dim is None else embed_dim
        depths = tuple(sizes.depths if depths is None else depths)
        focal_levels = sizes.focal_levels if focal_levels is None else focal_levels
        focal_window = sizes.focal_window if focal_window is None else focal_window
        if not isinstance(focal_window, int):
            focal_window = [int(side) for side in focal_window]  # as JSON has it
        drop_path = sizes.drop_path if drop_path is None else drop_path
        options: dict[str, Any] = {
            "focal_levels": focal_levels,
            "focal_window": focal_window,
            "mlp_ratio": mlp_ratio,
            "gate_activation": gate_activation,
            "context": context,
            "global_context": global_context,
            "normalize_modulator": normalize_modulator,
            "use_postln_in_modulation": use_postln_in_modulation,
            "use_postln": use_postln,
            "layerscale": layerscale,
        }

        image = keras.Input((None,) * ndim + (in_channels,), name="image")
        valid = keras.Input((None,) * ndim, dtype="bool", name="valid")
        mask = ops.cast(ops.expand_dims(valid, -1), "float32")
        # What stands at invalid pixels must not reach valid ones through the convolutions.
        x = ops.where(ops.expand_dims(valid, -1), image, 0.0)
        rates = np.linspace(0.0, drop_path, sum(depths)).tolist()
        outputs: dict[str, KerasTensor] = {}
        for stage, depth in enumerate(depths):
            patch = (4 if stage == 0 else 2,) * ndim
            # The published downsampling ends a stage; as the start of the next one it is
            # the same computation, and the feature before it has a name.
            x = PatchEmbedding(
                embed_dim * 2**stage, patch, dtype=dtype, name=f"stage{stage + 1}_embed"
            )(x)
            mask = _shrink(mask, patch, name=f"stage{stage + 1}_valid")
            for block in range(depth):
                x = FocalBlock(
                    **options,
                    ndim=ndim,
                    drop_path=rates[sum(depths[:stage]) + block],
                    dtype=dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, valid=mask)
            outputs[f"P{stage + 2}"] = x
        result: Any = outputs
        if num_classes is not None:
            x = keras.layers.LayerNormalization(
                epsilon=LAYER_NORM_EPSILON, dtype=dtype, name="norm"
            )(x)
            space = tuple(range(1, ndim + 1))
            weight = ops.cast(mask, x.dtype)
            count = ops.maximum(ops.sum(weight, axis=space), 1.0)
            pooled = ops.sum(x * weight, axis=space) / count
            result = keras.layers.Dense(num_classes, dtype="float32", name="head")(pooled)

        super().__init__({"image": image, "valid": valid}, result, name=name)
        self._config = {
            "in_channels": in_channels,
            "preset": preset,
            "ndim": ndim,
            "num_classes": num_classes,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "drop_path": drop_path,
            **options,
        }
        self.embed_dim = embed_dim
        self.ndim = ndim
        self.output_stride = 2 ** (len(depths) + 1)

    @property
    def input_spec(self) -> None:
        """None: the input may be a dict or the image alone."""
        return None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(with_valid(inputs), training=training, mask=mask)

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FocalNet:
        return cls(**config)


def _shrink(mask: KerasTensor, patch: tuple[int, ...], name: str) -> KerasTensor:
    """Return which patches hold at least one valid pixel."""
    pool = keras.layers.MaxPooling3D if len(patch) == 3 else keras.layers.MaxPooling2D
    padded = PadToMultiple(patch, dtype="float32", name=f"{name}_pad")(mask)
    return pool(patch, data_format="channels_last", dtype="float32", name=name)(padded)
