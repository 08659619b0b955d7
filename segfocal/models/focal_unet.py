"""FocalUNet: a FocalNet encoder inside a light U-Net decoder.

::

    image ─ standardise ─┬─ P0 3×3 ──────────────────────────────── + ─ 3×3 ─ logits
                         ├─ P1 3×3 /2 ────────────────────── + ─ 3×3 ┘
                         └─ FocalNet ─ P2 ──────────── + ─ 3×3 ┘
                                       P3 ─────── + ─ 3×3 ┘
                                       P4 ── + ─ 3×3 ┘
                                       P5 ───┘

Going up, the deeper feature is projected to the width of the level, upsampled and added to
the projected skip; one 3×3 convolution follows. Normalisation is over channels only, so the
decoder is a local operator and adds nothing that depends on the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras
from keras import KerasTensor, ops

from segfocal.card import Card
from segfocal.layers import CropLike, Double, PadToMultiple, Standardize, exact_gelu
from segfocal.layers.focal_modulation import LAYER_NORM_EPSILON
from segfocal.models.focalnet import FocalNet
from segfocal.models.inputs import with_valid

__all__ = ["FocalUNet"]


class _Plan(Protocol):
    """The part of a training plan that a model is made from."""

    @property
    def card(self) -> Card: ...
    @property
    def preset(self) -> str: ...
    @property
    def seed(self) -> int: ...


@keras.saving.register_keras_serializable(package="segfocal")
class FocalUNet(keras.Model):
    """Segmentation network for images or volumes of any size and number of channels.

    Inputs: a dict of ``image`` ``(batch, *space, channels)`` in the scan's own units and
    ``valid`` ``(batch, *space)`` boolean; or the image alone (everything valid).
    Standardisation with the card's numbers happens inside.

    Output: logits ``(batch, *space, num_classes)``, float32, on the grid of the input.

    Args:
        num_classes: Number of classes, background included. Left out: as the card says.
        in_channels: Number of input channels. Left out: as the card says.
        preset: Size of the encoder, see :data:`~segfocal.presets.PRESETS`.
        ndim: 2 for images, 3 for volumes. Left out: as the card says, else 2.
        card: What the model is for (:class:`~segfocal.card.Card` or its JSON); left out, a
            generic card is made.
        encoder: Options passed to :class:`~segfocal.models.FocalNet`, such as
            ``{"focal_levels": 3, "global_context": "none"}``.

    Raises:
        ValueError: Numbers of classes, channels or axes contradict the card, or are missing.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        in_channels: int | None = None,
        preset: str = "tiny_srf",
        ndim: int | None = None,
        card: Card | Mapping[str, Any] | None = None,
        encoder: Mapping[str, Any] | None = None,
        name: str = "focal_unet",
        dtype: Any = None,
    ) -> None:
        if card is None:
            if num_classes is None or in_channels is None:
                raise ValueError("FocalUNet needs num_classes and in_channels, or a card")
            card = Card.generic(ndim=ndim or 2, in_channels=in_channels, num_classes=num_classes)
        elif not isinstance(card, Card):
            card = Card.from_json(dict(card))
        for what, given, known in (
            ("num_classes", num_classes, card.num_classes),
            ("in_channels", in_channels, len(card.channels)),
            ("ndim", ndim, card.ndim),
        ):
            if given is not None and given != known:
                raise ValueError(f"{what}={given} contradicts the card, which says {known}")
        ndim = card.ndim
        conv = keras.layers.Conv3D if ndim == 3 else keras.layers.Conv2D

        image = keras.Input((None,) * ndim + (len(card.channels),), name="image")
        valid = keras.Input((None,) * ndim, dtype="bool", name="valid")
        backbone = FocalNet(
            in_channels=len(card.channels),
            preset=preset,
            ndim=ndim,
            name="encoder",
            dtype=dtype,
            **(encoder or {}),
        )
        # Padding comes before standardisation, which stands between it and the first
        # convolution: TensorFlow's graph optimizer on CPU fuses a padding that feeds a 3-D
        # convolution with "same" padding into it and loses the latter.
        pad = PadToMultiple((backbone.output_stride,) * ndim, dtype="float32", name="pad")
        mask = pad(ops.cast(ops.expand_dims(valid, -1), "float32"))
        usable = mask > 0.5
        x = Standardize(
            tuple(channel.mean for channel in card.channels),
            tuple(channel.std for channel in card.channels),
            dtype=dtype,
            name="standardize",
        )(pad(image), usable)
        features = backbone({"image": x, "valid": ops.squeeze(usable, -1)})

        def conv_block(x: KerasTensor, width: int, name: str, stride: int = 1) -> KerasTensor:
            x = conv(
                width,
                3,
                strides=stride,
                padding="same",
                data_format="channels_last",
                dtype=dtype,
                name=name,
            )(x)
            if not name.endswith("p0"):
                # At full resolution normalisation costs more than the convolution.
                x = _norm(dtype, f"{name}_norm")(x)
            return exact_gelu(x)

        base = backbone.embed_dim
        widths = {
            "p0": max(8, base // 4),
            "p1": max(8, base // 2),
            "p2": base,
            "p3": base,
            "p4": 2 * base,
        }
        skips = {"p0": conv_block(x, widths["p0"], "stem_p0")}
        skips["p1"] = conv_block(skips["p0"], widths["p1"], "stem_p1", stride=2)
        for level in ("p2", "p3", "p4"):
            skips[level] = _norm(dtype, f"skip_{level}_norm")(features[level.upper()])
        x = _norm(dtype, "skip_p5_norm")(features["P5"])
        for level in ("p4", "p3", "p2", "p1", "p0"):
            width = widths[level]
            deep = keras.layers.Dense(width, dtype=dtype, name=f"up_{level}")(x)
            skip = keras.layers.Dense(width, dtype=dtype, name=f"skip_{level}")(skips[level])
            x = conv_block(
                Double(dtype=dtype, name=f"double_{level}")(deep) + skip, width, f"decoder_{level}"
            )
        logits = keras.layers.Dense(card.num_classes, dtype="float32", name="logits")(x)
        logits = CropLike(dtype="float32", name="crop")(logits, image)

        super().__init__({"image": image, "valid": valid}, logits, name=name)
        self.card = card
        self.preset = preset
        self.output_stride = backbone.output_stride
        self._encoder_options = dict(encoder or {})

    @classmethod
    def from_plan(cls, spec: object, plan: _Plan) -> FocalUNet:
        """Return the model that a plan asks for, with weights drawn from the plan's seed.

        Args:
            spec: The dataset spec the plan was made from.
            plan: The plan.
        """
        keras.utils.set_random_seed(plan.seed)
        return cls(card=plan.card, preset=plan.preset)

    @property
    def input_spec(self) -> None:
        """None: the input may be a dict or the image alone."""
        return None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(with_valid(inputs), training=training, mask=mask)

    @property
    def encoder(self) -> FocalNet:
        """The encoder."""
        return self.get_layer("encoder")

    def get_config(self) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "card": self.card.model_dump(mode="json"),
            "encoder": self._encoder_options,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FocalUNet:
        return cls(**config)


def _norm(dtype: Any, name: str) -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)
