"""What decides the time of a `.tflite`: its kernels, not the values of its weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from autocompress.network import flatbuffer
from autocompress.network.layers import EXPANDING_OPS, INPUTS


def kernel_pattern(model: bytes) -> str:
    """SHA-256 of what decides which kernels a runtime takes for a `.tflite` and on what sizes.

    That is the operators with their options, the types, shapes and kinds of quantization of the tensors, and the
    constants that are no weights (axes, paddings, new shapes). Files of one pattern differ in the values of weights,
    biases and scales alone, and dense kernels take the same time for all of these: zeros are multiplied too. Weights
    that are stored sparse count with their values. AutocompressError where the bytes are no TFLite file."""
    tree = flatbuffer.read(model)
    parts = [
        {"tensors": [_tensor(t) for t in graph.tensors], "operators": [_operator(tree, o) for o in graph.operators],
         "constants": _constants(tree, graph)}
        for graph in tree.subgraphs
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _tensor(tensor: Any) -> list[Any]:
    scales = getattr(tensor.quantization, "scale", None)
    return [int(tensor.type), np.asarray(tensor.shape).tolist(), 0 if scales is None else len(scales)]


def _operator(tree: Any, operator: Any) -> list[Any]:
    options = {} if operator.builtinOptions is None else vars(operator.builtinOptions)
    plain = {name: np.asarray(value).tolist() for name, value in options.items() if not isinstance(value, bytes)}
    inputs, outputs = (np.asarray(tensors).tolist() for tensors in (operator.inputs, operator.outputs))
    return [flatbuffer.op_name(tree, operator), inputs, outputs, plain]


def _constants(tree: Any, graph: Any) -> dict[str, str]:
    """The digest of each constant whose values count, by tensor number."""
    weights = {int(i) for operator in graph.operators for i in _weights(flatbuffer.op_name(tree, operator), operator)}
    found = {}
    for index, tensor in enumerate(graph.tensors):
        data = tree.buffers[tensor.buffer].data
        if data is not None and (index not in weights or tensor.sparsity is not None):
            found[str(index)] = hashlib.sha256(bytes(data)).hexdigest()
    return found


def _weights(op: str, operator: Any) -> list[int]:
    """The inputs of an operator that hold weights or biases."""
    if op in EXPANDING_OPS:
        return [operator.inputs[0]]
    return [operator.inputs[i] for i in INPUTS.get(op, ())[1:] if i < len(operator.inputs)]
