"""How images are standardised for published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["IMAGENET", "Normalization"]


@dataclass(frozen=True)
class Normalization:
    """Numbers to subtract and divide by, for pixel values scaled to 0..1.

    Attributes:
        channels: Names of the channels, in order.
        mean: One number per channel.
        std: One number per channel.
    """

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "value_range": [0, 1],
            "channels": list(self.channels),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Normalization:
        """Return what :meth:`as_json` wrote."""
        return cls(tuple(value["channels"]), tuple(value["mean"]), tuple(value["std"]))


IMAGENET = Normalization(("red", "green", "blue"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of all published FocalNets (microsoft/FocalNet ``data/build.py``, timm's default_cfgs)."""
