"""What the values of an output are, told by the operator that makes them.

Behind it, operators that change no value's meaning (a RESHAPE, a share of a distribution's columns, a mean of
probabilities) are looked through."""

from __future__ import annotations

import numpy as np

from autocompress.network.tflite.graph import Graph, Tensor

_SAME = (
    "AVERAGE_POOL_2D",
    "CAST",
    "CONCATENATION",
    "DEQUANTIZE",
    "EXPAND_DIMS",
    "MAX_POOL_2D",
    "MEAN",
    "QUANTIZE",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RESHAPE",
    "SQUEEZE",
    "TRANSPOSE",
)
_PARTS = ("GATHER", "SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "UNPACK")  # a column of a distribution: a probability
_SHARES = ("LOGISTIC", "RELU_0_TO_1")


def kind_of(graph: Graph, tensor: int) -> str:
    """One of "integer" (no quantized real numbers), "softmax", "logistic" (or anything else that lies in 0..1 a
    value), "linear" (logits, or real numbers)."""
    made = graph.tensors[tensor]
    if made.type == "BOOL" or ("INT" in made.type and quantized_as(made) is None):
        return "integer"
    return _kind(graph, tensor)


def quantized_as(tensor: Tensor) -> tuple[float, int] | None:
    """Scale and zero point of a tensor of quantized real numbers; None of any other."""
    if tensor.scales is None or len(tensor.scales) != 1:
        return None
    return float(tensor.scales[0]), tensor.zero_point


def _kind(graph: Graph, tensor: int) -> str:
    maker = graph.makers.get(tensor)
    if maker is None:
        return "linear"
    op, inputs = maker.op, [i for i in maker.inputs if i >= 0]
    if op == "SOFTMAX":
        return "softmax"
    if op in _SHARES or (op == "MUL" and _is_hard_sigmoid(graph, inputs)):
        return "logistic"
    if op not in (*_SAME, *_PARTS):
        return "linear"
    kinds = {_kind(graph, each) for each in inputs if graph.tensors[each].data is None}
    if len(kinds) != 1:
        return "linear"
    found = kinds.pop()
    return "logistic" if found == "softmax" and op in (*_PARTS, "CONCATENATION") else found


def _is_hard_sigmoid(graph: Graph, inputs: list[int]) -> bool:
    """Whether a product is relu6(x + 3) / 6."""
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    constants = [value for each in inputs if (value := graph.constant(each)) is not None]
    computed = [each for each in inputs if graph.constant(each) is None]
    if len(constants) != 1 or len(computed) != 1 or not np.allclose(constants[0], 1 / 6, rtol=1e-4):
        return False
    maker = graph.makers.get(computed[0])
    fused = getattr(maker.options, "fusedActivationFunction", None) if maker is not None else None
    return maker is not None and (maker.op == "RELU6" or fused == ActivationFunctionType.RELU6)
