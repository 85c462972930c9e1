"""A graph of a `.tflite` as the rest of the package reads it: named operators, tensors, and the constants behind them.

It is a look at an object tree (`tree.Tree`) as it stood: who edits the tree looks again. No constant is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.tree import OperatorTree, TensorTree, Tree

Array = np.ndarray[Any, Any]
LAYER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Positions of input, weight and bias among an operator's inputs, and the axis of the weight that counts outputs.
INPUTS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
OUTPUT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
EXPANDING_OPS = ("DEQUANTIZE", "DENSIFY")  # of a constant: it is a weight that is stored otherwise


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Tensor:
    """A tensor. `name` is "" where the file gives none; `type_code` a number of the schema's TensorType; `data` the
    bytes of a constant (uint8), None of what is computed; `scales` and the first `zero_point` of its quantization, None
    and 0 without any; `sparsity`: how a constant that is stored sparse is (the schema's), None for all others;
    `variable`: whether it keeps its value from one call to the next."""

    index: int
    name: str
    type_code: int
    shape: tuple[int, ...]
    data: Array | None
    scales: Array | None
    zero_point: int
    sparsity: Any
    variable: bool

    @property
    def type(self) -> str:
        """The schema's name of its type (FLOAT32, INT8, ...)."""
        return flatbuffer.type_name(self.type_code)

    @property
    def value(self) -> Array | None:
        """The value of a constant, shaped, read-only, dense; None of what is computed, or of a type that NumPy lacks
        (packed 4-bit, strings)."""
        return flatbuffer.decoded(self.data, self.type_code, self.shape, self.sparsity)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Operator:
    """An operator: the `number`-th of its kind `op`, at `position` among all. `inputs` and `outputs` are tensors, -1
    an input that is left out; `options` as the schema has them for this kind, None without any."""

    op: str
    number: int
    position: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    @property
    def name(self) -> str:
        """As a configuration names layers: conv_2d_0."""
        return f"{self.op.lower()}_{self.number}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A graph: its tensors, its operators in the order in which they run, and which tensors it is given and gives."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def constant(self, index: int) -> Array | None:
        """The value of tensor `index` as `Tensor.value` gives it; None also where an input is left out (-1)."""
        return None if index < 0 else self.tensors[index].value

    def integers(self, index: int) -> list[int] | None:
        """A constant of integers (axes, a shape, paddings), flat; None where it is computed."""
        value = self.constant(index)
        return None if value is None else [int(n) for n in value.reshape(-1)]

    def stored(self, index: int) -> int | None:
        """The constant that tensor `index` is, or that operators which only expand it turn into it; None where it is
        computed."""
        while index >= 0 and self.tensors[index].data is None:
            maker = self.makers.get(index)
            index = maker.inputs[0] if maker is not None and maker.op in EXPANDING_OPS and maker.inputs else -1
        return index if index >= 0 else None

    @cached_property
    def makers(self) -> dict[int, Operator]:
        """The operator that makes each computed tensor."""
        return {index: operator for operator in self.operators for index in operator.outputs}

    @cached_property
    def named(self) -> dict[str, Operator]:
        """Each operator by its name."""
        return {operator.name: operator for operator in self.operators}

    @cached_property
    def weighted(self) -> tuple[tuple[Operator, int], ...]:
        """The layers of a file, quantized or not: each operator with a weight and the constant that this is stored as,
        in order."""
        found = []
        for operator in self.operators:
            if operator.op in LAYER_OPS and len(operator.inputs) > max(INPUTS[operator.op][:2]):
                weight = self.stored(operator.inputs[INPUTS[operator.op][1]])
                if weight is not None:
                    found.append((operator, weight))
        return tuple(found)

    @cached_property
    def computed(self) -> frozenset[int]:
        """What the graph is given and what its operators make; every other tensor is a constant or a variable."""
        return frozenset(self.makers) | frozenset(self.inputs)

    @cached_property
    def fixed(self) -> frozenset[int]:
        """The computed tensors that depend on no value of the inputs: on shapes and constants alone."""
        moving, found = set(self.computed), set[int]()
        for operator in self.operators:
            if operator.op in ("SHAPE", "RANK") or moving.isdisjoint(operator.inputs):
                moving -= set(operator.outputs)
                found |= set(operator.outputs)
        return frozenset(found)


def read_graph(model: bytes) -> Graph:
    """The main graph of a `.tflite`; AutocompressError where the bytes are no whole TFLite file."""
    return graph_of(flatbuffer.read(model))


def graphs_of(tree: Tree) -> tuple[Graph, ...]:
    """All graphs of a file, the main one first."""
    return tuple(graph_of(tree, number) for number in range(len(tree.subgraphs)))


def graph_of(tree: Tree, number: int = 0) -> Graph:
    """Graph `number` of an object tree as it stands."""
    graph = tree.subgraphs[number]
    return Graph(
        tensors=tuple(_tensor(tree, index, tensor) for index, tensor in enumerate(graph.tensors)),
        operators=_operators(tree, graph.operators),
        inputs=_indices(graph.inputs),
        outputs=_indices(graph.outputs),
    )


def _tensor(tree: Tree, index: int, tensor: TensorTree) -> Tensor:
    quantization = tensor.quantization
    scales, zeros = (None, None) if quantization is None else (quantization.scale, quantization.zeroPoint)
    return Tensor(
        index=index,
        name=(tensor.name or b"").decode(errors="replace"),
        type_code=tensor.type,
        shape=_indices(tensor.shape),
        data=tree.buffers[tensor.buffer].data,
        scales=None if scales is None or not len(scales) else np.asarray(scales),
        zero_point=0 if zeros is None or not len(zeros) else int(zeros[0]),
        sparsity=tensor.sparsity,
        variable=bool(tensor.isVariable),
    )


def _operators(tree: Tree, operators: Sequence[OperatorTree]) -> tuple[Operator, ...]:
    counts, found = Counter[str](), []
    for position, operator in enumerate(operators):
        op = flatbuffer.op_name(tree, operator)
        found.append(
            Operator(
                op=op,
                number=counts[op],
                position=position,
                inputs=_indices(operator.inputs),
                outputs=_indices(operator.outputs),
                options=operator.builtinOptions,
            )
        )
        counts[op] += 1
    return tuple(found)


def _indices(values: Any) -> tuple[int, ...]:
    return tuple(values.tolist() if isinstance(values, np.ndarray) else map(int, values))
