"""The operators of a `.tflite`, as far as latency depends on them, read in place from the flatbuffer.

A DEQUANTIZE or DENSIFY of a constant is done once, when the file is loaded: it is no operator here, and the layer
behind it reads the expanded weights. So a float16 file costs what its float32 twin costs, as it does on CPUs
without float16 arithmetic."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.network.tflite.graph import EXPANDING_OPS, LAYER_OPS

DENSE_OPS = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
UNKNOWN_OP = "UNKNOWN"
_COUNTED_INPUTS = {"CONV_2D": 2, "FULLY_CONNECTED": 2, "DEPTHWISE_CONV_2D": 2, "TRANSPOSE_CONV": 3}  # 1 else
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
BITS = {
    "FLOAT32": 32,
    "FLOAT16": 16,
    "BFLOAT16": 16,
    "FLOAT64": 64,
    "INT2": 2,
    "INT4": 4,
    "INT8": 8,
    "UINT8": 8,
    "INT16": 16,
    "UINT16": 16,
    "INT32": 32,
    "UINT32": 32,
    "INT64": 64,
    "UINT64": 64,
    "BOOL": 8,
    "COMPLEX64": 64,
    "COMPLEX128": 128,
}


@dataclass(frozen=True)
class Tensor:
    """Type (as the schema names it) and shape, an unknown dimension as 1. No type and (0,): an input left out."""

    kind: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of all values as they are stored."""
        return self.elements * BITS.get(self.kind, 0)


NO_TENSOR = Tensor("", (0,))


@dataclass(frozen=True)
class Operator:
    """One operator of the main graph: its schema name, its inputs in order up to the last that latency depends on
    (weight and activation; no bias, no second operand), and its first output. `window`: the positions that a pooling
    looks at, 1 for other operators."""

    op: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    window: int = 1

    @property
    def first(self) -> Tensor:
        """The first activation input; of a TRANSPOSE_CONV the first input is its output shape."""
        position = 2 if self.op == "TRANSPOSE_CONV" else 0
        return self.inputs[position] if len(self.inputs) > position else NO_TENSOR

    @property
    def is_layer(self) -> bool:
        """Whether it has weights."""
        return self.op in LAYER_OPS

    @property
    def weight(self) -> Tensor:
        """The weight of a layer."""
        return self.inputs[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a layer, of one inference; 0 for other operators."""
        if self.op == "TRANSPOSE_CONV":  # each input value meets each output channel at each kernel position
            return self.first.elements * math.prod(self.weight.shape[:-1])
        if self.op == "DEPTHWISE_CONV_2D":
            return self.output.elements * math.prod(self.weight.shape[1:3])
        return self.output.elements * math.prod(self.weight.shape[1:]) if self.is_layer else 0


def operators(model: bytes) -> tuple[Operator, ...]:
    """The operators of the main graph that run at each inference, in order.

    AutocompressError where the bytes are no whole TFLite file."""
    if bytes(model[4:8]) != b"TFL3":
        raise AutocompressError("the model is not a TFLite file (no identifier TFL3); give a .tflite")
    try:
        return tuple(_Reader(model).read())
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as fault:
        raise AutocompressError(
            f"the TFLite file is truncated or damaged ({type(fault).__name__}); copy it again"
        ) from fault


def least_memory_bytes(model: bytes) -> int:
    """What running a `.tflite` takes at least: weights, input and output of its largest layer.

    AutocompressError where the bytes are no whole TFLite file."""
    layers = (each for each in operators(model) if each.is_layer)
    return max((each.first.bits + each.weight.bits + each.output.bits for each in layers), default=0) // 8


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    """Numbers of an enumeration of the schema to names."""
    from ai_edge_litert import schema_py_generated

    entries = vars(getattr(schema_py_generated, enumeration)).items()
    return {number: name for name, number in entries if isinstance(number, int)}


class _Reader:
    """Reads the main graph through the accessors of the schema: no object tree, no copy of a weight."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert.schema_py_generated import Model

        self.model = Model.GetRootAs(model, 0)
        if self.model.SubgraphsLength() == 0:
            raise AutocompressError("the TFLite file has no graph; give a whole network")
        self.graph = self.model.Subgraphs(0)
        codes = map(self.model.OperatorCodes, range(self.model.OperatorCodesLength()))
        self.ops = [_names("BuiltinOperator").get(_builtin_code(code), UNKNOWN_OP) for code in codes]
        self.types = _names("TensorType")
        self.tensors: dict[int, Tensor] = {-1: NO_TENSOR}

    def read(self) -> list[Operator]:
        """All operators but those of constants."""
        found = []
        for operator in map(self.graph.Operators, range(self.graph.OperatorsLength())):
            op = self.ops[operator.OpcodeIndex()]
            inputs = _integers(operator.InputsAsNumpy())
            output = operator.Outputs(0) if operator.OutputsLength() else -1
            if not (op in EXPANDING_OPS and self._is_constant(inputs[0])):
                window = _window(operator) if op in _POOLS else 1
                found.append(self._operator(op, inputs, output, window))
        return found

    def _operator(self, op: str, inputs: list[int], output: int, window: int) -> Operator:
        counted = inputs[: _COUNTED_INPUTS.get(op, 1)]
        made = Operator(op, tuple(map(self._tensor, counted)), self._tensor(output), window)
        if op in LAYER_OPS and (len(inputs) < 2 or len(made.weight.shape) < 2):
            raise ValueError(f"{op} without a weight")
        return made

    def _tensor(self, index: int) -> Tensor:
        index = max(index, -1)
        if index not in self.tensors:
            tensor = self.graph.Tensors(index)
            shape = tuple(map(abs, _integers(tensor.ShapeAsNumpy())))
            self.tensors[index] = Tensor(self.types.get(tensor.Type(), ""), shape)
        return self.tensors[index]

    def _is_constant(self, index: int) -> bool:
        buffer = self.model.Buffers(self.graph.Tensors(index).Buffer())
        return bool(buffer.DataLength() > 0 or buffer.Offset() > 1)  # Offset: data behind the flatbuffer


def _integers(vector: Any) -> list[int]:
    """A vector of a flatbuffer; the accessors give 0 where there is none."""
    return vector.tolist() if isinstance(vector, np.ndarray) else []


def _window(operator: Any) -> int:
    from ai_edge_litert.schema_py_generated import BuiltinOptions, Pool2DOptions

    if operator.BuiltinOptionsType() != BuiltinOptions.Pool2DOptions:
        return 1
    table, options = operator.BuiltinOptions(), Pool2DOptions()
    options.Init(table.Bytes, table.Pos)
    return max(1, int(options.FilterHeight()) * int(options.FilterWidth()))


def _builtin_code(code: Any) -> int:
    return max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))  # old files fill only the latter
