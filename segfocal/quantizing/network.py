"""The quantized network: which layers compute in int8.

Dense layers and convolutions do, depthwise ones too. The projections to the gates and the
logits stay in float: they have a handful of outputs. So does what NNCF leaves alone in
transformers: the statistics of layer normalisation (in int8 they changed 9 % of the labels of a
small trained network instead of 0.6 %, and were slower) and the sums of shortcuts.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from segfocal.engine.openvino_predictor import load_openvino
from segfocal.errors import ModelError, SegfocalError
from segfocal.quantizing.calibration_tiles import Tile

__all__ = ["load_nncf", "quantized_network"]

_FLOAT = re.compile(r"(/gates(_\d+)?/|/logits(_\d+)?/)")


def load_nncf() -> Any:
    """Import NNCF with its telemetry switched off.

    Raises:
        ModelError: It is not installed.
    """
    load_openvino()
    try:
        with _silence():
            nncf = importlib.import_module("nncf")
    except ImportError as error:
        raise ModelError(
            f"NNCF is not installed ({error}); install the extra: pip install 'segfocal[quantize]'"
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def quantized_network(network: Any, tiles: Sequence[Tile]) -> Any:
    """Return a copy of an OpenVINO model that computes in int8 where that pays.

    Args:
        network: The model, of free batch and size.
        tiles: Tiles to calibrate with.

    Raises:
        ModelError: It cannot be quantized.
    """
    nncf = load_nncf()
    openvino = load_openvino()
    free = {name: network.input(name).partial_shape for name in ("image", "valid")}
    fixed = network.clone()
    sides = tiles[0][1].shape
    fixed.reshape({"image": [1, *tiles[0][0].shape], "valid": [1, *sides]})
    kept = [
        op.get_friendly_name()
        for op in fixed.get_ops()
        if op.get_type_name() == "MatMul" and _FLOAT.search(op.get_friendly_name())
    ]
    samples = nncf.Dataset([{"image": v[None], "valid": ok[None]} for v, ok in tiles])
    try:
        with _silence():
            found = nncf.quantize(
                fixed,
                samples,
                # Activations after GELU are not symmetric around 0.
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(tiles),
                ignored_scope=nncf.IgnoredScope(names=kept),
            )
        found.reshape({name: openvino.PartialShape(shape) for name, shape in free.items()})
    except (SegfocalError, MemoryError):
        raise
    except Exception as error:  # NNCF and OpenVINO raise kinds of their own
        text = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"the model cannot be quantized: {text[:300]}") from error
    return found


@contextlib.contextmanager
def _silence() -> Any:
    """Keep NNCF's progress bars and notices out of standard output."""
    sys.stdout.flush()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
