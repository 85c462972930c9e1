"""What is used of the object tree of a `.tflite`, as the schema's generated Python gives it, unpacked and open to edit.

Names are the schema's. Who only reads takes a `graph.Graph`."""

# ruff: noqa: N802, N815
from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from autocompress.network.tflite.appended import Appended

Indices = Any  # list[int] or an array of int32: numbers of tensors, -1 where an input is left out


class Quantization(Protocol):
    """Of a tensor: one scale and zero point, or one a channel; calibration ranges."""

    scale: Any
    zeroPoint: Any
    min: Any
    max: Any


class TensorTree(Protocol):
    """A tensor; `buffer` 0: it is computed. `type`: a number of TensorType. `isVariable`: it keeps its value."""

    name: bytes | None
    type: int
    shape: Any
    shapeSignature: Any
    buffer: int
    isVariable: bool
    quantization: Quantization | None
    sparsity: Any


class OperatorTree(Protocol):
    """An operator; its options, in one of two unions, are of its kind. `intermediates`: tensors that it keeps."""

    opcodeIndex: int
    inputs: Indices
    outputs: Indices
    intermediates: Any
    builtinOptions: Any
    builtinOptions2: Any


class SubgraphTree(Protocol):
    """The operators of a graph, in the order in which they run."""

    tensors: list[TensorTree]
    operators: list[OperatorTree]
    inputs: Indices
    outputs: Indices


class Buffer(Protocol):
    """The bytes of a constant (uint8); None where there are none."""

    data: np.ndarray[Any, Any] | None


class OperatorCode(Protocol):
    """A kind of operator; files before schema v3a fill only the deprecated number."""

    builtinCode: int
    deprecatedBuiltinCode: int
    customCode: bytes | None


class Metadata(Protocol):
    """A named buffer that is no tensor's."""

    name: bytes | None
    buffer: int


class Port(Protocol):
    """A signature's name of an input or output."""

    name: bytes | None
    tensorIndex: int


class SignatureTree(Protocol):
    """What a subgraph is called, and its inputs and outputs."""

    signatureKey: bytes | None
    subgraphIndex: int
    inputs: list[Port] | None
    outputs: list[Port] | None


class Tree(Protocol):
    """A whole file: `ModelT` of the schema. The main graph is the first; `appended`: the archive behind it."""

    subgraphs: list[SubgraphTree]
    buffers: list[Buffer]
    operatorCodes: list[OperatorCode]
    metadata: list[Metadata] | None
    signatureDefs: list[SignatureTree] | None
    description: bytes | None
    appended: Appended | None

    def Pack(self, builder: Any) -> int:
        """Write it into a flatbuffer; its place there."""
