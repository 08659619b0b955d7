"""FocalNet: the encoder, and with a head a classifier (Yang et al., NeurIPS 2022).

Deviations from the published network: any image size (padded at the end, see
:class:`~segfocal.layers.PatchEmbedding`), any number of channels, volumes, a second input
``valid``, other global contexts; features are taken before each downsampling, so that P2 has
stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from segfocal.layers.focal_modulation import (
    LAYER_NORM_EPSILON,
    Context,
    GateActivation,
    GlobalContext,
)
from segfocal.models.encoding import block_channels, encode
from segfocal.models.inputs import with_valid
from segfocal.presets import PRESETS

__all__ = ["FocalNet"]


@keras.saving.register_keras_serializable(package="segfocal")
class FocalNet(keras.Model):
    """FocalNet encoder for images or volumes of any size.

    Inputs: a dict of ``image`` ``(batch, *space, channels)``, already standardised, and
    ``valid`` ``(batch, *space)`` boolean; or the image alone (everything valid). With
    ``global_context="frozen"`` also ``context`` ``(batch, context_size)``: the means of a scan,
    see :func:`segfocal.calibrate`.

    Outputs: without ``num_classes`` a dict of feature arrays ``P2`` to ``P5``, where ``Pn`` is
    ``2**n`` times smaller than the image and has ``embed_dim * 2**(n-2)`` channels (with
    ``patch_size=2`` ``P1`` to ``P4``, of ``embed_dim * 2**(n-1)``); with ``num_classes`` the logits
    ``(batch, num_classes)``.

    Args:
        in_channels: Channels of the image.
        preset: Name in :data:`~segfocal.presets.PRESETS`; the arguments below
            override it.
        ndim: 2 or 3 spatial axes.
        num_classes: Adds normalisation, global mean over valid positions and a linear head.
        embed_dim, depths, focal_levels, focal_window, patch_size, drop_path, conv_stem, use_postln,
        layerscale, use_postln_in_modulation, normalize_modulator: See
            :class:`~segfocal.presets.Preset`; left out, as the preset has it. ``focal_window``
            may be one per axis; ``layerscale=0`` means none.
        mlp_ratio, gate_activation, context, global_context: See
            :class:`~segfocal.layers.FocalBlock`.
        local_context: Sides in pixels of the box that ``global_context="local"`` averages: the
            size of the training patches.

    Raises:
        ValueError: Unknown preset, or options that do not go together.
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
        patch_size: int | None = None,
        drop_path: float | None = None,
        conv_stem: bool | None = None,
        mlp_ratio: float = 4.0,
        gate_activation: GateActivation = None,
        context: Context = "chained",
        global_context: GlobalContext = "tile",
        local_context: int | Sequence[int] | None = None,
        normalize_modulator: bool | None = None,
        use_postln_in_modulation: bool | None = None,
        use_postln: bool | None = None,
        layerscale: float | None = None,
        name: str = "focalnet",
        dtype: Any = None,
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is unknown; expected one of {', '.join(PRESETS)}")
        if ndim not in (2, 3):
            raise ValueError(f"ndim={ndim}; expected 2 or 3")
        if isinstance(local_context, int):
            local_context = (local_context,) * ndim
        if (global_context == "local") != (local_context is not None) or (
            local_context is not None and (len(local_context) != ndim or min(local_context) < 1)
        ):
            raise ValueError(
                f"local_context={local_context} with global_context={global_context!r}; expected "
                f"the {ndim} sides of a box in pixels with 'local' and None otherwise"
            )
        sizes = PRESETS[preset]

        def chosen(name: str, given: Any) -> Any:
            return getattr(sizes, name) if given is None else given

        if chosen("patch_size", patch_size) not in (2, 4):
            raise ValueError(f"patch_size={patch_size}; expected 2 or 4")
        focal_window = chosen("focal_window", focal_window)
        config: dict[str, Any] = {
            "in_channels": in_channels,
            "preset": preset,
            "ndim": ndim,
            "num_classes": num_classes,
            "embed_dim": chosen("embed_dim", embed_dim),
            "depths": list(chosen("depths", depths)),
            "focal_levels": chosen("focal_levels", focal_levels),
            # Lists, as JSON has them.
            "focal_window": focal_window if isinstance(focal_window, int) else [*focal_window],
            "patch_size": chosen("patch_size", patch_size),
            "drop_path": chosen("drop_path", drop_path),
            "conv_stem": chosen("conv_stem", conv_stem),
            "mlp_ratio": mlp_ratio,
            "gate_activation": gate_activation,
            "context": context,
            "global_context": global_context,
            "local_context": None if local_context is None else [*local_context],
            "normalize_modulator": chosen("normalize_modulator", normalize_modulator),
            "use_postln_in_modulation": chosen(
                "use_postln_in_modulation", use_postln_in_modulation
            ),
            "use_postln": chosen("use_postln", use_postln),
            "layerscale": chosen("layerscale", layerscale),
        }

        inputs = {
            "image": keras.Input((None,) * ndim + (in_channels,), name="image"),
            "valid": keras.Input((None,) * ndim, dtype="bool", name="valid"),
        }
        context_size = sum(block_channels(config))
        if global_context == "frozen":
            inputs["context"] = keras.Input((context_size,), name="context")
        encoded = encode(
            config,
            inputs["image"],
            inputs["valid"],
            dtype=dtype,
            context=inputs.get("context"),
        )
        result: Any = encoded.features
        if num_classes is not None:
            x = keras.layers.LayerNormalization(
                epsilon=LAYER_NORM_EPSILON, dtype=dtype, name="norm"
            )(encoded.features[max(encoded.features)])
            space = tuple(range(1, ndim + 1))
            weight = ops.cast(encoded.valid, x.dtype)
            count = ops.maximum(ops.sum(weight, axis=space), 1.0)
            pooled = ops.sum(x * weight, axis=space) / count
            result = keras.layers.Dense(num_classes, dtype="float32", name="head")(pooled)

        super().__init__(inputs, result, name=name)
        self._config = config
        self.embed_dim: int = config["embed_dim"]
        self.ndim = ndim
        self.patch_size: int = config["patch_size"]
        self.output_stride = self.patch_size * 2 ** (len(config["depths"]) - 1)
        self.global_context: GlobalContext = global_context
        self.context_size = context_size

    @property
    def input_spec(self) -> None:
        """None: the input may be a dict or the image alone."""
        return None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(
            with_valid(inputs, self.global_context == "frozen"), training=training, mask=mask
        )

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FocalNet:
        return cls(**config)
