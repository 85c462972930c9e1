"""What a TFLite file must hold to be worked on; a damaged or cut-off one does not."""

from __future__ import annotations

from typing import Any

import numpy as np

from autocompress.network.tflite import sparse
from autocompress.network.tflite.tree import SubgraphTree, TensorTree, Tree


def numpy_dtype(tensor_type: int) -> np.dtype[Any] | None:
    """NumPy's dtype of a TFLite tensor type, None where there is none (strings, packed 4-bit, ...)."""
    from ai_edge_litert.schema_py_generated import TensorType as T

    types = {
        T.FLOAT32: np.float32,
        T.FLOAT16: np.float16,
        T.FLOAT64: np.float64,
        T.INT8: np.int8,
        T.UINT8: np.uint8,
        T.INT16: np.int16,
        T.INT32: np.int32,
        T.INT64: np.int64,
        T.BOOL: np.bool_,
    }
    return np.dtype(types[tensor_type]) if tensor_type in types else None


def fill_missing(tree: Tree) -> None:
    """Vectors that the file leaves out (the shape of a scalar, the inputs of an operator) become empty ones."""
    for graph in tree.subgraphs or []:
        for name in ("tensors", "operators", "inputs", "outputs"):
            _fill(graph, name)
        for tensor in graph.tensors:
            _fill(tensor, "shape")
        for operator in graph.operators:
            _fill(operator, "inputs")
            _fill(operator, "outputs")


def _fill(holder: Any, name: str) -> None:
    if getattr(holder, name) is None:
        setattr(holder, name, [])


def check_whole(tree: Tree) -> None:
    """ValueError where an index points to nothing or a constant holds other than the bytes its shape asks for."""
    for graph in tree.subgraphs:
        _check_indices(tree, graph)
        for tensor in graph.tensors:
            _check_constant(tree.buffers[tensor.buffer].data, tensor)
    _within((m.buffer for m in tree.metadata or []), len(tree.buffers), "buffer of the metadata")


def _check_indices(tree: Tree, graph: SubgraphTree) -> None:
    tensors = len(graph.tensors)
    _within((t.buffer for t in graph.tensors), len(tree.buffers), "buffer of a tensor")
    _within((*graph.inputs, *graph.outputs), tensors, "input or output")
    for operator in graph.operators:
        _within([operator.opcodeIndex], len(tree.operatorCodes), "operator code")
        _within((i for i in operator.inputs if i != -1), tensors, "operator's input")  # -1: left out
        _within(operator.outputs, tensors, "operator's output")


def _within(indices: Any, size: int, what: str) -> None:
    for index in indices:
        if not 0 <= index < size:
            raise ValueError(f"{what} {index} of {size}")


def _check_constant(data: Any, tensor: TensorTree) -> None:
    width = numpy_dtype(tensor.type)
    if data is None or width is None:
        return
    if any(size < 0 for size in tensor.shape):
        raise ValueError(f"constant of shape {list(tensor.shape)}")
    if tensor.sparsity is not None:
        sparse.decode(tensor.sparsity, np.frombuffer(bytes(data), width), tuple(int(n) for n in tensor.shape))
        return
    expected = int(np.prod(tensor.shape, dtype=np.int64)) * width.itemsize
    if len(data) != expected:
        raise ValueError(f"constant of {len(data)} bytes where its shape needs {expected}")
