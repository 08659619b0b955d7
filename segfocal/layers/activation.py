"""The GELU of the published networks."""

from __future__ import annotations

import math

from keras import KerasTensor, ops

__all__ = ["exact_gelu"]


def exact_gelu(x: KerasTensor) -> KerasTensor:
    """Gaussian error linear unit, ``0.5 x (1 + erf(x / sqrt(2)))``.

    Written out because ``keras.ops.gelu`` approximates by tanh unless told otherwise, and its
    exact form becomes an ``Erfc`` that ONNX Runtime and OpenVINO's importer reject.
    """
    return 0.5 * x * (1.0 + ops.erf(x * (1.0 / math.sqrt(2.0))))
