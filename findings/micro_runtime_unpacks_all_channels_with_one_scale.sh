#!/usr/bin/env bash
# TensorFlow Lite Micro's DEQUANTIZE unpacks a tensor with a scale a channel by the first channel's scale, without a word.
#
# A file with integer weights and float kernels (weight-only quantization) is a DEQUANTIZE of a constant with a scale for
# each output channel. LiteRT unpacks each channel by its own scale. A good engineer expects TensorFlow Lite Micro to do
# the same or to refuse the file, as it refuses what else it does not know. It allocates, runs, and takes the scale of
# channel 0 for all: the outputs are wrong by the ratio of the scales.
#
# tflite-micro 0.dev20261023182759 against ai-edge-litert 2.3.0, Python 3.11. Output seen:
#   scales 1, 2, 4: LiteRT [10, 20, 40], TensorFlow Lite Micro [10, 10, 10]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  tflite-micro==0.dev20261023182759 ai-edge-litert==2.3.0 numpy==2.4.6 flatbuffers==25.12.19 ml_dtypes==0.6.0 \
  protobuf==7.36.2 tqdm==4.70.1 typing_extensions==4.16.0 backports.strenum==1.2.8 pyyaml==6.0.3

cat > "$folder/make.py" <<'PYTHON'
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s

SCALES = np.float32([1, 2, 4])


def tensor(name, kind, shape, buffer=0):
    made = s.TensorT()
    made.name, made.type, made.shape, made.buffer = name, kind, shape, buffer
    return made


def operator(index, inputs, output):
    made = s.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = index, inputs, [output]
    return made


model, graph = s.ModelT(), s.SubGraphT()
model.version, model.subgraphs = 3, [graph]
model.buffers = [s.BufferT(), s.BufferT()]
model.buffers[1].data = np.full((3, 1), 10, np.int8).view(np.uint8).ravel()
levels = tensor("levels", s.TensorType.INT8, [3, 1], 1)
levels.quantization = s.QuantizationParametersT()
levels.quantization.scale, levels.quantization.zeroPoint = SCALES, np.zeros(3, np.int64)
levels.quantization.quantizedDimension = 0
kind = s.TensorType.FLOAT32
graph.tensors = [tensor("x", kind, [1, 1]), levels, tensor("weights", kind, [3, 1]), tensor("y", kind, [1, 3])]
model.operatorCodes = []
for name, version in (("DEQUANTIZE", 5), ("FULLY_CONNECTED", 1)):
    code = s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(s.BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
graph.operators = [operator(0, [1], 2), operator(1, [0, 2, -1], 3)]
graph.operators[1].builtinOptionsType = s.BuiltinOptions.FullyConnectedOptions
graph.operators[1].builtinOptions = s.FullyConnectedOptionsT()
graph.inputs, graph.outputs = [0], [3]
builder = flatbuffers.Builder(1024)
builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
open(sys.argv[1], "wb").write(bytes(builder.Output()))
PYTHON
cat > "$folder/litert.py" <<'PYTHON'
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter(sys.argv[1])
run.allocate_tensors()
run.set_tensor(run.get_input_details()[0]["index"], np.ones((1, 1), np.float32))
run.invoke()
print([int(value) for value in run.get_tensor(run.get_output_details()[0]["index"])[0]])
PYTHON
cat > "$folder/micro.py" <<'PYTHON'
import sys

import numpy as np
from tflite_micro.python.tflite_micro import runtime

run = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 16)
run.set_input(np.ones((1, 1), np.float32), 0)
run.invoke()
print([int(value) for value in run.get_output(0)[0]])
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3
python="$folder/venv/bin/python"
"$python" "$folder/make.py" "$folder/net.tflite"
litert=$("$python" "$folder/litert.py" "$folder/net.tflite" 2> /dev/null)
micro=$("$python" "$folder/micro.py" "$folder/net.tflite" 2> /dev/null)
echo "scales 1, 2, 4: LiteRT $litert, TensorFlow Lite Micro $micro"
test "$litert" = "[10, 20, 40]"
test "$micro" = "[10, 10, 10]"
