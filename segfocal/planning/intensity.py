"""How each channel is normalized: nnU-Net's rules for volumes, dataset statistics for scenes."""

from __future__ import annotations

from segfocal.card import Normalization
from segfocal.data.fingerprint import ChannelFacts, Fingerprint
from segfocal.data.spec import DatasetSpec

__all__ = ["normalization_of", "plan_normalization"]

MANY_ZEROS = 0.25
"""Share of zeros above which they are background, as nnU-Net takes it: not measured."""


def plan_normalization(
    spec: DatasetSpec, found: Fingerprint
) -> tuple[tuple[Normalization | None, ...], dict[str, str]]:
    """Return how each channel is normalized with a scan's own numbers, and why.

    None: with the numbers of the dataset, inside the model.
    """
    planned, why = [], {}
    for channel, facts in zip(spec.channels, found.foreground, strict=True):
        asked = spec.normalization.get(channel, spec.normalization.get("*"))
        method = normalization_of(spec, channel)
        one, reason = _normalization(method, facts)
        planned.append(one)
        origin = "the spec says so" if asked else _why(method, spec.ndim)
        why[f"normalization.{channel}"] = f"{reason}: {origin}"
    return tuple(planned), why


def normalization_of(spec: DatasetSpec, channel: str) -> str:
    """Return what the spec says of a channel's normalization, or what follows from its name."""
    asked = spec.normalization.get(channel, spec.normalization.get("*"))
    if asked is not None:
        return asked
    if spec.ndim == 2:
        return "dataset"
    return "ct" if channel.lower() == "ct" else "scan"


def _why(method: str, ndim: int) -> str:
    if ndim == 2:
        return "values of scenes mean the same in each"
    if method == "ct":
        return "a channel called ct holds Hounsfield units, as in nnU-Net"
    return "other modalities have no unit, as in nnU-Net"


def _normalization(method: str, facts: ChannelFacts) -> tuple[Normalization | None, str]:
    if method == "scan":
        region = "nonzero" if facts.zeros > MANY_ZEROS else "valid"
        return (
            Normalization(method="zscore", region=region),  # type: ignore[arg-type]
            f"each scan's own mean and deviation over {region} values ({facts.zeros:.0%} are 0)",
        )
    if method == "ct" and facts.percentiles and facts.percentiles[0] < facts.percentiles[2]:
        low, _, high = facts.percentiles
        return (
            Normalization(method="window", low=low, high=high),
            f"clipped to {low:g} .. {high:g}, the 0.5 and 99.5 percentiles of the foreground",
        )
    if method == "none":
        return None, "values as they are"
    return None, "mean and deviation of the dataset"
