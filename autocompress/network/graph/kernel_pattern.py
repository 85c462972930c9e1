"""What decides the time of a `.tflite`: its kernels, not the values of its weights, unless sparse kernels run."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from autocompress.network.graph import xnnpack_sparse
from autocompress.network.tflite import flatbuffer, sparse
from autocompress.network.tflite.graph import EXPANDING_OPS, INPUTS, Graph, Operator, Tensor, graph_of, graphs_of

_STEPS = 64  # of the share of nonzeros that a sparse kernel multiplies
_FILLED = 0.9  # of the blocks of outputs with a nonzero that must be full for a kernel that takes them together


def kernel_pattern(model: bytes) -> str:
    """SHA-256 of what decides which kernels a runtime takes for a `.tflite` and on what sizes.

    That is the operators with their options, the types, shapes and kinds of quantization of the tensors, and the
    constants that are no weights (axes, paddings, new shapes). Files of one pattern differ in the values of weights,
    biases and scales alone, and dense kernels take the same time for all of these: zeros are multiplied too. Where
    XNNPACK would run sparse kernels, the share of nonzeros of each of their layers counts, in steps of 1/64, and how
    many outputs the kernel takes together. How a weight is stored does not count (DENSIFY runs once, when the file is
    loaded), only whether any is stored sparse. AutocompressError where the bytes are no TFLite file."""
    tree = flatbuffer.read(model)
    stored = graph_of(tree)
    kept = {"sparse": xnnpack_sparse.stores_sparse(stored), "kernels": _sparse_kernels(stored)}
    tensors = len(stored.tensors) - _stored_sparse(stored)
    flatbuffer.densify(tree)
    del tree.subgraphs[0].tensors[tensors:]
    parts = [
        {
            "tensors": [_tensor(t) for t in graph.tensors],
            "operators": [_operator(o) for o in graph.operators],
            "constants": _constants(graph),
        }
        for graph in graphs_of(tree)
    ]
    about = [*parts, kept] if kept["sparse"] else parts
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _stored_sparse(graph: Graph) -> int:
    """How many of the last tensors are constants that DENSIFY reads: a builder's own, which the dense file lacks."""
    tensors = graph.tensors
    return next((n for n, tensor in enumerate(reversed(tensors)) if tensor.sparsity is None), len(tensors))


def _sparse_kernels(graph: Graph) -> dict[str, list[int]]:
    """Of each layer with a sparse kernel: outputs taken together (google/XNNPACK src/operators/convolution-nchw.c) and
    64ths of its weights that are not zero."""
    running = set(xnnpack_sparse.runs_sparse(graph))
    found = {}
    for name, weight in xnnpack_sparse.layer_weights(graph) if running else ():
        if name in running:
            share = np.count_nonzero(weight) / weight.size
            found[name] = [_taken_together(weight), round(_STEPS * share)]
    return found


def _taken_together(weight: Any) -> int:
    for block in sparse.BLOCKS:
        if weight.shape[0] % block == 0:
            kept = weight.reshape(-1, block, weight[0].size) != 0
            filled = np.count_nonzero(kept) / max(1, block * np.count_nonzero(kept.any(axis=1)))
            if filled >= _FILLED:
                return block
    return 1


def _tensor(tensor: Tensor) -> list[Any]:
    return [tensor.type_code, list(tensor.shape), 0 if tensor.scales is None else len(tensor.scales)]


def _operator(operator: Operator) -> list[Any]:
    options = {} if operator.options is None else vars(operator.options)
    plain = {name: np.asarray(value).tolist() for name, value in options.items() if not isinstance(value, bytes)}
    return [operator.op, list(operator.inputs), list(operator.outputs), plain]


def _constants(graph: Graph) -> dict[str, str]:
    """The digest of each constant whose values count, by tensor number."""
    weights = {index for operator in graph.operators for index in _weights(operator)}
    return {
        str(tensor.index): hashlib.sha256(bytes(tensor.data)).hexdigest()
        for tensor in graph.tensors
        if tensor.data is not None and tensor.index not in weights
    }


def _weights(operator: Operator) -> list[int]:
    """The inputs of an operator that hold weights or biases."""
    if operator.op in EXPANDING_OPS:
        return [operator.inputs[0]]
    return [operator.inputs[i] for i in INPUTS.get(operator.op, ())[1:] if i < len(operator.inputs)]
