"""Keras layers of segfocal."""

from segfocal.layers.activation import exact_gelu
from segfocal.layers.depthwise import DepthwiseConv3D
from segfocal.layers.focal_block import FocalBlock
from segfocal.layers.focal_modulation import FocalModulation
from segfocal.layers.patch_embedding import PatchEmbedding
from segfocal.layers.sizes import CropLike, Double, PadToMultiple
from segfocal.layers.standardize import Standardize

__all__ = [
    "CropLike",
    "DepthwiseConv3D",
    "Double",
    "FocalBlock",
    "FocalModulation",
    "PadToMultiple",
    "PatchEmbedding",
    "Standardize",
    "exact_gelu",
]
