"""What a FocalNet is made of, as far as its weights depend on it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segfocal.errors import ModelError
from segfocal.layers.focal_modulation import focal_kernels
from segfocal.models import FocalNet
from segfocal.presets import PRESETS
from segfocal.weights.sources import SourceTensor

__all__ = ["Architecture", "derive_architecture", "torch_shapes"]

LAYERSCALE = 1e-4
"""Initial value of the published networks' scales; a checkpoint shows the trained ones only."""


@dataclass(frozen=True)
class Architecture:
    """The arguments of :class:`~segfocal.models.FocalNet` that decide weights or their meaning.

    The attributes are that class's arguments; ``layerscale`` 0 means none.
    """

    in_channels: int
    embed_dim: int
    depths: tuple[int, ...]
    focal_levels: int
    focal_window: int | tuple[int, ...]
    ndim: int = 2
    num_classes: int | None = None
    mlp_ratio: float = 4.0
    patch_size: int = 4
    drop_path: float = 0.0
    conv_stem: bool = False
    use_postln: bool = False
    layerscale: float = 0.0
    use_postln_in_modulation: bool = False
    normalize_modulator: bool = False
    gate_activation: Any = None
    context: Any = "chained"
    global_context: Any = "tile"
    local_context: tuple[int, ...] | None = None

    @classmethod
    def of_model(cls, model: FocalNet) -> Architecture:
        """Return the architecture of a model."""
        config = model.get_config()
        names = {entry.name for entry in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.items()
            if name in names
        }
        return cls(**{**values, "layerscale": values["layerscale"] or 0.0})

    @property
    def preset(self) -> str | None:
        """Name of the preset with these sizes and options, or None.

        ``normalize_modulator`` is left out of the comparison: published weights do not show it.
        """
        for name, preset in PRESETS.items():
            if all(
                getattr(self, option) == getattr(preset, option)
                for option in (
                    "embed_dim",
                    "depths",
                    "focal_levels",
                    "focal_window",
                    "patch_size",
                    "conv_stem",
                    "use_postln",
                    "use_postln_in_modulation",
                )
            ) and bool(self.layerscale) == bool(preset.layerscale):
                return name
        return None

    @property
    def num_gates(self) -> int:
        """Gates of each modulation: one per level and one for the global context."""
        return self.focal_levels + (self.global_context != "none")

    @property
    def kernels(self) -> list[tuple[int, ...]]:
        """Side lengths of each level's kernel.

        Raises:
            ModelError: The focal window is none for these axes.
        """
        try:
            return focal_kernels(self.focal_window, self.focal_levels, 2, self.ndim)
        except ValueError as error:
            raise ModelError(str(error)) from error

    @property
    def patch_kernels(self) -> list[int]:
        """Side length of each stage's embedding kernel."""
        sides = [self.patch_size] + [2] * (len(self.depths) - 1)
        return [2 * side - 1 if self.conv_stem else side for side in sides]

    def build(self, preset: str | None = None) -> FocalNet:
        """Return a new model of this architecture, with random weights.

        Args:
            preset: Name of the preset it is a form of, kept in the model's config.

        Raises:
            ModelError: The arguments do not go together.
        """
        arguments: dict[str, Any] = {
            entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)
        }
        if preset is not None:
            arguments["preset"] = preset
        try:
            return FocalNet(**arguments)
        except ValueError as error:
            raise ModelError(" ".join(str(error).split())) from error


def derive_architecture(
    weights: Mapping[str, SourceTensor],
    where: object,
    *,
    use_postln: bool,
    normalize_modulator: bool,
) -> Architecture:
    """Read an architecture from names and shapes of weights (PyTorch's axis order).

    Args:
        weights: Weights under the names used here.
        where: What to call the checkpoint in messages.
        use_postln, normalize_modulator: What weights do not show.

    Raises:
        ModelError: The weights are no FocalNet that segfocal can build.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise ModelError(f"{where}: lacks {name}; expected every weight of a FocalNet")
        return weights[name].array.shape

    stem = shape("stage1_embed.projection.weight")
    if len(stem) != 4 or stem[2:] not in ((4, 4), (7, 7)):
        key = weights["stage1_embed.projection.weight"].key
        raise ModelError(
            f"{where}: {key} has shape {stem}; expected (channels, image channels, 4, 4), or 7, 7 "
            "for a convolutional stem"
        )
    depths = _depths(weights, where)
    levels, window = _focal(weights, where)
    hidden = shape("stage1_block1.expand.weight")[0]
    head = weights.get("head.weight")
    scaled = "stage1_block1.scale_1" in weights
    found = Architecture(
        in_channels=stem[1],
        embed_dim=stem[0],
        depths=depths,
        focal_levels=levels,
        focal_window=window,
        num_classes=None if head is None else head.array.shape[0],
        mlp_ratio=hidden / stem[0],
        conv_stem=stem[2] == 7,
        use_postln=use_postln,
        layerscale=LAYERSCALE if scaled else 0.0,
        use_postln_in_modulation="stage1_block1.modulation.post_norm.weight" in weights,
        normalize_modulator=normalize_modulator,
    )
    if found.preset is None:
        return found
    return dataclasses.replace(found, drop_path=PRESETS[found.preset].drop_path)


def _depths(weights: Mapping[str, SourceTensor], where: object) -> tuple[int, ...]:
    blocks: dict[int, set[int]] = {}
    for name in weights:
        if match := re.match(r"stage(\d+)_block(\d+)\.", name):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    if sorted(blocks) != list(range(1, 5)):
        raise ModelError(f"{where}: has stages {sorted(blocks)}; expected 4, numbered from 1")
    for stage, found in blocks.items():
        if found != set(range(1, len(found) + 1)):
            raise ModelError(f"{where}: stage {stage} lacks blocks between those it has")
    return depths


def _focal(weights: Mapping[str, SourceTensor], where: object) -> tuple[int, int]:
    """Return levels and window, which all blocks must share."""
    kernels: dict[str, dict[int, int]] = {}
    for name, tensor in weights.items():
        if match := re.match(r"(stage\d+_block\d+)\.modulation\.focal_layers\.(\d+)\.", name):
            kernels.setdefault(match[1], {})[int(match[2])] = tensor.array.shape[-1]
    found = {tuple(sorted(levels.items())) for levels in kernels.values()}
    if len(found) != 1:
        raise ModelError(
            f"{where}: its blocks have {len(found)} different sets of focal kernels; expected the "
            "same levels and windows in all stages"
        )
    levels = dict(found.pop())
    window = levels.get(0, 0)
    if levels != {level: window + 2 * level for level in range(len(levels))} or window % 2 == 0:
        raise ModelError(
            f"{where}: focal kernels {list(levels.values())}; expected an odd window that grows by "
            "2 per level"
        )
    return len(levels), window


def torch_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight of a published network, in PyTorch's axis order.

    Args:
        architecture: A two-dimensional architecture.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    below = architecture.in_channels
    for stage, depth in enumerate(architecture.depths, start=1):
        width = architecture.embed_dim * 2 ** (stage - 1)
        side = architecture.patch_kernels[stage - 1]
        layer(f"stage{stage}_embed.projection", width, below, side, side)
        layer(f"stage{stage}_embed.norm", width)
        hidden = int(width * architecture.mlp_ratio)
        for block in range(1, depth + 1):
            name = f"stage{stage}_block{block}"
            layer(f"{name}.norm_1", width)
            layer(f"{name}.norm_2", width)
            layer(f"{name}.modulation.fused", 2 * width + architecture.num_gates, width)
            for level, sides in enumerate(architecture.kernels):
                shapes[f"{name}.modulation.focal_layers.{level}.weight"] = (width, 1, *sides)
            layer(f"{name}.modulation.modulator_projection", width, width)
            layer(f"{name}.modulation.output_projection", width, width)
            if architecture.use_postln_in_modulation:
                layer(f"{name}.modulation.post_norm", width)
            layer(f"{name}.expand", hidden, width)
            layer(f"{name}.reduce", width, hidden)
            if architecture.layerscale:
                shapes[f"{name}.scale_1"] = shapes[f"{name}.scale_2"] = (width,)
        below = width
    if architecture.num_classes is not None:
        layer("norm", below)
        layer("head", architecture.num_classes, below)
    return shapes
