"""The weights of a FocalNet as arrays, between a checkpoint or model and another model.

Names are attribute paths from the model, ``stage1_block1.modulation.gate_projection.kernel``,
and arrays have Keras's axis order: kernels ``(*space, inputs, outputs)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from segfocal.errors import ModelError
from segfocal.models import FocalNet
from segfocal.weights.architecture import Architecture, torch_shapes
from segfocal.weights.normalization import Normalization
from segfocal.weights.sources import SourceTensor

__all__ = ["EncoderWeights", "arrays_of_checkpoint", "assign", "variables_of", "weights_of_model"]

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EncoderWeights:
    """Weights of an encoder, or of a classifier when the architecture has ``num_classes``.

    Attributes:
        architecture: The network they belong to.
        arrays: One array per weight.
        source: Where they come from: ``"timm"``, ``"transformers"``, ``"original"``,
            ``"segfocal"``.
        normalization: How images were standardised when the weights were trained, if known.
        notes: What the source does not say and was assumed, one sentence each.
    """

    architecture: Architecture
    arrays: Arrays
    source: str = "segfocal"
    normalization: Normalization | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(array.shape) for array in self.arrays.values())


def arrays_of_checkpoint(
    architecture: Architecture, weights: Mapping[str, SourceTensor], where: object
) -> dict[str, NDArray[np.float32]]:
    """Return a checkpoint's weights in Keras's axis order.

    Linear layers are transposed, kernels turned from ``(out, in, rows, cols)`` to
    ``(rows, cols, in, out)``; the fused projection ``(query | context | gates)`` is split.

    Raises:
        ModelError: A weight is missing, superfluous, or has another shape than expected.
    """
    expected = torch_shapes(architecture)
    result: dict[str, NDArray[np.float32]] = {}
    for name, shape in expected.items():
        if name not in weights:
            raise ModelError(f"{where}: lacks {name}; expected shape {shape}")
        key, array = weights[name].key, weights[name].array
        if array.shape not in (shape, (*shape, 1, 1)):  # a linear layer may be a 1x1 convolution
            raise ModelError(
                f"{where}: {key} has shape {tuple(array.shape)}; expected {shape} for {name}"
            )
        result.update(_keras_arrays(name, array.reshape(shape), architecture.num_gates))
    # Without a head, the normalisation before it has no use.
    unused = set(weights) - set(expected) - {"norm.weight", "norm.bias"}
    if unused:
        keys = ", ".join(sorted(weights[name].key for name in unused)[:3])
        raise ModelError(f"{where}: {keys} not used; expected a FocalNet of one kind throughout")
    return result


def _keras_arrays(
    name: str, array: NDArray[np.float32], num_gates: int
) -> dict[str, NDArray[np.float32]]:
    layer, _, kind = name.rpartition(".")
    if kind in ("scale_1", "scale_2"):
        return {name: array}
    what = layer.rpartition(".")[2]
    if "norm" in what:
        return {f"{layer}.{'gamma' if kind == 'weight' else 'beta'}": array}
    if ".focal_layers." in name:
        return {f"{layer}.kernel": np.ascontiguousarray(array.transpose(2, 3, 0, 1))}
    if what == "projection" and kind == "weight":
        return {f"{layer}.kernel": np.ascontiguousarray(array.transpose(2, 3, 1, 0))}
    ours = "kernel" if kind == "weight" else "bias"
    if what != "fused":
        return {f"{layer}.{ours}": np.ascontiguousarray(array.T)}
    modulation = layer.removesuffix(".fused")
    width = (array.shape[0] - num_gates) // 2
    parts = (array[:width], array[width : 2 * width], array[2 * width :])
    return {
        f"{modulation}.{part}_projection.{ours}": np.ascontiguousarray(piece.T)
        for part, piece in zip(("query", "context", "gate"), parts, strict=True)
    }


def variables_of(model: FocalNet) -> dict[str, keras.Variable]:
    """Return every weight of a model by its name here."""
    result: dict[str, keras.Variable] = {}

    def add(name: str, layer: keras.layers.Layer, *names: str) -> None:
        result.update({f"{name}.{each}": getattr(layer, each) for each in names})

    config = model.get_config()
    for stage, depth in enumerate(config["depths"], start=1):
        embed = model.get_layer(f"stage{stage}_embed")
        add(f"stage{stage}_embed.projection", embed.projection, "kernel", "bias")
        add(f"stage{stage}_embed.norm", embed.norm, "gamma", "beta")
        for number in range(1, depth + 1):
            name = f"stage{stage}_block{number}"
            block = model.get_layer(name)
            modulation = block.modulation
            for part in ("query", "context", "gate", "modulator", "output"):
                dense = getattr(modulation, f"{part}_projection")
                add(f"{name}.modulation.{part}_projection", dense, "kernel", "bias")
            for level, focal in enumerate(modulation.focal_layers):
                add(f"{name}.modulation.focal_layers.{level}", focal, "kernel")
            if modulation.post_norm is not None:
                add(f"{name}.modulation.post_norm", modulation.post_norm, "gamma", "beta")
            for part in ("norm_1", "norm_2"):
                add(f"{name}.{part}", getattr(block, part), "gamma", "beta")
            for part in ("expand", "reduce"):
                add(f"{name}.{part}", getattr(block, part), "kernel", "bias")
            if block.scale_1 is not None:
                add(name, block, "scale_1", "scale_2")
    if config["num_classes"] is not None:
        add("norm", model.get_layer("norm"), "gamma", "beta")
        add("head", model.get_layer("head"), "kernel", "bias")
    return result


def weights_of_model(model: FocalNet) -> EncoderWeights:
    """Return the weights of a model."""
    arrays = {
        name: np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
        for name, variable in variables_of(model).items()
    }
    return EncoderWeights(Architecture.of_model(model), arrays)


def assign(model: FocalNet, weights: EncoderWeights) -> None:
    """Set every weight of a model; nothing is set when one does not fit.

    Raises:
        ModelError: The weights are not those of the model's architecture.
    """
    variables = variables_of(model)
    missing = sorted(set(variables) - set(weights.arrays))
    superfluous = sorted(set(weights.arrays) - set(variables))
    if missing or superfluous:
        what = f"lack {missing[0]}" if missing else f"hold {superfluous[0]}, which the model lacks"
        raise ModelError(f"the weights {what}; expected those of a model of the same architecture")
    for name, variable in variables.items():
        if tuple(variable.shape) != weights.arrays[name].shape:
            raise ModelError(
                f"{name} has shape {weights.arrays[name].shape}; expected {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(weights.arrays[name])
