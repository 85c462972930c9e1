"""The layers of a network: operators with a constant weight, their geometry and their place in the graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer

LAYER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Positions of input, weight and bias among an operator's inputs, and the axis of the weight that counts outputs.
INPUTS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
EXPANDING_OPS = ("DEQUANTIZE", "DENSIFY")  # of a constant: it is a weight that is stored otherwise
_RANKS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 4}  # of the weight
_OPTIONS = {
    "CONV_2D": "Conv2DOptionsT",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptionsT",
    "TRANSPOSE_CONV": "TransposeConvOptionsT",
}
OUTPUT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}


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
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[self.output_axis]


def layers_of(tree: Any) -> tuple[Layer, ...]:
    """All layers of the main graph in flatbuffer order; AutocompressError where there is none."""
    graph, counts, found = tree.subgraphs[0], Counter[str](), []
    for position, operator in enumerate(graph.operators):
        op = flatbuffer.op_name(tree, operator)
        number = counts[op]
        counts[op] += 1
        if op in LAYER_OPS and _has_own_weight(tree, op, operator):
            found.append(_layer(tree, op, number, position, operator))
    if not found:
        raise AutocompressError(
            f"the network has no layer to compress (an op of {', '.join(LAYER_OPS)} with constant float32 weights)"
        )
    return tuple(found)


def makers_of(tree: Any) -> dict[int, Any]:
    """The operator of the main graph that makes each computed tensor."""
    return {int(i): operator for operator in tree.subgraphs[0].operators for i in operator.outputs}


def stored_tensor(tree: Any, makers: Mapping[int, Any], index: int) -> int | None:
    """The constant that tensor `index` is, or that operators which only expand it turn into it; None where it is
    computed. `makers` as `makers_of` gives them."""
    while tree.buffers[tree.subgraphs[0].tensors[index].buffer].data is None:
        maker = makers.get(index)
        if maker is None or flatbuffer.op_name(tree, maker) not in EXPANDING_OPS:
            return None
        index = int(maker.inputs[0])
    return index


def _has_own_weight(tree: Any, op: str, operator: Any) -> bool:
    from ai_edge_litert.schema_py_generated import TensorType

    options = op == "FULLY_CONNECTED" or type(operator.builtinOptions).__name__ == _OPTIONS[op]
    if len(operator.inputs) <= max(INPUTS[op][:2]) or not len(operator.outputs) or not options:
        return False  # malformed: the runtime says why it refuses it
    index = int(operator.inputs[INPUTS[op][1]])
    tensor = tree.subgraphs[0].tensors[index]
    fits = tensor.type == TensorType.FLOAT32 and len(tensor.shape) == _RANKS[op]
    return fits and flatbuffer.constant(tree, index) is not None


def _layer(tree: Any, op: str, number: int, position: int, operator: Any) -> Layer:
    tensors = tree.subgraphs[0].tensors
    at_input, at_weight, at_bias = INPUTS[op]
    inputs, output = [int(i) for i in operator.inputs], int(operator.outputs[0])
    bias = inputs[at_bias] if len(inputs) > at_bias and inputs[at_bias] >= 0 else None
    shape = _shape(tensors[inputs[at_weight]])
    input_shape, output_shape = _shape(tensors[inputs[at_input]]), _shape(tensors[output])
    return Layer(
        name=f"{op.lower()}_{number}",
        op=op,
        tensor_name=tensors[output].name.decode(errors="replace"),
        operator=position,
        input=inputs[at_input],
        weight=inputs[at_weight],
        bias=bias if bias is not None and flatbuffer.constant(tree, bias) is not None else None,
        output=output,
        shape=shape,
        input_shape=input_shape,
        output_shape=output_shape,
        geometry=_geometry(op, operator.builtinOptions),
        macs=_macs(op, shape, input_shape, output_shape),
    )


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape)


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
