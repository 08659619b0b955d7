"""Writing an ONNX file."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

from segfocal.card_files import CONTENT_HASH, PREFIX
from segfocal.engine.onnx_predictor import ONNXPredictor
from segfocal.engine.openvino_predictor import OpenVINOPredictor
from segfocal.engine.predictors import load_exported
from segfocal.exporting.float32_model import converting
from segfocal.exporting.network import exported_network, facts_of, signature
from segfocal.io.pending import writing
from segfocal.models import FocalUNet
from segfocal.onnx_metadata import hash_onnx
from segfocal.version import __version__

__all__ = ["OPSET", "write_onnx"]

OPSET = 17

_AXES = {2: ("row", "col"), 3: ("plane", "row", "col")}


def write_onnx(model: FocalUNet, path: Path, model_hash: str) -> ONNXPredictor | OpenVINOPredictor:
    """Write an ONNX file with its facts and return it, loaded again."""
    with writing(path.name), converting("ONNX"):
        _mend_conversions()
        with warnings.catch_warnings():
            # Of NumPy 2, about what Keras does for tf2onnx's sake.
            warnings.simplefilter("ignore", FutureWarning)
            exported_network(model).export(
                str(path),
                format="onnx",
                verbose=False,
                input_signature=signature(model),
                opset_version=OPSET,
            )
        _finish(model, path, model_hash)
        return load_exported(path)


def _finish(model: FocalUNet, path: Path, model_hash: str) -> None:
    """Name the free axes and add the facts."""
    import onnx

    found = onnx.load(path)
    axes = ("batch", *_AXES[model.card.ndim])
    for port in (*found.graph.input, *found.graph.output):
        sides = port.type.tensor_type.shape.dim
        for side, name in zip(sides, axes, strict=False):
            side.dim_param = name
    # Shapes in between are written with the converter's numbered names of the same axes.
    del found.graph.value_info[:]
    facts = facts_of(model, "onnx", model_hash)
    onnx.helper.set_model_props(
        found, {f"{PREFIX}{key}": value for key, value in facts.texts().items()}
    )
    found.producer_name, found.producer_version = "segfocal", __version__
    found.doc_string = (
        "Semantic segmentation. image: float32 in the scan's own units; valid: boolean, False "
        "where the image has no data; probabilities: float32, one per class of segfocal.card."
    )
    onnx.checker.check_model(found)
    # Twice: the hash, known after the first time, is of everything but the entry with it.
    onnx.save(found, path)
    found.metadata_props.add(key=CONTENT_HASH, value=hash_onnx(path, CONTENT_HASH))
    onnx.save(found, path)


@functools.cache
def _mend_conversions() -> None:
    """Have tf2onnx convert three operations as Python and TensorFlow mean them.

    It writes ``//`` and ``%`` of integers with ONNX's ``Div``, which rounds towards zero:
    -75 % 32 becomes -11 instead of 21, and padding to a multiple cuts the image instead;
    ``Mod`` rounds down. And it writes a choice between two arrays of free shape as
    ``c * a + (1 - c) * b``, through which NaN passes; ``Where`` chooses.
    """
    from onnx import TensorProto
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset import math

    def of_floats(ctx: Any, node: Any) -> bool:
        return ctx.get_dtype(node.input[0]) not in (TensorProto.INT32, TensorProto.INT64)

    @tf_op("FloorMod")
    class FloorMod:
        @classmethod
        def version_10(cls, ctx: Any, node: Any, **kwargs: object) -> None:
            if of_floats(ctx, node):
                math.FloorMod.version_7(ctx, node, **kwargs)
            else:
                node.type = "Mod"

    @tf_op("FloorDiv")
    class FloorDiv:
        @classmethod
        def version_10(cls, ctx: Any, node: Any, **kwargs: object) -> None:
            if of_floats(ctx, node):
                math.FloorDiv.version_6(ctx, node, **kwargs)
                return
            kind = {"dtypes": node.output_dtypes, "shapes": node.output_shapes}
            number = node.input[0]
            remainder = ctx.make_node("Mod", node.input, **kind)
            multiple = ctx.make_node("Sub", [number, remainder.output[0]], **kind)
            node.type = "Div"
            ctx.replace_input(node, number, multiple.output[0], 0)

    @tf_op("SelectV2")
    class SelectV2:
        @classmethod
        def version_10(cls, ctx: Any, node: Any, **kwargs: object) -> None:
            node.type = "Where"
