"""What weights alone do not show: said by the caller, by files beside them, or assumed."""

from __future__ import annotations

from collections.abc import Mapping

from segfocal.errors import ModelError
from segfocal.weights.architecture import Architecture
from segfocal.weights.checkpoint import Checkpoint
from segfocal.weights.normalization import IMAGENET, Normalization
from segfocal.weights.sources import Naming, SourceTensor

__all__ = ["normalization_of", "normalizes_modulator", "require_known_settings", "uses_postln"]


def uses_postln(
    checkpoint: Checkpoint,
    naming: Naming,
    tensors: Mapping[str, SourceTensor],
    forced: bool | None,
    notes: list[str],
) -> bool:
    """Return whether blocks are post-norm; an assumption is added to ``notes``.

    Raises:
        ModelError: ``forced`` contradicts the names, which show it in timm's naming.
    """
    if naming.kind == "timm":
        found = any(tensor.key.endswith("norm1_post.weight") for tensor in tensors.values())
        if forced is not None and forced != found:
            raise ModelError(
                f"{checkpoint.path}: use_postln={forced}; expected {found}, as timm's names show"
            )
        return found
    if forced is not None:
        return forced
    if "use_post_layernorm" in checkpoint.config:
        return bool(checkpoint.config["use_post_layernorm"])
    found = "stage1_block1.scale_1" in tensors
    notes.append(
        f"the weights do not show whether blocks are post-norm; taken as {_yes(found)}, as in the "
        f"published networks with{'' if found else 'out'} layer scales (use_postln)"
    )
    return found


def normalizes_modulator(checkpoint: Checkpoint, forced: bool | None, notes: list[str]) -> bool:
    """Return whether the gated sum is divided; an assumption is added to ``notes``."""
    if forced is not None:
        return forced
    if "normalize_modulator" in checkpoint.config:
        return bool(checkpoint.config["normalize_modulator"])
    notes.append(
        "the weights do not show whether the modulator is normalised; taken as no "
        "(normalize_modulator)"
    )
    return False


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def require_known_settings(checkpoint: Checkpoint) -> None:
    """Refuse settings of a ``config.json`` that change what weights mean."""
    for key, expected in (("hidden_act", "gelu"), ("layer_norm_eps", 1e-5), ("patch_size", 4)):
        found = checkpoint.config.get(key, expected)
        if found != expected:
            raise ModelError(f"{checkpoint.path}: {key} is {found!r}; expected {expected!r}")


def normalization_of(checkpoint: Checkpoint, architecture: Architecture) -> Normalization | None:
    """Return how images were standardised: as ``preprocessor_config.json`` says, or ImageNet's."""
    if architecture.in_channels != len(IMAGENET.channels):
        return None
    mean, std = (checkpoint.processor.get(f"image_{what}") for what in ("mean", "std"))
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3:
        return Normalization(IMAGENET.channels, tuple(mean), tuple(std))
    return IMAGENET
