"""FocalUNet: a FocalNet encoder inside a light U-Net decoder.

::

    image ─ standardise ─┬─ P0 3×3 ──────────────────────────────── + ─ 3×3 ─ logits
                         ├─ P1 3×3 /2 ────────────────────── + ─ 3×3 ┘
                         └─ FocalNet ─ P2 ──────────── + ─ 3×3 ┘
                                       P3 ─────── + ─ 3×3 ┘
                                       P4 ── + ─ 3×3 ┘
                                       P5 ───┘

An encoder with patches of 2 gives P1 to P4, and P0 alone is made from the image. See
:mod:`segfocal.models.decoder` for the way up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from segfocal.card import Card
from segfocal.layers import CropLike, PadToMultiple, Standardize, exact_gelu
from segfocal.layers.focal_modulation import GlobalContext
from segfocal.models.backbones import connect, resolve_encoder
from segfocal.models.decoder import Upsampling, decode
from segfocal.models.focalnet import FocalNet
from segfocal.models.inputs import with_valid
from segfocal.presets import level_widths

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
    Standardisation with the card's numbers happens inside. With frozen context also
    ``context`` ``(batch, context_size)``, see :func:`segfocal.calibrate`.

    Output: logits ``(batch, *space, num_classes)``, float32, on the grid of the input: for
    softmax over exclusive classes, or with ``task="regions"`` for a sigmoid each.

    Args:
        num_classes: Number of classes, background included; or of regions. Left out: as the
            card says.
        in_channels: Number of input channels. Left out: as the card says.
        preset: Size of the encoder, see :data:`~segfocal.presets.PRESETS`.
        ndim: 2 for images, 3 for volumes. Left out: as the card says, else 2.
        card: What the model is for (:class:`~segfocal.card.Card` or its JSON); left out, a
            generic card is made.
        encoder: Options passed to :class:`~segfocal.models.FocalNet`, such as
            ``{"focal_levels": 3, "global_context": "none"}``; or any Keras model that returns a
            dict of features ``P2`` to ``P5``, 4 to 32 times smaller than its image.
        task: ``"classes"`` or overlapping ``"regions"``. Left out: as the card says.
        upsampling: ``"nearest"``, ``"linear"``, or ``"transposed"`` convolution in the decoder.
        dropout: Rate of dropping channels before the logits while training.

    Raises:
        ValueError: Numbers of classes, channels or axes contradict the card, or are missing;
            the encoder does not give the features.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        in_channels: int | None = None,
        preset: str = "tiny_srf",
        ndim: int | None = None,
        card: Card | Mapping[str, Any] | None = None,
        encoder: Mapping[str, Any] | keras.Model | None = None,
        task: str | None = None,
        upsampling: Upsampling = "nearest",
        dropout: float = 0.0,
        name: str = "focal_unet",
        dtype: Any = None,
    ) -> None:
        if card is None:
            if num_classes is None or in_channels is None:
                raise ValueError("FocalUNet needs num_classes and in_channels, or a card")
            card = Card.generic(
                ndim=ndim or 2,
                in_channels=in_channels,
                num_classes=num_classes,
                task=task or "classes",  # type: ignore[arg-type]
            )
        elif not isinstance(card, Card):
            card = Card.from_json(dict(card))
        for what, given, known in (
            ("num_classes", num_classes, card.num_classes),
            ("in_channels", in_channels, len(card.network_channels)),
            ("ndim", ndim, card.ndim),
            ("task", task, card.task),
        ):
            if given is not None and given != known:
                raise ValueError(f"{what}={given} contradicts the card, which says {known}")
        if upsampling not in ("nearest", "linear", "transposed"):
            raise ValueError(
                f"upsampling={upsampling!r}; expected 'nearest', 'linear' or 'transposed'"
            )
        ndim, channels = card.ndim, len(card.network_channels)
        backbone = resolve_encoder(encoder, channels, preset, ndim, dtype)
        stride = int(getattr(backbone, "output_stride", 32))

        inputs = {
            "image": keras.Input((None,) * ndim + (channels,), name="image"),
            "valid": keras.Input((None,) * ndim, dtype="bool", name="valid"),
        }
        if _global_context(backbone) == "frozen":
            inputs["context"] = keras.Input((backbone.context_size,), name="context")
        # Padding comes before standardisation, which stands between it and the first
        # convolution: TensorFlow's graph optimizer on CPU fuses a padding that feeds a 3-D
        # convolution with "same" padding into it and loses the latter.
        pad = PadToMultiple((stride,) * ndim, dtype="float32", name="pad")
        usable = pad(ops.cast(ops.expand_dims(inputs["valid"], -1), "float32")) > 0.5
        x = Standardize(
            tuple(channel.mean for channel in card.network_channels),
            tuple(channel.std for channel in card.network_channels),
            dtype=dtype,
            name="standardize",
        )(pad(inputs["image"]), usable)
        features = connect(backbone, {**inputs, "image": x, "valid": ops.squeeze(usable, -1)})
        x = decode(x, features, upsampling=upsampling, dropout=dropout, dtype=dtype)
        logits = keras.layers.Dense(card.num_classes, dtype="float32", name="logits")(x)
        logits = CropLike(dtype="float32", name="crop")(logits, inputs["image"])

        super().__init__(inputs, logits, name=name)
        self.card = card
        self.preset = preset
        self.output_stride = stride
        self.upsampling = upsampling
        self.dropout = dropout
        self._encoder_name = backbone.name
        self._encoder_options = None if isinstance(encoder, keras.Model) else dict(encoder or {})

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
        inputs = with_valid(inputs, self.global_context == "frozen")
        return super().call(inputs, training=training, mask=mask)

    @property
    def encoder(self) -> Any:
        """The encoder: a :class:`~segfocal.models.FocalNet` or the model that was passed."""
        return self.get_layer(self._encoder_name)

    @property
    def global_context(self) -> GlobalContext | None:
        """What the encoder's last level averages; None for an encoder of another kind."""
        return _global_context(self.encoder)

    def with_global_context(
        self, mode: GlobalContext, local_context: int | Sequence[int] | None = None
    ) -> FocalUNet:
        """Return a model of the same weights whose last focal level averages something else.

        Args:
            mode: ``"tile"``, ``"local"``, ``"frozen"`` or ``"none"``.
            local_context: Sides of the box of ``"local"`` in pixels. Left out: the patch that
                the card says the model was trained on.

        Raises:
            ValueError: The encoder is not a FocalNet, has no gate for a global level (it was
                made with ``"none"``), or the box is not known.
        """
        now = self.global_context
        if mode == now and local_context is None:
            return self
        if now is None or self._encoder_options is None:
            raise ValueError("the encoder is no FocalNet; its context cannot be changed")
        if now == "none":
            raise ValueError('a model made with global_context="none" has no gate for a mean')
        if mode == "local" and local_context is None:
            local_context = self.card.patch or self.card.tile
            if local_context is None:
                raise ValueError("the card knows no training patch; pass local_context in pixels")
        twin = FocalUNet.from_config(
            {
                **self.get_config(),
                "dtype": self.get_layer("standardize").dtype_policy,
                "encoder": {
                    **self._encoder_options,
                    "global_context": mode,
                    "local_context": local_context if mode == "local" else None,
                },
            }
        )
        for mine, other in zip(self.weights, twin.weights, strict=True):
            # Without a global level the last gate is gone.
            other.assign(mine[..., : other.shape[-1]] if mine.shape != other.shape else mine)
        return twin

    def supervised(self, levels: int) -> keras.Model:
        """Return a model of the same layers with additional heads, for training.

        Args:
            levels: Number of heads besides the logits: at half resolution, at a quarter, and so
                on, at most 4; 3 where the encoder begins at half resolution.

        Returns:
            A model with a dict of outputs ``logits``, ``logits_p1``, ``logits_p2``, ...; see
            :class:`segfocal.losses.AtScale` for a loss of the smaller ones. The heads are not
            part of this model: they are left behind when it is saved.
        """
        # The coarsest of four features is the stride of the whole.
        names = [*level_widths(1, self.output_stride.bit_length() - 4)]
        if not 1 <= levels <= len(names) - 1:
            raise ValueError(f"levels={levels}; expected 1 to {len(names) - 1}")
        outputs = {"logits": self.output}
        for level in reversed(names[-1 - levels : -1]):
            x = exact_gelu(self.get_layer(f"decoder_{level}_norm").output)
            head = keras.layers.Dense(
                self.card.num_classes, dtype="float32", name=f"logits_{level}"
            )
            outputs[f"logits_{level}"] = head(x)
        return keras.Model(self.input, outputs, name=f"{self.name}_supervised")

    def get_config(self) -> dict[str, Any]:
        options = self._encoder_options
        return {
            "preset": self.preset,
            "card": self.card.model_dump(mode="json"),
            "encoder": keras.saving.serialize_keras_object(self.encoder)
            if options is None
            else options,
            "upsampling": self.upsampling,
            "dropout": self.dropout,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FocalUNet:
        encoder = config.get("encoder")
        if isinstance(encoder, Mapping) and "class_name" in encoder:
            config = {**config, "encoder": keras.saving.deserialize_keras_object(encoder)}
        return cls(**config)


def _global_context(backbone: keras.Model) -> GlobalContext | None:
    return backbone.global_context if isinstance(backbone, FocalNet) else None
