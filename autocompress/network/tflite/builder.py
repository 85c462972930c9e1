"""Float `.tflite` files put together operator by operator, without TensorFlow: networks whose shape is the point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.network.tflite import flatbuffer

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]


class NetworkBuilder:
    """A network under construction. Each method adds one operator and returns the index of the tensor it makes.

    Tensors are NHWC with a batch of 1. Weights are drawn from `seed` and scaled so that activations keep their
    size through any depth: neither overflow nor denormal numbers disturb a timing."""

    def __init__(self, shape: Sequence[int], *, seed: int = 0) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema, self._rng = schema, np.random.default_rng(seed)
        self._tree = schema.ModelT()
        self._tree.version, self._tree.description = 3, "designed network"
        self._tree.buffers, self._tree.operatorCodes = [schema.BufferT()], []
        self._graph = schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors, self._graph.operators = [], []
        self._tree.subgraphs = [self._graph]
        self._codes: dict[str, int] = {}
        self.input = self._tensor(tuple(shape))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor made so far."""
        return tuple(int(n) for n in self._graph.tensors[tensor].shape)

    def convolution(
        self, x: int, channels: int, kernel: Pair = (3, 3), stride: int = 1, *, same: bool = True, relu: bool = True
    ) -> int:
        """CONV_2D with a bias, ReLU fused."""
        depth = self.shape(x)[3]
        options = self._walk(self._schema.Conv2DOptionsT(), stride, same, relu)
        weight, bias = self._weights((channels, *kernel, depth), math.prod(kernel) * depth, channels)
        shape = (*self._slid(x, kernel, stride, same), channels)
        return self._op("CONV_2D", [x, weight, bias], shape, options, "Conv2DOptions")

    def depthwise(self, x: int, kernel: Pair = (3, 3), stride: int = 1, *, same: bool = True, relu: bool = True) -> int:
        """DEPTHWISE_CONV_2D of multiplier 1 with a bias, ReLU fused."""
        depth = self.shape(x)[3]
        options = self._walk(self._schema.DepthwiseConv2DOptionsT(), stride, same, relu)
        options.depthMultiplier = 1
        weight, bias = self._weights((1, *kernel, depth), math.prod(kernel), depth)
        shape = (*self._slid(x, kernel, stride, same), depth)
        return self._op("DEPTHWISE_CONV_2D", [x, weight, bias], shape, options, "DepthwiseConv2DOptions")

    def dense(self, x: int, units: int, *, relu: bool = True) -> int:
        """FULLY_CONNECTED of a (1, n) tensor with a bias, ReLU fused."""
        width = self.shape(x)[1]
        options = self._schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = int(relu)
        weight, bias = self._weights((units, width), width, units)
        return self._op("FULLY_CONNECTED", [x, weight, bias], (1, units), options, "FullyConnectedOptions")

    def pool(self, x: int, op: str, size: int, stride: int) -> int:
        """AVERAGE_POOL_2D or MAX_POOL_2D over `size` x `size`, padded as needed."""
        options = self._walk(self._schema.Pool2DOptionsT(), stride, True, False)
        options.filterHeight = options.filterWidth = size
        shape = (*self._slid(x, (size, size), stride, True), self.shape(x)[3])
        return self._op(op, [x], shape, options, "Pool2DOptions")

    def mean(self, x: int, *, keep: bool = False) -> int:
        """MEAN over height and width, to (1, channels) or, with `keep`, (1, 1, 1, channels)."""
        options = self._schema.ReducerOptionsT()
        options.keepDims = keep
        depth = self.shape(x)[3]
        axes = self._constant(np.array([1, 2], np.int32))
        return self._op("MEAN", [x, axes], (1, 1, 1, depth) if keep else (1, depth), options, "ReducerOptions")

    def add(self, x: int, y: int, *, relu: bool = False) -> int:
        """ADD of two tensors of one shape."""
        options = self._schema.AddOptionsT()
        options.fusedActivationFunction = int(relu)
        return self._op("ADD", [x, y], self.shape(x), options, "AddOptions")

    def multiply(self, x: int, y: int) -> int:
        """MUL of two tensors of one shape."""
        return self._op("MUL", [x, y], self.shape(x), self._schema.MulOptionsT(), "MulOptions")

    def softmax(self, x: int) -> int:
        """SOFTMAX over the last axis."""
        options = self._schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._op("SOFTMAX", [x], self.shape(x), options, "SoftmaxOptions")

    def unary(self, x: int, op: str) -> int:
        """An operator without options that keeps the shape: LOGISTIC, TANH, RELU, RELU6."""
        return self._op(op, [x], self.shape(x))

    def hard_swish(self, x: int) -> int:
        """HARD_SWISH."""
        return self._op("HARD_SWISH", [x], self.shape(x), self._schema.HardSwishOptionsT(), "HardSwishOptions")

    def pad(self, x: int, before: int, after: int) -> int:
        """PAD of height and width by zeros."""
        paddings = self._constant(np.array([[0, 0], [before, after], [before, after], [0, 0]], np.int32))
        _, height, width, depth = self.shape(x)
        shape = (1, height + before + after, width + before + after, depth)
        return self._op("PAD", [x, paddings], shape, self._schema.PadOptionsT(), "PadOptions")

    def concatenate(self, tensors: Sequence[int]) -> int:
        """CONCATENATION along the channels."""
        options = self._schema.ConcatenationOptionsT()
        options.axis = 3
        depth = sum(self.shape(x)[3] for x in tensors)
        shape = (*self.shape(tensors[0])[:3], depth)
        return self._op("CONCATENATION", list(tensors), shape, options, "ConcatenationOptions")

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """RESHAPE to a constant shape."""
        options = self._schema.ReshapeOptionsT()
        options.newShape = list(shape)
        target = self._constant(np.array(shape, np.int32))
        return self._op("RESHAPE", [x, target], tuple(shape), options, "ReshapeOptions")

    def upsample(self, x: int, channels: int, kernel: int, stride: int) -> int:
        """TRANSPOSE_CONV with a bias; the sides grow by `stride`."""
        _, height, width, depth = self.shape(x)
        options = self._walk(self._schema.TransposeConvOptionsT(), stride, True, False)
        shape = (1, height * stride, width * stride, channels)
        weight, bias = self._weights((channels, kernel, kernel, depth), kernel * kernel * depth, channels)
        target = self._constant(np.array(shape, np.int32))
        return self._op("TRANSPOSE_CONV", [target, weight, x, bias], shape, options, "TransposeConvOptions", version=3)

    def finish(self, output: int) -> bytes:
        """The whole file, with `output` as the network's output."""
        self._graph.inputs, self._graph.outputs = [self.input], [output]
        signature = self._schema.SignatureDefT()  # ai-edge-quantizer wants one
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [self._port(b"x", self.input)]
        signature.outputs = [self._port(b"y", output)]
        self._tree.signatureDefs = [signature]
        return flatbuffer.write(self._tree)

    def _port(self, name: bytes, tensor: int) -> Any:
        port = self._schema.TensorMapT()
        port.name, port.tensorIndex = name, tensor
        return port

    def _walk(self, options: Any, stride: int, same: bool, relu: bool) -> Any:
        options.padding = self._schema.Padding.SAME if same else self._schema.Padding.VALID
        options.strideH = options.strideW = stride
        options.fusedActivationFunction = int(relu)
        return options

    def _slid(self, x: int, kernel: Pair, stride: int, same: bool) -> tuple[int, int, int]:
        """Batch, height and width of what a kernel leaves."""
        batch, *sides, _ = self.shape(x)
        lost = (0, 0) if same else (kernel[0] - 1, kernel[1] - 1)
        height, width = (-(-(side - less) // stride) for side, less in zip(sides, lost, strict=True))
        return batch, height, width

    def _weights(self, shape: tuple[int, ...], fan_in: int, outputs: int) -> tuple[int, int]:
        weight = self._rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5)
        return self._constant(weight), self._constant(np.full(outputs, 0.1, np.float32))

    def _constant(self, value: Array) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self._tree.buffers.append(buffer)
        index = self._tensor(value.shape, len(self._tree.buffers) - 1)
        if value.dtype == np.int32:
            self._graph.tensors[index].type = self._schema.TensorType.INT32
        return index

    def _tensor(self, shape: tuple[int, ...], buffer: int = 0) -> int:
        tensor = self._schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}".encode()
        tensor.shape, tensor.type, tensor.buffer = list(shape), self._schema.TensorType.FLOAT32, buffer
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _op(
        self,
        op: str,
        inputs: list[int],
        shape: tuple[int, ...],
        options: Any = None,
        kind: str = "NONE",
        version: int = 1,
    ) -> int:
        output = self._tensor(shape)
        operator = self._schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._code(op, version), inputs, [output]
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, kind)
        operator.builtinOptions = options
        self._graph.operators.append(operator)
        return output

    def _code(self, op: str, version: int) -> int:
        if op not in self._codes:
            code = self._schema.OperatorCodeT()
            number = getattr(self._schema.BuiltinOperator, op)
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            self._codes[op] = len(self._tree.operatorCodes)
            self._tree.operatorCodes.append(code)
        return self._codes[op]
