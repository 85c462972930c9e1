#!/usr/bin/env bash
# One channel with a large ratio of scales makes a whole static int8 network fail to load.
#
# A good engineer expects what XNNPACK has no kernel for to stay with the built-in kernels, node by node: that is what the
# default delegate of LiteRT does. But a convolution or dense layer with input scale x weight scale >= 256 x output scale
# (one channel of eight is enough in the convolution here; a layer that is dead on calibration data gets such a tiny output
# scale) is taken by the delegate, which then fails: allocate_tensors raises for the whole network. The file is valid: the
# built-in kernels of the same package run it and give what the arithmetic of int8 quantization gives.
#
# ai-edge-litert 2.3.0, Python 3.11. Output seen:
#   CONV_2D, ratio 128: XNNPACK runs it, built-in kernels run it; both are right
#   CONV_2D, ratio 256: XNNPACK: RuntimeError: failed to create XNNPACK runtime ... failed to prepare; built-in kernels are right
#   FULLY_CONNECTED, ratio 128: XNNPACK runs it, built-in kernels run it; both are right
#   FULLY_CONNECTED, ratio 256: XNNPACK: RuntimeError: failed to create XNNPACK runtime ... failed to prepare; built-in kernels are right
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


WEIGHTS = np.random.default_rng(0).integers(-127, 128, (8, 8))
ONES = np.eye(8, dtype=int)


def network(op, ratio):
    """A layer that copies its input, then one whose last channel has this ratio; all others have a ratio of 1/256."""
    ratios = np.full(8, 1 / 256) if op == "CONV_2D" else np.full(1, ratio)
    ratios[-1] = ratio
    net, shape = Graph(), [1, 1, 1, 8] if op == "CONV_2D" else [1, 8]
    options = {"strideH": 1, "strideW": 1} if op == "CONV_2D" else {}
    x, between, y = (net.tensor(shape, "int8", scale=1.0) for _ in range(3))
    for source, levels, scales, made in ((x, ONES, np.ones_like(ratios), between), (between, WEIGHTS, ratios, y)):
        weights = net.tensor([8, *shape[1:]], "int8", levels, scales)
        bias = net.tensor([8], "int32", np.zeros(8), scales)
        net.op(op, [source, weights, bias], made, version=4, **options)
    return net.file(x, y), ratios


def run(model, x, kernels):
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    interpreter.set_tensor(taken["index"], x.reshape(taken["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel().astype(int)


x = np.array([1, -2, 3, 0, 2, -1, 1, 2], np.int8)
for op in ("CONV_2D", "FULLY_CONNECTED"):
    for ratio in (128, 256):
        model, ratios = network(op, ratio)
        wanted = np.clip(WEIGHTS @ x * ratios, -128, 127)
        builtin = run(model, x, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        assert np.abs(builtin - wanted).max() <= 1, (builtin, wanted)
        try:
            delegated = run(model, x, OpResolverType.AUTO)
        except RuntimeError as fault:
            words = str(fault)
            assert ratio == 256, words
            assert "failed to create XNNPACK runtime" in words, words
            said = "failed to create XNNPACK runtime ... failed to prepare"
            print(f"{op}, ratio {ratio}: XNNPACK: RuntimeError: {said}; built-in kernels are right")
        else:
            assert ratio == 128, "XNNPACK takes a ratio of 256 now"
            assert np.abs(delegated - wanted).max() <= 1, (delegated, wanted)
            print(f"{op}, ratio {ratio}: XNNPACK runs it, built-in kernels run it; both are right")
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/seen.py"
