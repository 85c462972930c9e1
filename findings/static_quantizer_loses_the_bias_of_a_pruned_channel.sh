#!/usr/bin/env bash
# The static int8 recipe of ai-edge-quantizer loses the bias of a channel whose weights are all zero.
#
# A good engineer expects a channel that is pruned whole to be the easiest of all: there is nothing to round, and its output
# is its bias. But the bias is stored as int32 in units of input scale x weight scale, and the scale of zero weights is
# made next to nothing: -2 is more than 10^13 of these units, is clipped to -2^31 of them, which is -.0001, and the
# channel gives 0. No error and no warning. (A positive bias gets lost likewise; numpy then warns of a cast.) With one
# weight of .01 in the channel all is well.
#
# ai-edge-quantizer 0.10.0, ai-edge-litert 2.3.0, Python 3.11. Output seen (the quantizer's own lines on sizes left out):
#   largest weight of channel 2 0.01: bias in the file [-0.5, 0.5, -2.0]; outputs of channel 2: float -2.00, int8 -2.00 (means); warnings: 0
#   largest weight of channel 2 0: bias in the file [-0.5, 0.5, -0.0]; outputs of channel 2: float -2.00, int8 0.00 (means); warnings: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0 numpy==2.4.6 flatbuffers==25.12.19 ml_dtypes==0.6.0 protobuf==7.36.2 \
  tqdm==4.70.1 typing_extensions==4.16.0 backports.strenum==1.2.8 \
  immutabledict==4.3.1 absl-py==2.5.1 scipy==1.17.1 litert-lm-builder==0.18.1 tomli==2.5.0

cat > "$folder/seen.py" <<'PYTHON'
import warnings

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


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
        signature = s.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = [s.TensorMapT()], [s.TensorMapT()]
        signature.inputs[0].name, signature.inputs[0].tensorIndex = "x", x
        signature.outputs[0].name, signature.outputs[0].tensorIndex = "y", y
        self.model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def dense(weights, bias):
    net = Graph()
    x, y = net.tensor([1, weights.shape[1]]), net.tensor([1, len(bias)])
    constants = [net.tensor(weights.shape, values=weights), net.tensor(bias.shape, values=bias)]
    net.op("FULLY_CONNECTED", [x, *constants], y)
    return net.file(x, y)


def run(model, samples):
    """Outputs in real numbers, one sample at a time, and the int32 bias times its scales, if there is one."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for x in samples:
        if taken["dtype"] == np.int8:
            scale, zero = taken["quantization"]
            x = np.clip(np.round(x / scale) + zero, -128, 127)
        interpreter.set_tensor(taken["index"], x[None].astype(taken["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0].astype(np.float64))
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        found = (np.array(found) - zero) * scale
    return np.array(found), next(
        (
            interpreter.get_tensor(t["index"]) * t["quantization_parameters"]["scales"].astype(np.float64)
            for t in interpreter.get_tensor_details()
            if t["dtype"] == np.int32
        ),
        None,
    )


def quantized(model, samples):
    """The static int8 file of the standard recipe, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maker = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        ranges = maker.calibrate({"serving_default": [{"x": sample[None]} for sample in samples]})
        made = bytes(maker.quantize(ranges).quantized_model)
    return made, [w for w in caught if "preserve_all_tensors" not in str(w.message)]  # that one is of calibration


samples = np.random.default_rng(0).choice(np.array([-1, -0.5, 0, 0.5, 1], np.float32), (100, 4))
bias = np.array([-0.5, 0.5, -2], np.float32)
for last in (0.01, 0):
    weights = np.array([[1, -0.5, 0.25, 0.25], [-0.25, 1, -0.5, 0.25], [last, 0, 0, 0]], np.float32)
    model = dense(weights, bias)
    made, told = quantized(model, samples)
    (plain, _), (found, stored) = run(model, samples), run(made, samples)
    assert np.allclose(plain, samples @ weights.T + bias)
    print(
        f"largest weight of channel 2 {last}: bias in the file {np.round(stored, 3).tolist()}; outputs of channel 2: "
        f"float {plain[:, 2].mean():.2f}, int8 {found[:, 2].mean():.2f} (means); warnings: {len(told)}"
    )
    assert not told, told
    assert np.allclose(stored[:2], bias[:2], atol=0.001)
    kept = -2 if last else 0
    assert abs(stored[2] - kept) < 0.001, "what becomes of the bias has changed"
    assert np.abs(found[:, 2] - kept).max() < 0.1, "what becomes of the output has changed"
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/seen.py"
