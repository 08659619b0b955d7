"""Keras models of segfocal."""

from segfocal.models.focal_unet import FocalUNet
from segfocal.models.focalnet import FocalNet
from segfocal.presets import PRESETS, Preset

__all__ = ["PRESETS", "FocalNet", "FocalUNet", "Preset"]
