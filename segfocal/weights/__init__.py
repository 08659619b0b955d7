"""Trained weights: reading published checkpoints, and fitting them to a network.

>>> encoder = from_pretrained("focalnet_tiny_srf", channels=["blue", "green", "red", "nir"])
>>> load_encoder(unet, "encoder.keras")
"""

from segfocal.weights.adaptation import adapt
from segfocal.weights.architecture import Architecture
from segfocal.weights.channels import adapt_channels
from segfocal.weights.checkpoint import Checkpoint, read_checkpoint
from segfocal.weights.encoder_weights import EncoderWeights, assign, weights_of_model
from segfocal.weights.hub import PUBLISHED, cache_folder, fetch
from segfocal.weights.inflation import inflate
from segfocal.weights.normalization import IMAGENET, Normalization
from segfocal.weights.pretrained import from_pretrained, load_encoder, read_encoder
from segfocal.weights.windows import widen_focal_windows

__all__ = [
    "IMAGENET",
    "PUBLISHED",
    "Architecture",
    "Checkpoint",
    "EncoderWeights",
    "Normalization",
    "adapt",
    "adapt_channels",
    "assign",
    "cache_folder",
    "fetch",
    "from_pretrained",
    "inflate",
    "load_encoder",
    "read_checkpoint",
    "read_encoder",
    "weights_of_model",
    "widen_focal_windows",
]
