#!/usr/bin/env bash
# A network resized to a batch of several samples runs without an error and mixes the samples.
#
# A good engineer expects of Interpreter.resize_tensor_input to a batch of 4 either the four outputs that the samples have
# one by one, or an error of allocate_tensors where the graph cannot run 4. The graph here multiplies its input by its own
# last column, which a SLICE takes out; the converter wrote the size of that SLICE as a constant, [1, 1], from a batch of
# 1, as converters do. allocate_tensors takes it, the output has the right shape [4, 8] and the first row is right; the
# SLICE is still one row, so every other sample is multiplied by the column of sample 0. With XNNPACK and without.
# Accuracy measured in batches is that of another network.
#
# ai-edge-litert 2.3.0, Python 3.11. Output seen:
#   XNNPACK: no error, output (4, 8); largest difference to the sample alone: [0.0, 2.0, 4.0, 6.0]
#   built-in kernels: no error, output (4, 8); largest difference to the sample alone: [0.0, 2.0, 4.0, 6.0]
#   every row is its sample times the last column of sample 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  ai-edge-litert==2.3.0 numpy==2.4.6 flatbuffers==25.12.19 ml_dtypes==0.6.0 protobuf==7.36.2 \
  tqdm==4.70.1 typing_extensions==4.16.0 backports.strenum==1.2.8

cat > "$folder/seen.py" <<'PYTHON'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter, OpResolverType


class Graph:
    """A .tflite file of one graph, by the schema that comes with LiteRT."""

    def __init__(self):
        self.model, self.graph = s.ModelT(), s.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [s.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind="float32", values=None, scale=None, axis=0):
        made = s.TensorT()
        made.name, made.shape, made.buffer = f"t{len(self.graph.tensors)}", list(shape), 0
        made.type = getattr(s.TensorType, kind.upper())
        if values is not None:
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(s.BufferT())
            self.model.buffers[-1].data = np.frombuffer(np.asarray(values, kind).tobytes(), np.uint8)
        if scale is not None:
            made.quantization = s.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(scale).astype(np.float32)
            made.quantization.zeroPoint = np.zeros(np.size(scale), np.int64)
            made.quantization.quantizedDimension = axis
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def op(self, name, inputs, output, version=1, **options):
        code, made = s.OperatorCodeT(), s.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(s.BuiltinOperator, name)
        code.version, made.opcodeIndex = version, len(self.model.operatorCodes)
        made.inputs, made.outputs = inputs, [output]
        kind = {"SLICE": "Slice", "MUL": "Mul", "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D"}
        kind = kind.get(name, "FullyConnected") + "Options"
        made.builtinOptionsType, made.builtinOptions = getattr(s.BuiltinOptions, kind), getattr(s, kind + "T")()
        for key, value in options.items():
            setattr(made.builtinOptions, key, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(made)

    def file(self, x, y):
        self.graph.inputs, self.graph.outputs = [x], [y]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def gated():
    """y = x * x[:, 7:], of a batch of 1."""
    net = Graph()
    x, y, gate = net.tensor([1, 8]), net.tensor([1, 8]), net.tensor([1, 1])
    net.op("SLICE", [x, net.tensor([2], "int32", [0, 7]), net.tensor([2], "int32", [1, 1])], gate)
    net.op("MUL", [x, gate], y)
    return net.file(x, y)


def run(model, x, kernels):
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=kernels)
    taken = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(taken, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


model = gated()
x = np.full((4, 8), 2, np.float32)
x[:, 7] = [1, 2, 3, 4]
for name, kernels in {
    "XNNPACK": OpResolverType.AUTO,
    "built-in kernels": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}.items():
    alone = np.concatenate([run(model, sample[None], kernels) for sample in x])
    assert np.array_equal(alone, x * x[:, 7:]), "a sample alone is not right"
    together = run(model, x, kernels)
    gaps = np.abs(together - alone)[:, :7].max(axis=1)
    print(f"{name}: no error, output {together.shape}; largest difference to the sample alone: {gaps.tolist()}")
    assert np.array_equal(together, x * x[0, 7]), "the samples are not mixed as they were"
print("every row is its sample times the last column of sample 0")
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/seen.py"
