"""All adaptations of weights to a network, in their order, and what none of them can mend."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from segfocal.errors import ModelError
from segfocal.weights.architecture import Architecture
from segfocal.weights.channels import adapt_channels
from segfocal.weights.encoder_weights import EncoderWeights
from segfocal.weights.inflation import Inflation, inflate
from segfocal.weights.windows import refit_modulation

__all__ = ["adapt"]

_SAME = (
    "embed_dim",
    "depths",
    "mlp_ratio",
    "patch_size",
    "conv_stem",
    "use_postln",
    "use_postln_in_modulation",
    "gate_activation",
    "context",
)


def adapt(
    weights: EncoderWeights,
    target: Architecture,
    *,
    channels: Sequence[str] | None = None,
    inflation: Inflation = "centre",
) -> EncoderWeights:
    """Return weights for a network that differs in channels, axes, windows or global context.

    A classifier's head is dropped for an encoder.

    Args:
        weights: Weights of an encoder or classifier.
        target: The network they are for.
        channels: Names of its channels, see :func:`~segfocal.weights.adapt_channels`.
        inflation: See :func:`~segfocal.weights.inflate`.

    Raises:
        ModelError: The network differs in more than that.
    """
    source = weights.architecture
    wrong = [name for name in _SAME if getattr(source, name) != getattr(target, name)]
    if bool(source.layerscale) != bool(target.layerscale):
        wrong.append("layerscale")
    if wrong:
        found, expected = (
            ", ".join(f"{name} {getattr(each, name)}" for name in wrong)
            for each in (source, target)
        )
        known = f" ({source.preset})" if source.preset else ""
        raise ModelError(
            f"the weights{known} have {found}, the model {expected}; expected the same: make the "
            "model with the preset and options of the weights"
        )
    if target.num_classes is not None and target.num_classes != source.num_classes:
        held = "no classifier" if source.num_classes is None else f"{source.num_classes} classes"
        raise ModelError(
            f"the weights have {held}; expected a classifier of {target.num_classes} classes: "
            "leave num_classes out to get the encoder, and train a head of your own"
        )
    if target.num_classes is None and source.num_classes is not None:
        weights = dataclasses.replace(
            weights,
            architecture=dataclasses.replace(source, num_classes=None),
            arrays={
                name: array
                for name, array in weights.arrays.items()
                if not name.startswith(("norm.", "head."))
            },
        )
    weights = adapt_channels(weights, target.in_channels, channels)
    if target.ndim > source.ndim:
        weights = inflate(weights, inflation, plane_window=target.kernels[0][0])
    elif target.ndim < source.ndim:
        raise ModelError("the weights are for volumes, the model for images; expected the same")
    return refit_modulation(weights, target)
