"""Sizes of FocalNet encoders: the published tables and two lighter ones of our own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Numbers that make up an encoder.

    Attributes:
        embed_dim: Channels of the first stage; each further stage has twice as many.
        depths: Focal blocks per stage.
        focal_levels: Depthwise levels per modulation.
        focal_window: Kernel of the first level.
        drop_path: Largest rate of stochastic depth in training.
    """

    embed_dim: int
    depths: tuple[int, int, int, int]
    focal_levels: int
    focal_window: int = 3
    drop_path: float = 0.0


PRESETS: dict[str, Preset] = {
    # Ours: for CPUs, demos and volumes.
    "nano": Preset(24, (1, 1, 2, 1), 2),
    "micro": Preset(48, (1, 1, 3, 1), 2, drop_path=0.1),
    # Published: microsoft/FocalNet, configs/*.yaml; srf has 2 focal levels, lrf has 3.
    "tiny_srf": Preset(96, (2, 2, 6, 2), 2, drop_path=0.2),
    "tiny_lrf": Preset(96, (2, 2, 6, 2), 3, drop_path=0.2),
    "small_srf": Preset(96, (2, 2, 18, 2), 2, drop_path=0.3),
    "small_lrf": Preset(96, (2, 2, 18, 2), 3, drop_path=0.3),
    "base_srf": Preset(128, (2, 2, 18, 2), 2, drop_path=0.5),
    "base_lrf": Preset(128, (2, 2, 18, 2), 3, drop_path=0.5),
}
