"""Sizes of networks: the published tables of FocalNet, lighter ones of our own, the decoder's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset", "level_widths"]


@dataclass(frozen=True)
class Preset:
    """Numbers that make up an encoder.

    Attributes:
        embed_dim: Channels of the first stage; each further stage has twice as many.
        depths: Focal blocks per stage.
        focal_levels: Depthwise levels per modulation.
        focal_window: Kernel of the first level.
        patch_size: Side in pixels of a position of the first stage, 4 or 2: how fine the finest
            feature of the encoder is.
        drop_path: Largest rate of stochastic depth in training.
        conv_stem: Overlapping convolutions instead of patches in stem and downsampling.
        use_postln: Post-norm blocks.
        layerscale: Initial value of the trained scales of each branch; None for no scales.
        use_postln_in_modulation: Normalise ``q * m`` before the last projection.
        normalize_modulator: Divide the gated sum by the number of levels.
    """

    embed_dim: int
    depths: tuple[int, int, int, int]
    focal_levels: int
    focal_window: int = 3
    patch_size: int = 4
    drop_path: float = 0.0
    conv_stem: bool = False
    use_postln: bool = False
    layerscale: float | None = None
    use_postln_in_modulation: bool = False
    normalize_modulator: bool = False

    @property
    def output_stride(self) -> int:
        """Total downsampling, of which a tile has to be a multiple."""
        return self.patch_size * 2 ** (len(self.depths) - 1)


_DEEP = (2, 2, 18, 2)


def _large(embed_dim: int, focal_levels: int, focal_window: int, huge: bool = False) -> Preset:
    """Return one of the networks published for ImageNet-22k."""
    return Preset(
        embed_dim,
        _DEEP,
        focal_levels,
        focal_window,
        drop_path=0.5,
        conv_stem=True,
        use_postln=True,
        layerscale=1e-4,
        use_postln_in_modulation=huge,
    )


PRESETS: dict[str, Preset] = {
    # Ours: for CPUs, demos and volumes.
    "nano": Preset(24, (1, 1, 2, 1), 2),
    "micro": Preset(48, (1, 1, 3, 1), 2, drop_path=0.1),
    # For small things: the encoder begins at half resolution.
    "nano_fine": Preset(24, (1, 1, 2, 1), 2, patch_size=2),
    "micro_fine": Preset(48, (1, 1, 3, 1), 2, drop_path=0.1, patch_size=2),
    # Published: microsoft/FocalNet, configs/*.yaml; srf has 2 focal levels, lrf has 3.
    "tiny_srf": Preset(96, (2, 2, 6, 2), 2, drop_path=0.2),
    "tiny_lrf": Preset(96, (2, 2, 6, 2), 3, drop_path=0.2),
    "small_srf": Preset(96, _DEEP, 2, drop_path=0.3),
    "small_lrf": Preset(96, _DEEP, 3, drop_path=0.3),
    "base_srf": Preset(128, _DEEP, 2, drop_path=0.5),
    "base_lrf": Preset(128, _DEEP, 3, drop_path=0.5),
    "large_fl3": _large(192, 3, 5),
    # In conflict: configs/focalnet_large_fl4.yaml divides the modulator by the number of
    # levels, timm's model of that name does not. This follows timm, whose checkpoint can be
    # had; nobody has shown which of the two the published accuracy belongs to.
    "large_fl4": _large(192, 4, 3),
    "xlarge_fl3": _large(256, 3, 5),
    "xlarge_fl4": _large(256, 4, 3),
    "huge_fl3": _large(352, 3, 3, huge=True),
    "huge_fl4": _large(352, 4, 3, huge=True),
}


def level_widths(embed_dim: int, first: int = 2) -> dict[str, int]:
    """Return the channels of each level of the decoder, in the order in which they are computed.

    Above the encoder's finest feature they halve with each level: of the work of a network whose
    finest feature is P2, three quarters of the decoder's lie at full resolution.

    Args:
        embed_dim: Channels of the encoder's finest feature.
        first: Its number: 2 for P2, 4 times smaller than the image.
    """
    widths = {f"p{first + 2}": 2 * embed_dim, f"p{first + 1}": embed_dim, f"p{first}": embed_dim}
    for level in reversed(range(first)):
        widths[f"p{level}"] = max(8, embed_dim // 2 ** (first - level))
    return widths
