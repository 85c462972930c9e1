"""Sparse storage of a candidate's weights: where it makes the file smaller, and where sparse kernels need it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.download import coded_bytes, deflated_bytes, download_bytes
from autocompress.compression.template import stored_weight
from autocompress.network.graph import xnnpack_sparse
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite import flatbuffer, sparse
from autocompress.network.tflite.graph import Graph, read_graph
from autocompress.network.tflite.tree import Tree

Array = np.ndarray[Any, Any]
SizeOf = Callable[[bytes], int]
SIZES: dict[str, SizeOf] = {"download": download_bytes, "file": len}
_AROUND = 120  # bytes of tables that a DENSIFY and its tensor bring along, before deflating
_LEAST_ZEROS = 0.25  # of a weight that may be worth it


@dataclass(frozen=True, kw_only=True)
class SparseStorage:
    """How weights may be stored: sparse in containers of these bits, by activations; `size` is what shall be small,
    "download" or "file"."""

    sparse: Callable[[str], Collection[int]]
    size: str = "download"


def with_sparse_weights(model: bytes, layers: Sequence[Layer], legal: Collection[str], size: str) -> bytes:
    """The file with weights stored sparse, or as it is where that gains nothing. `layers` are those of the float
    network, `legal` the containers (FLOAT32, ...) that DENSIFY runs for, `size` what shall be small: "download" or
    "file".

    Where XNNPACK would run the file with sparse kernels, all layers of that path are stored sparse; where it would
    begin such a path and fail (`sparse_kernels`), none is. Outputs are those of `model`."""
    graph = read_graph(model)
    path = xnnpack_sparse.sparse_path(graph)
    if path.begins and not path.layers:
        return model
    found = {layer.name: weight for layer in layers if (weight := _sparse_weight(graph, layer, legal)) is not None}
    sparse_run = set(path.layers) if path.layers and xnnpack_sparse.enough_zeros(graph, path) else set()
    needed = {name: at for name, at in found.items() if name in sparse_run}
    smaller = {name: at for name, at in found.items() if name in needed or _gain(graph, at, size) > 0}
    best = _stored(model, needed) if needed else model
    if len(smaller) > len(needed):
        best = min(best, _stored(model, smaller), key=SIZES[size])
    return best


def _sparse_weight(graph: Graph, layer: Layer, legal: Collection[str]) -> int | None:
    """The tensor of a layer's weight; None where it cannot be stored sparse or has too few zeros."""
    index = stored_weight(graph, layer)
    if graph.tensors[index].type not in legal:
        return None
    values = graph.constant(index)
    assert values is not None
    # A buffer without any value is no constant to the runtimes.
    return index if _LEAST_ZEROS * values.size <= np.count_nonzero(values == 0) < values.size else None


def _gain(graph: Graph, index: int, size: str) -> int:
    """How many bytes sparse storage of a tensor would save."""
    values = graph.constant(index)
    assert values is not None
    return _bytes(size, [values], deflated_bytes) - _bytes(size, _parts(values), deflated_bytes) - _around(size)


def sparse_bytes(values: Array, size: str) -> int:
    """What a weight (O, ..., I) adds to a file or, by the quick count, to a download where it is stored as is
    smaller."""
    return min(_bytes(size, [values], coded_bytes), _bytes(size, _parts(values), coded_bytes) + _around(size))


def _around(size: str) -> int:
    return _AROUND if size == "file" else _AROUND // 2


def _parts(values: Array) -> list[Array]:
    stored, parameters = sparse.encode(values, sparse.widest_block(values))
    rows = next(each for each in parameters.dimMetadata if each.arraySegments is not None)
    return [stored, rows.arraySegments.values, rows.arrayIndices.values]


def _bytes(size: str, parts: Sequence[Array], packed: Callable[[bytes], int]) -> int:
    content = [np.ascontiguousarray(part).tobytes() for part in parts]
    return sum(map(len if size == "file" else packed, content))


def _stored(model: bytes, tensors: dict[str, int]) -> bytes:
    """The file with these tensors stored sparse. The sparse constant is a new tensor, the last; the old one is what
    DENSIFY makes of it, so no other index moves."""
    from ai_edge_litert.schema_py_generated import BuiltinOptions, DensifyOptionsT, OperatorT

    tree = flatbuffer.read(model)
    graph, code = tree.subgraphs[0], _densify_code(tree)
    for index in tensors.values():
        values, dense = flatbuffer.constant(tree, index), graph.tensors[index]
        assert values is not None
        stored, parameters = sparse.encode(values, sparse.widest_block(values))
        source = copy.copy(dense)
        source.sparsity = parameters
        graph.tensors.append(source)
        dense.buffer = 0
        flatbuffer.set_constant(tree, len(graph.tensors) - 1, stored)
        operator = OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, [len(graph.tensors) - 1], [index]
        operator.builtinOptions, operator.builtinOptionsType = DensifyOptionsT(), BuiltinOptions.DensifyOptions
        graph.operators.insert(0, operator)
    return flatbuffer.write(tree)


def _densify_code(tree: Tree) -> int:
    from ai_edge_litert.schema_py_generated import BuiltinOperator, OperatorCodeT

    made = OperatorCodeT()
    made.builtinCode = made.deprecatedBuiltinCode = BuiltinOperator.DENSIFY
    made.version = 1
    tree.operatorCodes.append(made)
    return len(tree.operatorCodes) - 1
