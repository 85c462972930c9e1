"""Which layers XNNPACK runs with its sparse kernels, and whether a file makes it take them.

XNNPACK keeps activations channel after channel (NCHW) from a 3x3 convolution of stride 2 over 3 channels up to a MEAN
over height and width, where every operator between them can; 1x1 convolutions there multiply nonzeros alone. It does so
for a file with weights stored sparse (DENSIFY) and with more than two thirds of zeros over all these convolutions
(google/XNNPACK src/subgraph.c, xnn_check_nchw_compatibility and xnn_subgraph_rewrite_for_nchw). Processors with AVX
never do: XNNPACK takes its dense kernels for faster there (src/xnnpack/hardware-config.h,
xnn_is_chw_compatible_config)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.network.tflite.graph import Graph, Operator

Array = np.ndarray[Any, Any]
_UNARY = (
    "ABS",
    "CEIL",
    "ELU",
    "FLOOR",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "ROUND",
    "SQUARE",
)
_BINARY = ("ADD", "MUL")
_PADDED = {3: 1, 5: 2}  # kernel of a depthwise convolution -> padding on each side


@dataclass(frozen=True, kw_only=True)
class SparsePath:
    """What XNNPACK's sparse path takes of a network. `layers`: names of the 1x1 convolutions on it, in order, none
    where it takes none; `dense`: of layers behind it whose zeros some versions count too. `reason`: why it takes none.
    `begins`: whether the network has the first convolution of such a path."""

    layers: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    reason: str | None = None
    begins: bool = False


class _NotTakenError(Exception):
    """The path cannot be taken."""


def sparse_path(graph: Graph) -> SparsePath:
    """The sparse path of a network, float or with weights stored otherwise (DEQUANTIZE, DENSIFY)."""
    walk = _Walk(graph)
    try:
        walk.run()
    except _NotTakenError as refusal:
        return SparsePath(reason=str(refusal), begins=walk.begins)
    return SparsePath(layers=tuple(walk.layers), dense=tuple(walk.dense), begins=True)


def runs_sparse(graph: Graph) -> tuple[str, ...]:
    """The layers of a file that XNNPACK runs with sparse kernels, on a processor where it has them: those of the path,
    where some weight of the network is stored sparse and zeros are more than two thirds."""
    if not stores_sparse(graph):
        return ()
    path = sparse_path(graph)
    return path.layers if path.layers and enough_zeros(graph, path) else ()


def stores_sparse(graph: Graph) -> bool:
    """Whether a constant is stored sparse."""
    return any(tensor.sparsity is not None for tensor in graph.tensors)


def enough_zeros(graph: Graph, path: SparsePath) -> bool:
    """Whether zeros are strictly more than two thirds, over the path's 1x1 convolutions and with what some versions
    count beside them."""
    weights = dict(layer_weights(graph))
    found = np.array([(np.count_nonzero(weights[n] == 0), weights[n].size) for n in (*path.layers, *path.dense)])
    zeros, sizes = found.cumsum(axis=0).T
    checked = [len(path.layers) - 1, len(found) - 1]
    return bool((zeros[checked] * 3 > sizes[checked] * 2).all())


def layer_weights(graph: Graph) -> Iterator[tuple[str, Array]]:
    """Name and stored weight, dense, of each layer whose weight is a constant."""
    for operator, stored in graph.weighted:
        if (weight := graph.constant(stored)) is not None:
            yield operator.name, weight


class _Walk:
    """One walk over the operators in order. `inside`: tensors that are kept in NCHW, and the kernel width of a padding
    that only a depthwise convolution may read (0: any operator may)."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._readers = Counter(i for operator in graph.operators for i in operator.inputs)
        self._readers.update(graph.outputs)
        self._inside: dict[int, int] = {}
        self._left: set[int] = set()  # outputs of a MEAN
        self._open = Counter[int]()  # readers of an inside tensor that were not met yet
        self.begins = False
        self.layers: list[str] = []
        self.dense: list[str] = []

    def run(self) -> None:
        """Walk; _NotTakenError where no sparse path results."""
        for operator in self._graph.operators:
            if self._is_stem(operator):
                self.begins = True
                self._enter(operator)
            elif not self._inside.keys().isdisjoint(operator.inputs):
                self._step(operator)
            elif not self._left.isdisjoint(operator.inputs):
                self._behind(operator)
        if not self.begins:
            raise _NotTakenError("no 3x3 convolution of stride 2 over 3 channels, padded by a PAD of 1 on each side")
        if any(self._open.values()):
            raise _NotTakenError("an output of the network is inside the sparse path")
        if not self.layers or not self._left:
            raise _NotTakenError("no 1x1 convolutions, or no MEAN over height and width behind them")

    def _enter(self, operator: Operator, only: int = 0) -> None:
        for index in operator.inputs:
            if index in self._inside:
                self._open[index] -= 1
        out = operator.outputs[0]
        self._inside[out] = only
        self._open[out] = self._readers[out]

    def _step(self, operator: Operator) -> None:
        name, op = operator.name, operator.op
        computed = [i for i in operator.inputs if i >= 0 and self._constant(i) is None]
        padding = max(self._inside.get(i, 0) for i in computed)
        if not all(i in self._inside for i in computed) or not self._is_float(operator):
            raise _NotTakenError(f"{name} mixes what is inside and outside of the sparse path, or is not float")
        if (op == "MEAN" and not padding and self._is_spatial(operator)) or (op == "DEPTH_TO_SPACE" and not padding):
            self._leave(operator)
        elif op == "PAD" and not padding:
            self._enter(operator, only=self._padding(operator))
        elif self._fits(operator, padding):
            if op == "CONV_2D":
                self.layers.append(name)
            self._enter(operator)
        else:
            raise _NotTakenError(f"{name} has no sparse kernel")

    def _leave(self, operator: Operator) -> None:
        self._open[operator.inputs[0]] -= 1
        self._left.add(operator.outputs[0])

    def _behind(self, operator: Operator) -> None:
        # What could stay in NCHW does, although nothing leads it back: ai-edge-litert 2.3 then fails to load the file.
        if operator.op == "FULLY_CONNECTED":
            self.dense.append(operator.name)
        elif operator.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "PAD", "RESIZE_BILINEAR", *_UNARY, *_BINARY):
            raise _NotTakenError(f"{operator.name} behind the MEAN would stay in NCHW, and no operator leads it back")

    def _fits(self, operator: Operator, padding: int) -> bool:
        op = operator.op
        if op == "CONV_2D":
            return not padding and self._is_pointwise(operator)
        if op == "DEPTHWISE_CONV_2D":
            return self._is_depthwise(operator, padding)
        four = all(len(self._graph.tensors[i].shape) == 4 for i in operator.inputs)
        if op == "RESIZE_BILINEAR":
            return not padding and min(self._graph.tensors[operator.outputs[0]].shape[1:3]) > 1
        return not padding and four and (op in _UNARY or op in _BINARY)

    def _is_float(self, operator: Operator) -> bool:
        names = {self._graph.tensors[i].type for i in (*operator.inputs, *operator.outputs)}
        return names.isdisjoint(("INT8", "UINT8", "INT16", "INT4"))

    def _is_stem(self, operator: Operator) -> bool:
        before = self._graph.makers.get(operator.inputs[0]) if operator.op == "CONV_2D" else None
        if before is None:
            return False
        shape = self._shape(operator)
        if shape[1:] != (3, 3, 3) or not self._steps(operator, 2) or not self._is_float(operator):
            return False
        fused = before.op == "PAD" and self._readers[operator.inputs[0]] == 1
        return fused and _is_valid(operator) and self._pads(before) == 1

    def _shape(self, operator: Operator) -> tuple[int, ...]:
        return self._graph.tensors[operator.inputs[1]].shape

    def _channels(self, operator: Operator) -> int:
        return self._graph.tensors[operator.inputs[0]].shape[-1]

    def _constant(self, index: int) -> Array | None:
        """The stored values behind a tensor and the operators that only expand them; None where it is computed."""
        stored = self._graph.stored(index)
        return None if stored is None else self._graph.constant(stored)

    def _steps(self, operator: Operator, *strides: int) -> bool:
        """Whether the strides are one of these, in both directions, without dilation."""
        options = operator.options
        plain = options.dilationHFactor == options.dilationWFactor == 1
        return bool(plain and options.strideH == options.strideW and options.strideH in strides)

    def _is_pointwise(self, operator: Operator) -> bool:
        return self._shape(operator)[1:] == (1, 1, self._channels(operator)) and self._steps(operator, 1)

    def _is_depthwise(self, operator: Operator, padding: int) -> bool:
        shape, (_, high, wide) = self._shape(operator), self._shape(operator)[:3]
        if (
            high != wide
            or high not in _PADDED
            or shape[3] != self._channels(operator)
            or not self._steps(operator, 1, 2)
        ):
            return False
        if _is_valid(operator):
            return padding == _PADDED[high]
        return not padding and self._steps(operator, 1)  # SAME with a stride is padded on one side more

    def _is_spatial(self, operator: Operator) -> bool:
        axes = self._constant(operator.inputs[1])
        rank = len(self._graph.tensors[operator.inputs[0]].shape)
        return axes is not None and rank == 4 and sorted(int(a) % 4 for a in axes.reshape(-1)) == [1, 2]

    def _padding(self, operator: Operator) -> int:
        if not (found := self._pads(operator)) or self._readers[operator.outputs[0]] != 1:
            raise _NotTakenError(f"{operator.name} does not pad height and width evenly for one convolution")
        return found

    def _pads(self, operator: Operator) -> int:
        """What a PAD adds on each side of height and width; 0 where it does other things."""
        wide = self._constant(operator.inputs[1])
        if wide is None or wide.shape != (4, 2) or wide[[0, 3]].any() or len(set(wide[1:3].reshape(-1).tolist())) != 1:
            return 0
        return int(wide[1, 0])


def _is_valid(operator: Operator) -> bool:
    from ai_edge_litert.schema_py_generated import Padding

    return bool(operator.options.padding == Padding.VALID)
