"""A change to the graph of an exported model before it is compiled, for speed alone."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

__all__ = ["with_planar_softmax"]


def with_planar_softmax(network: Any) -> Any:
    """Let the last softmax of an OpenVINO model run over planes, one per class.

    Over the last axis, with a handful of classes, its kernel takes a tenth of a light
    network's time; transposed there and back, a quarter of that.

    Args:
        network: The ``openvino.Model``, changed in place.

    Returns:
        The same model.
    """
    found = [op for op in network.get_ordered_ops() if op.get_type_name() == "Softmax"]
    if len(found) != 1:
        return network
    (softmax,) = found
    logits = softmax.input(0).get_source_output()
    rank = len(logits.get_partial_shape())
    if softmax.get_attributes().get("axis") not in (-1, rank - 1):
        return network
    ops = importlib.import_module("openvino.opset13")

    def transposed(value: Any, order: list[int]) -> Any:
        return ops.transpose(value, ops.constant(np.array(order, np.int64)))

    planes = ops.softmax(transposed(logits, [0, rank - 1, *range(1, rank - 1)]), 1)
    back = transposed(planes, [0, *range(2, rank), 1])
    names = softmax.output(0).get_names()
    softmax.output(0).replace(back.output(0))
    back.output(0).set_names(names)
    network.validate_nodes_and_infer_types()
    return network
