#!/usr/bin/env bash
# ai-edge-quantizer quantizes nothing of a file that stores its operators the old way, without an error or a warning.
#
# A good engineer expects the quantizer and the runtime, which come both from Google AI Edge, to read one file alike. The number
# of an operator stands in a .tflite file in `deprecated_builtin_code`, a byte, and since the schema grew beyond 127
# operators also in `builtin_code`; files made before (and by writers that fill only the first) have the number in the byte
# alone, and readers take the larger of the two. LiteRT does and runs the file. The quantizer reads `builtin_code` only,
# takes every operator for number 0 (ADD), finds none that its recipe is for and hands back a float network: no error, no
# warning; that the sizes it prints have a ratio of 1.00 is the only hint. The same network with both fields is quantized.
#
# ai-edge-quantizer 0.10.0, ai-edge-litert 2.3.0, Python 3.11. Output seen (the quantizer's own lines on sizes left out):
#   both fields: outputs right, weights float32 before and int8 after dynamic_wi8_afp32; warnings: 0
#   the old one alone: outputs right, weights float32 before and float32 after dynamic_wi8_afp32; warnings: 0
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


WEIGHTS = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)


def dense(old):
    net = Graph()
    x, y = net.tensor([1, 64]), net.tensor([1, 64])
    constants = [net.tensor([64, 64], values=WEIGHTS), net.tensor([64], values=np.zeros(64))]
    net.op("FULLY_CONNECTED", [x, *constants], y)
    if old:
        net.model.operatorCodes[0].builtinCode = 0  # the default value: the field is left out of the file
    return net.file(x, y)


def seen(model):
    """The type of the weights as the runtime reads them, and whether the outputs are right (within 8 bits)."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
    interpreter.invoke()
    y, wanted = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], WEIGHTS @ x
    (kind,) = {t["dtype"].__name__ for t in interpreter.get_tensor_details() if list(t["shape"]) == [64, 64]}
    return kind, bool(np.abs(y - wanted).max() < 0.05 * np.abs(wanted).max())


for name, old, expected in (("both fields", False, "int8"), ("the old one alone", True, "float32")):
    model = dense(old)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = bytes(quantizer.Quantizer(model, recipe.dynamic_wi8_afp32()).quantize().quantized_model)
    (before, right), (after, still_right) = seen(model), seen(made)
    words = f"weights {before} before and {after} after dynamic_wi8_afp32; warnings: {len(caught)}"
    print(f"{name}: outputs {'right' if right and still_right else 'WRONG'}, {words}")
    assert right
    assert still_right
    assert (before, after, len(caught)) == ("float32", expected, 0)
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/seen.py"
