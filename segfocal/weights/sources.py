"""How the publishers of FocalNets name their weights, and the one naming used here.

Names here are those of segfocal's layers with PyTorch's ``weight`` and ``bias``:
``stage1_embed.projection.weight``, ``stage3_block6.modulation.fused.bias``. Key maps read
from microsoft/FocalNet ``classification/focalnet.py``, huggingface/transformers
``models/focalnet/modeling_focalnet.py`` and huggingface/pytorch-image-models
``timm/models/focalnet.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError

__all__ = ["Naming", "SourceTensor", "rename"]

SourceKind = Literal["timm", "transformers", "original"]


@dataclass(frozen=True)
class SourceTensor:
    """An array and the name under which its source keeps it."""

    key: str
    array: NDArray[np.float32]


@dataclass(frozen=True)
class Naming:
    """One publisher's names.

    Attributes:
        kind: The publisher.
        marker: A key that this publisher alone uses; what stands before it is a prefix.
        block: Pattern of a key inside a block: stage, block, rest.
        downsample: Pattern of a downsampling key: stage, layer, weight or bias.
        downsample_opens: 1 when the downsampling of stage i ends it and so opens the next.
        modules: Layers outside blocks, theirs to ours.
        parts: Layers and weights inside blocks, theirs to ours.
        ignored: Patterns of keys that a FocalNet encoder or classifier has no use for.
    """

    kind: SourceKind
    marker: str
    block: re.Pattern[str]
    downsample: re.Pattern[str]
    downsample_opens: int
    modules: Mapping[str, str]
    parts: Mapping[str, str]
    ignored: tuple[re.Pattern[str], ...] = field(default=())


_LAYERS = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)")

_NAMINGS = (
    Naming(
        kind="timm",
        marker="stem.proj.weight",
        block=_LAYERS,
        downsample=re.compile(r"layers\.(\d+)\.downsample\.(proj|norm)\.(weight|bias)"),
        downsample_opens=0,
        modules={
            "stem.proj": "stage1_embed.projection",
            "stem.norm": "stage1_embed.norm",
            "norm": "norm",
            "head.fc": "head",
        },
        parts={
            "norm1": "norm_1",
            "norm2": "norm_2",
            "norm1_post": "norm_1",
            "norm2_post": "norm_2",
            "modulation.f": "modulation.fused",
            "modulation.h": "modulation.modulator_projection",
            "modulation.proj": "modulation.output_projection",
            "modulation.norm": "modulation.post_norm",
            "mlp.fc1": "expand",
            "mlp.fc2": "reduce",
            "ls1.gamma": "scale_1",
            "ls2.gamma": "scale_2",
        },
    ),
    Naming(
        kind="transformers",
        marker="embeddings.patch_embeddings.projection.weight",
        block=re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)"),
        downsample=re.compile(
            r"encoder\.stages\.(\d+)\.downsample\.(projection|norm)\.(weight|bias)"
        ),
        downsample_opens=1,
        modules={
            "embeddings.patch_embeddings.projection": "stage1_embed.projection",
            "embeddings.norm": "stage1_embed.norm",
            "layernorm": "norm",
            "classifier": "head",
        },
        parts={
            "norm1": "norm_1",
            "norm2": "norm_2",
            "modulation.projection_in": "modulation.fused",
            "modulation.projection_context": "modulation.modulator_projection",
            "modulation.projection_out": "modulation.output_projection",
            "modulation.layernorm": "modulation.post_norm",
            "mlp.fc1": "expand",
            "mlp.fc2": "reduce",
            "gamma_1": "scale_1",
            "gamma_2": "scale_2",
        },
        # The token and the decoder of masked image modelling.
        ignored=(
            re.compile(r"embeddings\.mask_token"),
            re.compile(r"decoder\.0\.(weight|bias)"),
        ),
    ),
    Naming(
        kind="original",
        marker="patch_embed.proj.weight",
        block=_LAYERS,
        downsample=re.compile(r"layers\.(\d+)\.downsample\.(proj|norm)\.(weight|bias)"),
        downsample_opens=1,
        modules={
            "patch_embed.proj": "stage1_embed.projection",
            "patch_embed.norm": "stage1_embed.norm",
            "norm": "norm",
            "head": "head",
        },
        parts={
            "norm1": "norm_1",
            "norm2": "norm_2",
            "modulation.f": "modulation.fused",
            "modulation.h": "modulation.modulator_projection",
            "modulation.proj": "modulation.output_projection",
            "modulation.ln": "modulation.post_norm",
            "mlp.fc1": "expand",
            "mlp.fc2": "reduce",
            "gamma_1": "scale_1",
            "gamma_2": "scale_2",
        },
    ),
)

_FOCAL = re.compile(r"modulation\.focal_layers\.(\d+)\.0\.weight")


def rename(
    tensors: Mapping[str, NDArray[np.float32]], where: object
) -> tuple[Naming, dict[str, SourceTensor]]:
    """Recognise the publisher of a checkpoint and give every weight the name used here.

    Args:
        tensors: Arrays under their source's names.
        where: What to call the checkpoint in messages.

    Raises:
        ModelError: The names are no FocalNet's, or one of them is not.
    """
    for naming in _NAMINGS:
        for key in tensors:
            if key == naming.marker or key.endswith(f".{naming.marker}"):
                return naming, _rename(naming, key.removesuffix(naming.marker), tensors, where)
    first = ", ".join(sorted(tensors)[:3])
    raise ModelError(
        f"{where}: its names ({first}, ...) are no FocalNet's; expected one of "
        f"{', '.join(naming.marker for naming in _NAMINGS)}"
    )


def _rename(
    naming: Naming, prefix: str, tensors: Mapping[str, NDArray[np.float32]], where: object
) -> dict[str, SourceTensor]:
    result: dict[str, SourceTensor] = {}
    for key, array in tensors.items():
        short = key.removeprefix(prefix)
        if any(pattern.fullmatch(short) for pattern in naming.ignored):
            continue
        name = _name(naming, short)
        if name is None:
            raise ModelError(
                f"{where}: {key} has no place in a FocalNet as {naming.kind} names it; expected "
                "the weights of an encoder or classifier"
            )
        if name in result:
            raise ModelError(f"{where}: {key} and {result[name].key} are the same weight, {name}")
        result[name] = SourceTensor(key, array)
    return result


def _name(naming: Naming, key: str) -> str | None:
    if match := naming.downsample.fullmatch(key):
        stage = int(match[1]) + 1 + naming.downsample_opens
        layer = "norm" if match[2] == "norm" else "projection"
        return f"stage{stage}_embed.{layer}.{match[3]}"
    if match := naming.block.fullmatch(key):
        part = _part(naming, match[3])
        return part and f"stage{int(match[1]) + 1}_block{int(match[2]) + 1}.{part}"
    module, _, kind = key.rpartition(".")
    if module in naming.modules and kind in ("weight", "bias"):
        return f"{naming.modules[module]}.{kind}"
    return None


def _part(naming: Naming, rest: str) -> str | None:
    if match := _FOCAL.fullmatch(rest):
        return f"modulation.focal_layers.{int(match[1])}.weight"
    if rest in naming.parts:  # a bare weight, as the scales are
        return naming.parts[rest]
    module, _, kind = rest.rpartition(".")
    if module in naming.parts and kind in ("weight", "bias"):
        return f"{naming.parts[module]}.{kind}"
    return None
