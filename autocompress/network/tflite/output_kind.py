"""What the values of an output are, told by the operator that makes them.

Behind it, operators that change no value's meaning (a RESHAPE, a share of a distribution's columns, a mean of
probabilities) are looked through."""

from __future__ import annotations

from typing import Any

import numpy as np

from autocompress.network.tflite import flatbuffer

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


def kind_of(tree: Any, tensor: int) -> str:
    """One of "integer" (no quantized real numbers), "softmax", "logistic" (or anything else that lies in 0..1 a
    value), "linear" (logits, or real numbers)."""
    made = tree.subgraphs[0].tensors[tensor]
    name = flatbuffer.type_name(made.type)
    if name == "BOOL" or ("INT" in name and quantized_as(made) is None):
        return "integer"
    return _kind(tree, tensor)


def quantized_as(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of a tensor of quantized real numbers; None of any other."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
        return None
    zero = parameters.zeroPoint
    return float(parameters.scale[0]), int(zero[0]) if zero is not None and len(zero) else 0


def _kind(tree: Any, tensor: int) -> str:
    maker = next((op for op in tree.subgraphs[0].operators if tensor in [int(i) for i in op.outputs]), None)
    if maker is None:
        return "linear"
    op, inputs = flatbuffer.op_name(tree, maker), [int(i) for i in maker.inputs if i >= 0]
    if op == "SOFTMAX":
        return "softmax"
    if op in _SHARES or (op == "MUL" and _is_hard_sigmoid(tree, inputs)):
        return "logistic"
    if op not in (*_SAME, *_PARTS):
        return "linear"
    kinds = {_kind(tree, each) for each in inputs if tree.buffers[tree.subgraphs[0].tensors[each].buffer].data is None}
    if len(kinds) != 1:
        return "linear"
    found = kinds.pop()
    return "logistic" if found == "softmax" and op in (*_PARTS, "CONCATENATION") else found


def _is_hard_sigmoid(tree: Any, inputs: list[int]) -> bool:
    """Whether a product is relu6(x + 3) / 6."""
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    constants = [value for each in inputs if (value := flatbuffer.constant(tree, each)) is not None]
    computed = [each for each in inputs if flatbuffer.constant(tree, each) is None]
    if len(constants) != 1 or len(computed) != 1 or not np.allclose(constants[0], 1 / 6, rtol=1e-4):
        return False
    for maker in tree.subgraphs[0].operators:
        if computed[0] in [int(i) for i in maker.outputs]:
            fused = getattr(maker.builtinOptions, "fusedActivationFunction", None)
            return flatbuffer.op_name(tree, maker) == "RELU6" or fused == ActivationFunctionType.RELU6
    return False
