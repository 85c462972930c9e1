"""The layers of a network: operators with a constant weight, their geometry and their place in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.network.tflite.graph import INPUTS, LAYER_OPS, OUTPUT_AXIS, Graph, Operator

_RANKS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 4}  # of the weight
_OPTIONS = {
    "CONV_2D": "Conv2DOptionsT",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptionsT",
    "TRANSPOSE_CONV": "TransposeConvOptionsT",
}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a convolution walks over its input; (1, 1) and no padding for a fully connected layer."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same_padding: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer. `operator`, `input`, `weight`, `bias`, `output` are indices into the main graph of the float network;
    `shape` is the weight's. `macs` are of one sample."""

    name: str
    op: str
    tensor_name: str
    operator: int
    input: int
    weight: int
    bias: int | None
    output: int
    shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    geometry: Geometry
    macs: int

    @property
    def number(self) -> int:
        """Its index among the operators of its kind: rewriting a network may insert others, but keeps their order."""
        return int(self.name.rsplit("_", 1)[1])

    @property
    def weights(self) -> int:
        """Number of weights, the bias not counted."""
        return math.prod(self.shape)

    @property
    def output_axis(self) -> int:
        """The axis of the weight that counts output channels: each has a scale of its own."""
        return OUTPUT_AXIS[self.op]

    @property
    def takes_two_of_four(self) -> bool:
        """Whether its inputs are whole fours, of an op that devices run with two zeros in each of them."""
        return self.op in ("CONV_2D", "FULLY_CONNECTED") and self.shape[-1] % 4 == 0

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[self.output_axis]


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """All layers of a float network's graph in flatbuffer order; AutocompressError where there is none."""
    found = tuple(_layer(graph, operator) for operator, weight in graph.weighted if _is_own(graph, operator, weight))
    if not found:
        raise AutocompressError(
            f"the network has no layer to compress (an op of {', '.join(LAYER_OPS)} with constant float32 weights)"
        )
    return found


def _is_own(graph: Graph, operator: Operator, weight: int) -> bool:
    """Whether the weight is float32, of the operator's rank, and stored as it is."""
    options = operator.op == "FULLY_CONNECTED" or type(operator.options).__name__ == _OPTIONS[operator.op]
    if not operator.outputs or not options:
        return False  # malformed: the runtime says why it refuses it
    tensor = graph.tensors[weight]
    fits = tensor.type == "FLOAT32" and len(tensor.shape) == _RANKS[operator.op]
    return fits and weight == operator.inputs[INPUTS[operator.op][1]]


def _layer(graph: Graph, operator: Operator) -> Layer:
    tensors, op = graph.tensors, operator.op
    at_input, at_weight, at_bias = INPUTS[op]
    inputs, output = operator.inputs, operator.outputs[0]
    bias = inputs[at_bias] if len(inputs) > at_bias else -1
    shape = tensors[inputs[at_weight]].shape
    input_shape, output_shape = tensors[inputs[at_input]].shape, tensors[output].shape
    return Layer(
        name=operator.name,
        op=op,
        tensor_name=tensors[output].name,
        operator=operator.position,
        input=inputs[at_input],
        weight=inputs[at_weight],
        bias=bias if graph.constant(bias) is not None else None,
        output=output,
        shape=shape,
        input_shape=input_shape,
        output_shape=output_shape,
        geometry=_geometry(op, operator.options),
        macs=_macs(op, shape, input_shape, output_shape),
    )


def _geometry(op: str, options: Any) -> Geometry:
    from ai_edge_litert.schema_py_generated import Padding

    if op == "FULLY_CONNECTED":
        return Geometry()
    dilation = (1, 1) if op == "TRANSPOSE_CONV" else (options.dilationHFactor, options.dilationWFactor)
    return Geometry(
        stride=(options.strideH, options.strideW), dilation=dilation, same_padding=options.padding == Padding.SAME
    )


def _macs(op: str, shape: Sequence[int], input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    if op == "TRANSPOSE_CONV":  # each input value meets each weight of its channel
        return math.prod(input_shape[1:]) * math.prod(shape[:3])
    if op == "DEPTHWISE_CONV_2D":
        return math.prod(output_shape[1:]) * shape[1] * shape[2]
    return math.prod(output_shape[1:]) * math.prod(shape[1:])
