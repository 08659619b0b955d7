"""FocalUNet written for PyTorch: the peer that differs in nothing but the library.

The same computation with the same weights, as one would write it there: arrays are channels last,
which PyTorch's convolutions on CPUs like best, so that nothing is transposed. Only what the
benchmarks need: presets without post-norm, scales and overlapping patches, nearest upsampling, all
pixels valid, sides that are multiples of 32. A test compares it with the Keras model.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TorchFocalUNet"]

EPSILON = 1e-5


class TorchFocalUNet(nn.Module):
    """A FocalUNet of PyTorch tensors.

    Args:
        weights: Those of the Keras model, by path.
        ndim: 2 or 3.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], ndim: int) -> None:
        super().__init__()
        self.ndim = ndim
        for path, values in weights.items():
            name = path.replace("/", "_")
            self.register_parameter(name, nn.Parameter(_in_torch_order(path, values, ndim)))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, *space, classes)`` of an image ``(batch, *space, channels)``."""
        image = (image - self.standardize_mean) / self.standardize_std
        features, x = {}, image
        for stage in range(1, 5):
            name = f"stage{stage}"
            x = self.convolve(x, f"{name}_embed_projection", stride=4 if stage == 1 else 2)
            x = self.normalize(x, f"{name}_embed_norm")
            for number in count(1):
                if not self.has(f"{name}_block{number}_expand_kernel"):
                    break
                x = self.block(x, f"{name}_block{number}")
            features[f"p{stage + 1}"] = x
        skips = {"p0": functional.gelu(self.convolve(image, "stem_p0", padding=1))}
        # "same" with stride 2 in TensorFlow pads at the end only.
        padded = functional.pad(skips["p0"], (0, 0, *(0, 1) * self.ndim))
        x = self.normalize(self.convolve(padded, "stem_p1", stride=2), "stem_p1_norm")
        skips["p1"] = functional.gelu(x)
        for level in ("p2", "p3", "p4"):
            skips[level] = self.normalize(features[level], f"skip_{level}_norm")
        x = self.normalize(features["p5"], "skip_p5_norm")
        for level in ("p4", "p3", "p2", "p1", "p0"):
            deep = self.double(self.project(x, f"up_{level}"))
            skip = self.project(skips[level], f"skip_{level}")
            x = self.convolve(deep + skip, f"decoder_{level}", padding=1)
            if level != "p0":
                x = self.normalize(x, f"decoder_{level}_norm")
            x = functional.gelu(x)
        return self.project(x, "logits")

    def block(self, x: Tensor, name: str) -> Tensor:
        x = x + self.modulate(self.normalize(x, f"{name}_norm_1"), f"{name}_modulation")
        hidden = self.project(self.normalize(x, f"{name}_norm_2"), f"{name}_expand")
        return x + self.project(functional.gelu(hidden), f"{name}_reduce")

    def modulate(self, x: Tensor, name: str) -> Tensor:
        query, context = self.project(x, f"{name}_query"), self.project(x, f"{name}_context")
        gates = self.project(x, f"{name}_gates")
        gathered = 0
        for level in range(gates.shape[-1] - 1):
            kernel = f"{name}_focal_{level}"
            padding = self.weight(f"{kernel}_kernel").shape[-1] // 2
            context = self.convolve(context, kernel, padding=padding, groups=context.shape[-1])
            context = functional.gelu(context)
            gathered = gathered + context * gates[..., level : level + 1]
        space = tuple(range(1, self.ndim + 1))
        mean = functional.gelu(context.mean(space, keepdim=True))
        gathered = gathered + mean * gates[..., -1:]
        return self.project(query * self.project(gathered, f"{name}_modulator"), f"{name}_output")

    def double(self, x: Tensor) -> Tensor:
        larger = functional.interpolate(x.movedim(-1, 1), scale_factor=2, mode="nearest")
        return larger.movedim(1, -1)

    def convolve(
        self, x: Tensor, name: str, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Tensor:
        convolution = functional.conv2d if self.ndim == 2 else functional.conv3d
        bias = self.weight(f"{name}_bias") if self.has(f"{name}_bias") else None
        # A view: with channels last in memory this is the layout that PyTorch calls so.
        found = convolution(
            x.movedim(-1, 1), self.weight(f"{name}_kernel"), bias, stride, padding, 1, groups
        )
        return found.movedim(1, -1)

    def project(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weight(f"{name}_kernel"), self.weight(f"{name}_bias"))

    def normalize(self, x: Tensor, name: str) -> Tensor:
        gamma, beta = self.weight(f"{name}_gamma"), self.weight(f"{name}_beta")
        return functional.layer_norm(x, x.shape[-1:], gamma, beta, EPSILON)

    def has(self, name: str) -> bool:
        return name in self._parameters

    def weight(self, name: str) -> Tensor:
        return self._parameters[name]  # type: ignore[return-value]


def _in_torch_order(path: str, values: np.ndarray, ndim: int) -> Tensor:
    """Return a weight with the axes in PyTorch's order: outputs, inputs, sides of the kernel."""
    tensor = torch.from_numpy(np.array(values, np.float32))
    if not path.endswith("kernel"):
        return tensor
    if tensor.ndim == 2:
        return tensor.T.contiguous()
    # Depthwise: (*sides, channels, 1), an input each.
    swapped = tensor if "/focal_" in path else tensor.transpose(-1, -2)
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    return swapped.movedim((-2, -1), (0, 1)).contiguous(memory_format=layout)
