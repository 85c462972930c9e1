#!/usr/bin/env bash
# Of an 8-bit dynamic-range network XNNPACK runs the convolutions and dense layers, but not the depthwise layers.
#
# A good engineer expects int8 weights with float activations (dynamic range, what quantizers make of a network without
# calibration data) to be treated alike in all layers: XNNPACK takes CONV_2D and FULLY_CONNECTED in this form, and it
# takes DEPTHWISE_CONV_2D in float. But it leaves an 8-bit dynamic-range DEPTHWISE_CONV_2D to the built-in kernel,
# without a word: quantizing a MobileNet so takes its depthwise layers out of XNNPACK. Seen in the execution plan: a
# DELEGATE node stands for a layer that XNNPACK took.
#
# ai-edge-litert 2.3.0, Python 3.11. Output seen:
#   CONV_2D: float XNNPACK, dynamic range XNNPACK
#   FULLY_CONNECTED: float XNNPACK, dynamic range XNNPACK
#   DEPTHWISE_CONV_2D: float XNNPACK, dynamic range built-in kernel
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
from ai_edge_litert.interpreter import Interpreter


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


SHAPES = {"CONV_2D": (8, 3, 3, 8), "FULLY_CONNECTED": (8, 8), "DEPTHWISE_CONV_2D": (1, 3, 3, 8)}
VERSIONS = {"CONV_2D": 5, "FULLY_CONNECTED": 9, "DEPTHWISE_CONV_2D": 6}  # the first ones with per-channel dynamic range
LEVELS = np.random.default_rng(0).integers(-127, 128, 8 * 8 * 9)


def layer(op, dynamic):
    """One layer of 8 channels: float weights, or the same in int8 with a scale a channel."""
    net, shape = Graph(), SHAPES[op]
    sides = [1, 8] if op == "FULLY_CONNECTED" else [1, 8, 8, 8]
    x, y, bias = net.tensor(sides), net.tensor(sides), net.tensor([8], values=np.zeros(8))
    levels = LEVELS[: np.prod(shape)].reshape(shape)
    if dynamic:
        weights = net.tensor(shape, "int8", levels, np.full(8, 0.01), axis=3 if op == "DEPTHWISE_CONV_2D" else 0)
    else:
        weights = net.tensor(shape, values=levels * 0.01)
    options = {} if op == "FULLY_CONNECTED" else {"strideH": 1, "strideW": 1, "padding": s.Padding.SAME}
    if op == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 1
    net.op(op, [x, weights, bias], y, version=VERSIONS[op] if dynamic else 1, **options)
    return net.file(x, y)


def seen(model):
    """Who runs the layer, and its output for a fixed input."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    x = np.random.default_rng(1).standard_normal(taken["shape"]).astype(np.float32)
    interpreter.set_tensor(taken["index"], x)
    interpreter.invoke()
    delegated = any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return "XNNPACK" if delegated else "built-in kernel", y


for op in SHAPES:
    (plain, wanted), (dynamic, found) = seen(layer(op, dynamic=False)), seen(layer(op, dynamic=True))
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max(), "the two layers are not the same"
    print(f"{op}: float {plain}, dynamic range {dynamic}")
    assert plain == "XNNPACK"
    assert dynamic == ("built-in kernel" if op == "DEPTHWISE_CONV_2D" else "XNNPACK")
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/seen.py"
