"""From a checkpoint, whatever its kind, to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from segfocal.card_files import read_encoder_facts
from segfocal.errors import ModelError
from segfocal.models import FocalNet, FocalUNet
from segfocal.weights.adaptation import adapt
from segfocal.weights.architecture import Architecture, derive_architecture
from segfocal.weights.assumptions import (
    normalization_of,
    normalizes_modulator,
    require_known_settings,
    uses_postln,
)
from segfocal.weights.checkpoint import is_keras_file, read_checkpoint
from segfocal.weights.encoder_weights import (
    EncoderWeights,
    arrays_of_checkpoint,
    assign,
    weights_of_model,
)
from segfocal.weights.hub import PUBLISHED, fetch
from segfocal.weights.inflation import Inflation
from segfocal.weights.normalization import Normalization
from segfocal.weights.sources import rename

__all__ = ["from_pretrained", "load_encoder", "read_encoder"]


def read_encoder(
    name_or_path: str | Path,
    *,
    cache: str | Path | None = None,
    normalize_modulator: bool | None = None,
    use_postln: bool | None = None,
) -> EncoderWeights:
    """Read the weights of an encoder or classifier.

    Args:
        name_or_path: A checkpoint of timm, Hugging Face or the original authors, a ``.keras``
            file of segfocal (encoder or U-Net), or a published name such as
            ``focalnet_tiny_srf``.
        cache: Folder of downloads, see :func:`~segfocal.weights.fetch`.
        normalize_modulator: Whether the network divides its gated sum by the number of gates,
            which weights do not show. Left out: as ``config.json`` says, else not.
        use_postln: Whether its blocks are post-norm, which only timm's names show. Left out: as
            ``config.json`` says, else when it has layer scales, as all published ones do.

    Raises:
        ModelError: It cannot be read, or is no FocalNet.
    """
    path = Path(name_or_path)
    if not path.exists():
        name = str(name_or_path)
        if name not in PUBLISHED:
            raise ModelError(
                f"{name}: no such file and no published encoder; expected a checkpoint or one of "
                f"{', '.join(PUBLISHED)}"
            )
        path = fetch(name, cache)
    if path.is_file() and is_keras_file(path):
        weights = _read_keras(path)
        for option, said in (
            ("normalize_modulator", normalize_modulator),
            ("use_postln", use_postln),
        ):
            if said is not None and said != getattr(weights.architecture, option):
                raise ModelError(f"{path}: {option} is {not said} there; expected {said}")
        return weights
    checkpoint = read_checkpoint(path)
    naming, tensors = rename(checkpoint.tensors, path)
    notes: list[str] = []
    postln = uses_postln(checkpoint, naming, tensors, use_postln, notes)
    normalize = normalizes_modulator(checkpoint, normalize_modulator, notes)
    require_known_settings(checkpoint)
    architecture = derive_architecture(
        tensors, path, use_postln=postln, normalize_modulator=normalize
    )
    if architecture.preset == "large_fl4" and any("modulator" in note for note in notes):
        notes.append(
            "large_fl4 is normalised in its authors' configuration and not in timm; nobody has "
            "shown which is right: compare both on your data"
        )
    arrays = arrays_of_checkpoint(architecture, tensors, path)
    return EncoderWeights(
        architecture, arrays, naming.kind, normalization_of(checkpoint, architecture), tuple(notes)
    )


def from_pretrained(
    name_or_path: str | Path,
    in_channels: int | None = None,
    channels: Sequence[str] | None = None,
    ndim: int = 2,
    focal_window: int | Sequence[int] | None = None,
    num_classes: int | None = None,
    *,
    inflation: Inflation = "centre",
    cache: str | Path | None = None,
    normalize_modulator: bool | None = None,
    use_postln: bool | None = None,
) -> FocalNet:
    """Return a FocalNet with trained weights, adapted to what it is wanted for.

    Args:
        name_or_path, cache, normalize_modulator, use_postln: See
            :func:`~segfocal.weights.read_encoder`.
        in_channels: Channels of the image. Left out: as many as ``channels``, or the source's.
        channels: Names of the channels, see :func:`~segfocal.weights.adapt_channels`.
        ndim: 3 makes a network for volumes, see :func:`~segfocal.weights.inflate`.
        focal_window: See :func:`~segfocal.weights.widen_focal_windows`.
        num_classes: Keep the classifier, which must have this many classes. Left out: the
            encoder alone.
        inflation: How kernels are extended along planes.

    Raises:
        ModelError: It cannot be read, is no FocalNet, or cannot be adapted.
    """
    weights = read_encoder(
        name_or_path, cache=cache, normalize_modulator=normalize_modulator, use_postln=use_postln
    )
    return build(
        weights,
        in_channels=in_channels,
        channels=channels,
        ndim=ndim,
        focal_window=focal_window,
        num_classes=num_classes,
        inflation=inflation,
    )


def build(
    weights: EncoderWeights,
    *,
    in_channels: int | None,
    channels: Sequence[str] | None,
    ndim: int,
    focal_window: int | Sequence[int] | None,
    num_classes: int | None,
    inflation: Inflation,
) -> FocalNet:
    """Return a model for weights, see :func:`from_pretrained`."""
    source = weights.architecture
    if in_channels is None:
        in_channels = source.in_channels if channels is None else len(channels)
    if focal_window is None:
        window = source.focal_window
    else:
        window = focal_window if isinstance(focal_window, int) else tuple(focal_window)
    target = dataclasses.replace(
        source, in_channels=in_channels, ndim=ndim, focal_window=window, num_classes=num_classes
    )
    adapted = adapt(weights, target, channels=channels, inflation=inflation)
    model = target.build(source.preset)
    assign(model, adapted)
    return model


def load_encoder(
    model: FocalUNet | FocalNet,
    name_or_path: str | Path,
    channels: Sequence[str] | None = None,
    *,
    inflation: Inflation = "centre",
    cache: str | Path | None = None,
    normalize_modulator: bool | None = None,
    use_postln: bool | None = None,
) -> EncoderWeights:
    """Copy trained weights into the encoder of a model, adapted to its channels and windows.

    The model standardises scans with numbers of their own channels; they take the place of
    those the weights were trained with.

    Args:
        model: The model whose encoder is to be set; its decoder stays as it is.
        name_or_path, cache, normalize_modulator, use_postln: See
            :func:`~segfocal.weights.read_encoder`.
        channels: Names of the channels, see :func:`~segfocal.weights.adapt_channels`. Left out:
            as the model's card says.
        inflation: How kernels are extended along planes when the model is for volumes.

    Returns:
        The weights as they were read.

    Raises:
        ModelError: They cannot be read, or are those of another network; the model is as before.
    """
    weights = read_encoder(
        name_or_path, cache=cache, normalize_modulator=normalize_modulator, use_postln=use_postln
    )
    encoder = model
    if isinstance(model, FocalUNet):
        encoder = model.encoder
        if channels is None:
            channels = [channel.name for channel in model.card.network_channels]
    if not isinstance(encoder, FocalNet):
        raise ModelError(f"the model's encoder is a {type(encoder).__name__}; expected a FocalNet")
    target = Architecture.of_model(encoder)
    assign(encoder, adapt(weights, target, channels=channels, inflation=inflation))
    return weights


def _read_keras(path: Path) -> EncoderWeights:
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds, for damage as well as for versions
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: Keras cannot load this model: {first}") from error
    if isinstance(model, FocalUNet):
        model = model.encoder
    if not isinstance(model, FocalNet):
        raise ModelError(f"{path}: holds a {type(model).__name__}; expected a FocalNet")
    numbers = (read_encoder_facts(path) or {}).get("normalization")
    return dataclasses.replace(
        weights_of_model(model),
        normalization=None if numbers is None else Normalization.from_json(numbers),
    )
