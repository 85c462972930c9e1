"""One-layer float `.tflite` files, written without TensorFlow, and files that no runtime can run."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.builders.arrays import Array

INPUT, WEIGHTS, BIAS, OUTPUT = range(4)


def dense_model(*, inputs: int = 8, outputs: int = 4, batch: int = 1, seed: int = 0) -> bytes:
    """y = Wx + b for x of shape (batch, inputs), float32, W and b drawn from `seed`."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((outputs, inputs), dtype=np.float32)
    bias = rng.standard_normal(outputs, dtype=np.float32)
    model = schema.ModelT()
    model.version = 3
    model.description = "one dense layer"
    model.buffers = [_buffer(None), _buffer(weights), _buffer(bias)]
    model.operatorCodes = [_operator_code()]
    model.subgraphs = [_subgraph((batch, inputs), weights.shape, (batch, outputs))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def int4_conv_model(*, channels: int) -> bytes:
    """A 1x1 convolution of one float pixel with `channels` channels, by 4-bit weights of as many filters."""
    rng = np.random.default_rng(0)
    model = schema.ModelT()
    model.version = 3
    model.description = "one convolution"
    packed = rng.integers(0, 256, channels * channels // 2, dtype=np.uint8)  # two weights a byte
    model.buffers = [_buffer(None), _buffer(packed), _buffer(np.zeros(channels, np.float32))]
    model.operatorCodes = [_operator_code(schema.BuiltinOperator.CONV_2D)]
    graph = _subgraph((1, 1, 1, channels), (channels, 1, 1, channels), (1, 1, 1, channels))
    weights, operator = graph.tensors[WEIGHTS], graph.operators[0]
    weights.type = schema.TensorType.INT4
    weights.quantization = schema.QuantizationParametersT()
    weights.quantization.scale = np.full(channels, 0.01, np.float32)
    weights.quantization.zeroPoint = np.zeros(channels, np.int64)
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    operator.builtinOptions = schema.Conv2DOptionsT()
    operator.builtinOptions.strideW = operator.builtinOptions.strideH = 1
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def refused_model() -> bytes:
    """Bytes that are not a flatbuffer at all: every runtime refuses them with a message."""
    return b"this is no network" * 8


def crashing_model() -> bytes:
    """A `.tflite` head over noise: a runtime that does not verify the flatbuffer follows wild offsets."""
    noise = np.random.default_rng(1).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    return b"\xf0\xff\xff\x7fTFL3" + noise


def _buffer(data: Array | None) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
    return buffer


def _operator_code(op: int = schema.BuiltinOperator.FULLY_CONNECTED) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = op
    code.version = 1
    return code


def _tensor(name: str, shape: tuple[int, ...], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name = name
    tensor.shape = list(shape)
    tensor.type = schema.TensorType.FLOAT32
    tensor.buffer = buffer
    return tensor


def _subgraph(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> schema.SubGraphT:
    operator = schema.OperatorT()
    operator.inputs = [INPUT, WEIGHTS, BIAS]
    operator.outputs = [OUTPUT]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [
        _tensor("x", x, 0),
        _tensor("dense/weights", w, 1),
        _tensor("dense/bias", w[:1], 2),
        _tensor("y", y, 0),
    ]
    graph.inputs = [INPUT]
    graph.outputs = [OUTPUT]
    graph.operators = [operator]
    return graph
